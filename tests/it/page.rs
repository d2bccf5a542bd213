//! The report as a page: what each variant holds, what the public one cannot hold, and that no text breaks out of it.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use crate::common::Place;
use dpsynth::assets::Locations;
use dpsynth::page::{self, PublicFacts};
use dpsynth::release::examine;
use dpsynth::run::Places;
use serde_json::Value;

/// A tiny model: a whole run takes a second.
const MODEL: &str = concat!(
    "model.path=\"",
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/llama/model.gguf\""
);
/// Stands in private records alone.
const SECRET: &str = "Zyxquorbl";
const HOSTILE: &str = "<script>alert(1)</script></script><img src=x onerror=alert(2)>";

fn begin(place: &Place, stage: &str, more: &[&str]) -> String {
    let mut arguments = vec!["--set", MODEL];
    more.iter().for_each(|o| arguments.extend(["--set", o]));
    place.done(stage, &arguments).stdout
}

/// A finished run on records with a hostile text and a secret word, shared by the tests that only read it.
fn place() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(finished)
}

/// The same, audited: its public page may be made.
fn audited() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = finished();
        place.audit();
        place
    })
}

fn finished() -> Place {
    let place = Place::new();
    let rows: String = (0..200)
        .map(|i| {
            let label = if i % 2 == 0 { "positive" } else { "negative" };
            format!("\"{SECRET} film {i} {HOSTILE}\",{label}\n")
        })
        .collect();
    place.write("train.csv", format!("text,label\n{rows}"));
    begin(
        &place,
        "run",
        &[
            "evaluate.size_curve=[0.5, 1.0]",
            "dataset.labels=[{column=\"label\", names=[\"negative\", \"</script><script>alert(3)</script>\"], values=[\"negative\", \"positive\"]}]",
        ],
    );
    place
}

fn html(place: &Place, file: &str) -> String {
    fs::read_to_string(place.run(file)).expect("a page")
}

fn public() -> String {
    let place = audited();
    place.ok(&["report", "runs/tiny-quick", "--public", "--to", "public.html"]);
    place.text("public.html")
}

/// What an HTML file says, without its style, script and markup.
fn text(html: &str) -> String {
    for tag in ["style", "script"] {
        // Both stand once, before and behind the content.
        assert_eq!(html.matches(&format!("<{tag}>")).count(), 1, "one {tag}");
    }
    let body = &html[html.find("<body").expect("a body")..html.rfind("<script>").expect("a script")];
    let (mut out, mut inside) = (String::new(), false);
    for c in body.chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                out.push(' ');
            }
            c if !inside => out.push(c),
            _ => {}
        }
    }
    let entities = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#x27;", "'"),
        ("&#x2f;", "/"),
        ("&amp;", "&"),
    ];
    let out = entities.iter().fold(out, |out, (entity, c)| out.replace(entity, c));
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_run_ends_with_a_page_that_answers_first() {
    let place = place();
    let page = html(place, "report.html");
    let said = text(&page);
    let order = [
        "Internal",
        "tiny-quick",
        "A linear classifier trained on",
        "Guarantee",
        "Usefulness",
        "Not audited yet",
        "dpsynth audit runs/tiny-quick",
        "Privacy",
        "Records",
        "How it was made",
    ];
    let mut from = 0;
    for part in order {
        let at = said[from..]
            .find(part)
            .unwrap_or_else(|| panic!("no {part:?} after {} in\n{said}", &said[..from]));
        from += at + part.len();
    }
    for id in [
        "accuracy",
        "sizes",
        "loss",
        "ledger",
        "lengths",
        "words",
        "pairs-of-words",
        "timings",
    ] {
        assert!(page.contains(&format!("id=\"chart-{id}\"")), "no chart {id}");
    }
    assert_eq!(
        page.matches("<svg class=\"plot\" role=\"img\" aria-labelledby").count(),
        page.matches("<figure").count()
    );
    assert_eq!(
        page.matches("<figure").count(),
        page.matches("The numbers<span").count(),
        "each has its numbers"
    );

    let report = place.json("runs/tiny-quick/report.json");
    let accuracy = report["utility"][0]["accuracy"]["mean"].as_f64().expect("a number");
    assert!(said.contains(&format!("{:.1} %", 100.0 * accuracy)));
    assert!(
        said.contains(SECRET),
        "real records stand beside synthetic ones, and it says so"
    );
    assert!(said.contains("PRIVATE: shows real records"));
}

