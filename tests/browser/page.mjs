// Opens pages of the report in Chromium and holds them to what they promise: no message on the console, no request, no
// sideways scrolling at 360 and 1280 pixels, in light and in dark, every picture named, every chart with its numbers, the
// search at work, nothing that axe-core finds against WCAG 2.2 AA, and readable with JavaScript off.
//
//   node page.mjs --modules NODE_MODULES --screenshots DIR PAGE.html…
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    modules: { type: "string" },
    screenshots: { type: "string", default: "artifacts" },
    chromium: { type: "string", default: "/usr/bin/chromium" },
  },
});
assert(values.modules && positionals.length > 0, "usage: node page.mjs --modules NODE_MODULES PAGE.html…");
const load = createRequire(join(resolve(values.modules), "_"));
const { chromium } = load("playwright-core");
const axe = readFileSync(load.resolve("axe-core/axe.min.js"), "utf8");
mkdirSync(values.screenshots, { recursive: true });

// A new profile, nothing of a person's own browser, and nothing that goes out by itself.
const browser = await chromium.launch({
  executablePath: values.chromium,
  headless: true,
  chromiumSandbox: false,
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});

let passed = 0;
const failures = [];
const check = (name, so, more = "") => {
  if (so) passed += 1;
  else failures.push(`${name}${more ? `: ${more}` : ""}`);
};

async function opened(file, options, look) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const said = [];
  const requests = [];
  page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => said.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => {
    said.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("request", (request) => requests.push(request.url()));
  const url = pathToFileURL(resolve(file)).href;
  await page.goto(url);
  await look(page);
  const others = requests.filter((r) => r !== url);
  await context.close();
  return { said, others };
}

