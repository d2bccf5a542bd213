"use strict";
(() => {
  // Printing shows what is folded away.
  addEventListener("beforeprint", () => {
    for (const d of document.querySelectorAll("details:not([open])")) {
      d.open = true;
      d.dataset.printed = "";
    }
  });
  addEventListener("afterprint", () => {
    for (const d of document.querySelectorAll("details[data-printed]")) {
      d.open = false;
      delete d.dataset.printed;
    }
  });

  const samples = document.querySelector("[data-samples]");
  if (!samples) return;
  const form = samples.querySelector("[data-search]");
  const [query, label, found] = [form.querySelector("input"), form.querySelector("select"), form.querySelector("output")];
  const groups = [...samples.querySelectorAll(".group")].map((group) => ({
    group,
    label: group.dataset.label,
    open: group.open,
    more: group.querySelector(".more"),
    records: [...group.querySelectorAll(".sample")].map((item) => {
      const text = item.querySelector("p");
      return { item, text, words: text.textContent.toLowerCase() };
    }),
  }));

  const highlight = (ranges) => {
    if (!("highlights" in CSS)) return;
    CSS.highlights.delete("found");
    if (ranges.length) CSS.highlights.set("found", new Highlight(...ranges));
  };

  const search = () => {
    const wanted = query.value.trim().toLowerCase();
    let count = 0;
    const ranges = [];
    for (const g of groups) {
      const here = !label.value || label.value === g.label;
      let hits = 0;
      for (const r of g.records) {
        const at = r.words.indexOf(wanted);
        const hit = here && at >= 0;
        r.item.hidden = !hit;
        hits += hit;
        const node = r.text.firstChild;
        if (hit && wanted && node && at + wanted.length <= node.length) {
          const range = document.createRange();
          range.setStart(node, at);
          range.setEnd(node, at + wanted.length);
          ranges.push(range);
        }
      }
      count += hits;
      g.group.hidden = hits === 0;
      const searched = wanted !== "" || label.value !== "";
      g.group.open = searched ? hits > 0 : g.open;
      if (g.more) {
        g.more.open = wanted !== "";
        g.more.hidden = !g.more.querySelector(".sample:not([hidden])");
      }
    }
    found.value = `${count} ${count === 1 ? "record" : "records"}`;
    highlight(ranges);
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  query.addEventListener("input", search);
  label.addEventListener("change", search);
  form.hidden = false;
})();