#[test]
fn the_commands_say_where_the_page_is() {
    let place = Place::new();
    let said = begin(&place, "prepare", &[]);
    assert!(!said.contains("to look at"), "there is nothing to look at yet: {said}");
    let page = text(&html(&place, "report.html"));
    for part in [
        "This run is not finished: it is done up to prepare.",
        "Still missing",
        "finetune",
        "sample",
        "evaluate",
    ] {
        assert!(page.contains(part), "no {part:?} in {page}");
    }
    assert!(!page.contains("epsilon 0"), "nothing is guaranteed yet: {page}");
    place
        .call(&["report", "runs/tiny-quick", "--public"])
        .refused(2, &["the stage `finetune`", "dpsynth run"]);
    assert!(!place.run("report-public.html").exists());

    fs::remove_file(place.run("report.html")).expect("removes");
    let said = place.ok(&["report", "runs/tiny-quick", "--json"]).stdout;
    let said: Value = serde_json::from_str(&said).expect("one JSON object");
    assert_eq!(said["classification"], "internal");
    assert_eq!(said["missing"], serde_json::json!(["finetune", "sample", "evaluate"]));
    assert!(place.run("report.html").exists());

    place
        .call(&["report", "nowhere"])
        .refused(2, &["nowhere", "not the folder of a run"]);
    place
        .call(&["report", "runs/tiny-quick", "--to", "runs"])
        .refused(2, &["is a folder"]);
}

#[test]
fn p9_the_public_page_holds_nothing_that_reads_private_records() {
    let place = audited();
    let page = public();
    assert!(
        page.contains("Public") && !page.contains(SECRET),
        "a real record is in the public page"
    );
    let said = text(&page);
    for part in [
        "accuracy",
        "loss",
        "seconds",
        "peak memory",
        "ledger",
        "audit",
        "training records",
        "report.json",
        "runs/",
    ] {
        assert!(
            !said.to_lowercase().contains(part),
            "{part:?} is in the public page:\n{said}"
        );
    }
    // The records that may leave are there.
    let zero_shot = fs::read_dir(place.run("zero_shot")).expect("shards").count();
    assert!(zero_shot > 0 && said.contains("zero-shot") && said.contains("synthetic records"));

    // Not a byte of it changes with what is internal.
    let copied = Place::new();
    for folder in ["runs", "ledgers"] {
        copy(&place.path(folder), &copied.path(folder));
    }
    for file in ["utility.json", "scores.jsonl", "training.jsonl"] {
        let file = copied.run("internal").join(file);
        assert!(file.exists(), "{file:?}");
        fs::write(file, "other words").expect("writes");
    }
    let places = Places {
        runs: copied.path("runs"),
        ledgers: copied.path("ledgers"),
        assets: Locations::from_env(),
    };
    let examined = examine(&copied.run(""), &places).unwrap_or_else(|e| panic!("{e}"));
    let facts = PublicFacts::of(examined.facts()).expect("facts");
    assert_eq!(page::public(&facts).expect("a page"), page);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("makes");
    for entry in fs::read_dir(from).expect("lists").map(|e| e.expect("an entry")) {
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a kind").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("copies")),
        }
    }
}

#[test]
fn p9_a_run_that_may_not_leave_has_no_public_page() {
    let place = place();
    place
        .call(&["report", "runs/tiny-quick", "--public", "--to", "unaudited.html"])
        .refused(4, &["may not be handed out", "the run was not audited"]);
    assert!(!place.path("unaudited.html").exists());
}