async function inspect(file) {
  for (const [width, height] of [[360, 740], [1280, 900]]) {
    for (const colorScheme of ["light", "dark"]) {
      const name = `${basename(file, ".html")} at ${width} px, ${colorScheme}`;
      const shot = join(values.screenshots, `${basename(file, ".html")}-${width}-${colorScheme}`);
      const seen = await opened(file, { viewport: { width, height }, colorScheme }, async (page) => {
        await page.screenshot({ path: `${shot}.png` });
        await page.evaluate(() => document.querySelectorAll("details").forEach((d) => (d.open = true)));
        const wide = await page.evaluate(() => ({
          page: document.documentElement.scrollWidth,
          window: innerWidth,
          beyond: [...document.querySelectorAll("body *")]
            .filter((e) => !e.closest(".scroll, .hidden, .skip, svg") && e.getBoundingClientRect().right > innerWidth + 1)
            .slice(0, 3)
            .map((e) => e.outerHTML.slice(0, 120)),
        }));
        check(`${name}: no sideways scrolling`, wide.page <= wide.window, `${wide.page} > ${wide.window} ${wide.beyond}`);
        check(`${name}: nothing is cut off`, wide.beyond.length === 0, wide.beyond.join("\n"));

        const cut = await page.evaluate(() =>
          [...document.querySelectorAll("svg[role=img]:not([viewBox]) text")]
            .filter((t) => {
              const box = t.getBoundingClientRect();
              return box.left < -1 || box.right > innerWidth + 1;
            })
            .map((t) => t.textContent),
        );
        check(`${name}: no text of a chart is cut off`, cut.length === 0, cut.join(" | "));

        const unnamed = await page.evaluate(() =>
          [...document.querySelectorAll("svg:not([aria-hidden=true])")].filter((svg) => {
            const ids = (svg.getAttribute("aria-labelledby") ?? "").split(" ");
            return svg.getAttribute("role") !== "img" || !ids.every((id) => document.getElementById(id)?.textContent.trim());
          }).length,
        );
        check(`${name}: every picture has a name`, unnamed === 0, `${unnamed} have none`);

        const bare = await page.evaluate(() =>
          [...document.querySelectorAll("figure")]
            .filter((f) => !f.querySelector("table tbody td") || !f.querySelector("caption") || !f.querySelector("svg[role=img]"))
            .map((f) => f.id),
        );
        check(`${name}: every chart has its numbers`, bare.length === 0, bare.join(", "));

        await page.evaluate(axe);
        const found = await page.evaluate(() =>
          axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }),
        );
        const told = found.violations.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => `${n.html.slice(0, 160)} ${n.any.map((a) => a.message)}`).join(" ; ")}`);
        check(`${name}: axe-core finds nothing`, told.length === 0, told.join("\n  "));
        await page.screenshot({ path: `${shot}-full.png`, fullPage: true });
      });
      check(`${name}: nothing on the console`, seen.said.length === 0, seen.said.join("\n"));
      check(`${name}: no request`, seen.others.length === 0, seen.others.join("\n"));
    }
  }
}

async function search(file) {
  const name = `${basename(file, ".html")}: searching`;
  const shown = (page) => page.locator(".sample:visible").count();
  const seen = await opened(file, { viewport: { width: 1280, height: 900 } }, async (page) => {
    const box = page.locator("[data-samples]");
    if ((await box.count()) === 0) return;
    const input = page.getByRole("searchbox");
    check(`${name} is offered`, await input.isVisible());
    const all = await page.evaluate(() => [...document.querySelectorAll(".sample")].map((s) => s.querySelector("p").textContent));
    // A word that stands in some of the records, or else the first there is.
    const words = [...new Set(all.flatMap((t) => t.toLowerCase().match(/[\p{L}\p{N}]{3,}/gu) ?? []))];
    const having = (word) => all.filter((t) => t.toLowerCase().includes(word)).length;
    const word = words.find((w) => having(w) < all.length) ?? words[0];
    await input.fill(word);
    check(`${name} finds the records with a word`, (await shown(page)) === having(word), `${await shown(page)} of ${having(word)} with ${word}`);
    const told = await page.locator("[data-found]").innerText();
    check(`${name} says how many`, told.startsWith(`${having(word)} `), told);
    await input.fill("no record says this ☃");
    check(`${name} finds nothing where there is nothing`, (await shown(page)) === 0);
    await input.fill("");
    await page.getByLabel("Label", { exact: true }).selectOption({ index: 1 });
    const labels = await page.locator(".group:visible").count();
    check(`${name} shows one label alone`, labels === 1, `${labels} labels`);
    await page.getByLabel("Label", { exact: true }).selectOption({ index: 0 });
    await page.emulateMedia({ media: "print" });
    check(`${name} is not printed`, !(await input.isVisible()));
  });
  check(`${name}: nothing on the console`, seen.said.length === 0, seen.said.join("\n"));
}

async function keyboard(file) {
  const name = `${basename(file, ".html")}: by keyboard`;
  await opened(file, { viewport: { width: 1280, height: 900 } }, async (page) => {
    await page.keyboard.press("Tab");
    const first = await page.evaluate(() => [document.activeElement.className, document.activeElement.getBoundingClientRect().top >= 0]);
    check(`${name} the first stop skips to the content, in sight`, first[0] === "skip" && first[1], String(first));
    await page.keyboard.press("Enter");
    check(`${name} it goes there`, (await page.evaluate(() => document.activeElement.id)) === "main");
  });
}

async function withoutScript(file) {
  const name = `${basename(file, ".html")} without JavaScript`;
  const seen = await opened(file, { viewport: { width: 1280, height: 900 }, javaScriptEnabled: false }, async (page) => {
    check(`${name} has its charts`, (await page.locator("figure svg[role=img]").count()) === (await page.locator("figure").count()));
    const folded = page.locator("figure details").first();
    if ((await folded.count()) > 0) {
      await folded.locator("summary").click();
      check(`${name} unfolds its numbers`, await folded.locator("table").isVisible());
    }
    if ((await page.locator("[data-samples]").count()) > 0) {
      check(`${name} offers no search`, !(await page.locator("[data-search]").isVisible()));
      check(`${name} shows records`, (await page.locator(".sample:visible").count()) > 0);
    }
  });
  check(`${name}: nothing on the console`, seen.said.length === 0, seen.said.join("\n"));
}

try {
  for (const file of positionals) {
    await inspect(file);
    await search(file);
    await keyboard(file);
    await withoutScript(file);
  }
} finally {
  await browser.close();
}
for (const failure of failures) console.error(`FAILED ${failure}`);
console.log(`${passed} passed, ${failures.length} failed`);
process.exitCode = failures.length > 0 ? 1 : 0;