#[test]
fn p4_what_is_not_private_is_never_made_public() {
    let place = Place::new();
    begin(&place, "run", &["finetune.seed=7", "finetune.steps=1"]);
    place
        .call(&["report", "runs/tiny-quick", "--public"])
        .refused(4, &["NOT PRIVATE"]);
    let page = html(&place, "report.html");
    let said = text(&page);
    assert!(
        said.contains("Read this first NOT PRIVATE: the randomness came from a fixed seed"),
        "{said}"
    );
    assert!(said.contains("NOT PRIVATE epsilon"), "beside the number: {said}");
    assert!(!said.contains("finetune.seed"), "seeds of the noise reach no output");
}

/// On both pages' first screen, and drawn below.
#[test]
fn p10_what_attacks_can_do_is_said_before_any_number_is_explained() {
    let place = place();
    let guarantee: dpsynth::privacy::Guarantee =
        serde_json::from_value(place.json("runs/tiny-quick/model/privacy.json")).expect("a guarantee");
    let adjacency = dpsynth::privacy::accountant::Adjacency::AddOrRemoveOne;
    let curve = dpsynth::privacy::accountant::tradeoff::Curve::new(&guarantee.phases().expect("phases"), adjacency);
    let right = 100.0 * curve.expect("a curve").right_at_even_odds().at_most;
    for page in [html(place, "report.html"), public()] {
        let said = text(&page);
        let first = &said[..said.find("The numbers").unwrap_or(said.len())];
        let sentence = "Whoever tries to find out whether one record";
        assert!(
            first.contains(sentence) || said.find(sentence) < said.find("In full:"),
            "{said}"
        );
        assert!(
            said.contains(&format!("at most {:.1} %", (10.0 * right).ceil() / 10.0)),
            "{right} in {said}"
        );
        assert!(page.contains("id=\"chart-tradeoff\""));
    }
}

#[test]
fn p10_every_epsilon_stands_with_what_it_means() {
    let place = place();
    for page in [html(place, "report.html"), public()] {
        let said = text(&page);
        let guarantee = place.json("runs/tiny-quick/model/privacy.json");
        let epsilon = format!("{:.3}", guarantee["epsilon"].as_f64().expect("a number") + 0.0005);
        assert!(
            said.contains(&format!("epsilon {}", &epsilon[..4])),
            "{epsilon} in {said}"
        );
        for term in [
            "delta",
            "adjacency add or remove one",
            "unit record",
            "sampler poisson",
            "accountant pld",
        ] {
            assert!(said.contains(term), "no {term}: {said}");
        }
        // Each figure and table that prints an epsilon says at which delta, or is of lower ends.
        for figure in page.split("<figure").skip(1).chain(page.split("<table>").skip(1)) {
            let figure = &figure[..figure.find("</figure>").or(figure.find("</table>")).expect("it ends")];
            let says = |part: &str| figure.contains(part);
            if says("epsilon") && !says("finetune.epsilon") {
                assert!(says("delta") && says("poisson") && says("pld"), "{figure}");
            }
        }
    }
}

#[test]
fn no_text_breaks_out_of_the_page_and_nothing_is_loaded() {
    let place = place();
    for page in [html(place, "report.html"), public()] {
        assert_eq!(page.matches("<script").count(), 1, "the page's own alone");
        assert_eq!(page.matches("</script").count(), 1);
        assert!(!page.contains("<img") && !page.contains("onerror=alert(2)>"));
        assert!(
            page.contains("&lt;&#x2f;script&gt;&lt;script&gt;alert(3)"),
            "the label is shown as it is"
        );
        // Of the hostile text, which may be shown: it is text.
        let page = page.replace("&lt;img src=x", "");
        for loading in [
            "src=",
            "url(",
            "@import",
            "<link",
            "<iframe",
            "<object",
            "http-equiv=\"refresh\"",
        ] {
            assert!(!page.contains(loading), "{loading} loads something");
        }
        let targets = page
            .split("href=\"")
            .skip(1)
            .map(|t| &t[..t.find('"').expect("it ends")]);
        for target in targets {
            assert!(target.starts_with('#'), "{target} leaves the page");
            assert!(
                page.contains(&format!("id=\"{}\"", &target[1..])),
                "{target} is nowhere"
            );
        }
        let mut ids: Vec<&str> = page
            .split(" id=\"")
            .skip(1)
            .map(|t| &t[..t.find('"').expect("it ends")])
            .collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "an id is there twice");
        // What the policy allows is the script that is there.
        assert!(page.contains("default-src 'none'") && page.contains("script-src 'sha256-"));
    }
    assert!(
        html(place, "report.html").contains("&lt;script&gt;alert(1)&lt;&#x2f;script&gt;"),
        "the text is shown as it is"
    );
}

#[test]
fn the_audit_and_other_runs_are_on_the_page() {
    let place = Place::new();
    begin(&place, "run", &["finetune.steps=1"]);
    begin(
        &place,
        "run",
        &["finetune.steps=1", "finetune.epsilon=2", "name=\"tight\""],
    );
    let said = place
        .ok(&[
            "audit",
            "runs/tiny-quick",
            "--replay-seconds",
            "1",
            "--canaries",
            "2000",
        ])
        .stdout;
    assert!(said.contains("runs/tiny-quick/report.html (internal)"), "{said}");
    let page = html(&place, "report.html");
    let said = text(&page);
    for part in [
        "The claim stood",
        "What the attacks found",
        "(at the claim's delta, adjacency, unit and sampler; 95 % confidence",
        "`dpsynth release` does",
        "it is not the sum of the lines",
        "Dirac canaries, threshold",
        "Other runs",
        "tight-quick",
        "tiny-quick (this run)",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(!said.contains("Not audited"));

    // Findings of another claim are none of this one.
    let path = "runs/tiny-quick/internal/audit.json";
    let mut findings = place.json(path);
    findings["claim"]["epsilon"] = 0.5.into();
    place.write(path, findings.to_string());
    place.ok(&["report", "runs/tiny-quick"]);
    let said = text(&html(&place, "report.html"));
    assert!(
        said.contains("Not audited as it is now") && !said.contains("The claim stood"),
        "{said}"
    );

    // An attack on private records alone once made the page say that the claim does not hold.
    findings["claim"] = place.json("runs/tiny-quick/model/privacy.json");
    findings["verdict"] = "advice".into();
    findings["advice"] = serde_json::json!(["n-grams of the synthetic texts: epsilon is at least 9"]);
    place.write(path, findings.to_string());
    place.ok(&["report", "runs/tiny-quick"]);
    let said = text(&html(&place, "report.html"));
    assert!(
        said.contains("Read this first An attack found more than is claimed: n-grams of the synthetic texts: epsilon is at least 9")
            && said.contains("audit again before you publish")
            && !said.contains("DOES NOT HOLD"),
        "{said}"
    );
    let next = place.ok(&["status", "runs/tiny-quick"]).stdout;
    assert!(
        next.contains("advice") && next.contains("a second audit, before you publish"),
        "{next}"
    );
    findings["advice"] = serde_json::json!([]);

    // A claim that fell is said before all else, and a damaged neighbour hides nothing.
    findings["verdict"] = "fail".into();
    findings["refuted_by"] = serde_json::json!(["Dirac canaries: epsilon is at least 9"]);
    place.write(path, findings.to_string());
    place.write("runs/tight-quick/config.toml", "not = [ toml");
    place.ok(&["report", "runs/tiny-quick"]);
    let said = text(&html(&place, "report.html"));
    assert!(
        said.contains("Read this first THE CLAIM DOES NOT HOLD: Dirac canaries: epsilon is at least 9"),
        "{said}"
    );
    assert!(!said.contains("Other runs"));
}
