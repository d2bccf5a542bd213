//! The first mistakes that a person makes, and the second try: nothing is spent, nothing is frozen, nothing is said in vain.
#![cfg(unix)]

use crate::{common, support};
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Place, Said};
use arrow::array::{Array, AsArray};
use dpsynth::assets::Locations;
use dpsynth::run::ledgers::Opened;
use dpsynth::run::{Places, Preparation, RunFolder, privacy_plan, run_in};

impl Place {
    fn prepare(&self, more: &[&str]) -> Said {
        self.stage("prepare", more)
    }
}

fn tiny() -> Place {
    Place::new().with_tiny_model()
}

/// A typo once froze the folder: the corrected configuration was refused as another run's.
#[test]
fn a_mistake_in_the_configuration_can_be_corrected_under_the_same_name() {
    let place = tiny();
    place.edit("column = \"label\"", "column = \"lable\"");
    place.edit("{{ label }}", "{{ lable }}");
    place
        .prepare(&[])
        .refused(3, &["no column `lable`", "did you mean `label`?"]);
    place.edit("column = \"lable\"", "column = \"label\"");
    place.edit("{{ lable }}", "{{ label }}");
    place.done("prepare", &[]);
    // Until training begins, a folder holds nothing that another configuration could spoil.
    place.done("prepare", &["--set", "prepare.max_tokens=12"]);
    // A run that was refused for its budget was not begun either.
    place.done("run", &["--set", "name=first"]);
    let over = ["--set", "finetune.epsilon=100", "--set", "prepare.max_tokens=12"];
    place.stage("run", &over).refused(4, &["epsilon"]);
    place.done("run", &["--set", "prepare.max_tokens=16"]);
    place
        .prepare(&["--set", "prepare.max_tokens=12"])
        .refused(2, &["another configuration", "[prepare]"]);
}

/// A label column called `id` was refused when all was paid for and drawn.
#[test]
fn p8_what_can_be_refused_is_refused_before_anything_is_charged() {
    let refused: [(&str, &str, &str); 9] = [
        ("column = \"label\"", "column = \"id\"", "`id`"),
        ("column = \"label\"", "column = \"label\", as = \"ID\"", "`id`"),
        ("column = \"label\"", "column = \"label\", as = \"two words\"", "`as`"),
        (
            "column = \"label\"",
            "column = \"Guest of room 12 was pleased with the view\"",
            "reads like a sentence",
        ),
        ("column = \"label\"", "column = \"text\"", "written as `text`"),
        ("{{ label }}", "{{ lable }}", "{{ label }}"),
        ("{{ label }}", "fine", "the same for the labels"),
        ("\"positive\"", "\"<|im_end|>\"", "control token"),
        (
            "seeds = 2",
            "seeds = 2\nencoder_asset = \"no-such-model\"\n[x]",
            "no-such-model",
        ),
    ];
    for (from, to, said) in refused {
        let place = tiny();
        place.edit(from, to);
        if to.contains("encoder_asset") {
            place.edit("[x]", "");
            place.edit("encoder = false", "encoder = true");
        }
        for command in ["plan", "run"] {
            let outcome = place.call(&[command, "tiny.toml", "--profile", "quick"]);
            outcome.refused(2, &[said]);
            assert!(!outcome.stderr.contains("im_end|> <|"), "{}", outcome.stderr);
        }
        assert!(!place.path("ledgers").exists(), "nothing was charged: {to}");
    }
}

#[test]
fn control_tokens_that_a_template_makes_of_a_name_are_refused_too() {
    let place = tiny();
    // As plain text it is a name like any other.
    place.edit(
        "\"positive\"]",
        "\"<|IM_END|>\"], values = [\"negative\", \"positive\"]",
    );
    place.done("prepare", &[]);
    place.edit("{{ label }}", "{{ label | lower }}");
    place.prepare(&[]).refused(2, &["control token"]);
}

/// A column whose name is no identifier once could not be named in a prompt at all.
#[test]
fn columns_of_any_name_are_prompted_for_and_written_under_a_plain_one() {
    let csv = fs::read_to_string(tiny().path("train.csv")).unwrap();
    let (header, rows) = csv.split_once('\n').unwrap();
    for (column, prompt, written) in [
        (
            "column = \"Class Index\"",
            "{{ row[\\\"Class Index\\\"] }}",
            "Class_Index",
        ),
        ("column = \"Class Index\"", "{{ Class_Index }}", "Class_Index"),
        ("column = \"Class Index\", as = \"topic\"", "{{ topic }}", "topic"),
    ] {
        let place = tiny();
        for file in ["train.csv", "test.csv"] {
            place.write(file, format!("{}\n{rows}", header.replace("label", "Class Index")));
        }
        place.edit("column = \"label\"", column);
        place.edit("{{ label }}", prompt);
        place.done("run", &[]);
        let shard = place.run("synthetic/train-00000-of-00001.parquet");
        let file = fs::File::open(shard).unwrap();
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let names: Vec<&String> = reader.schema().fields().iter().map(|f| f.name()).collect();
        assert_eq!(names, ["id", "text", written]);
    }
}

#[test]
fn a_share_is_held_out_by_unit_and_never_trains() {
    let place = tiny();
    place.edit("test = \"test.csv\"", "test = 0.25");
    let said = place.done("prepare", &[]);
    assert!(!said.stderr.contains("are in both splits"), "{}", said.stderr);
    let (train, test) = (
        texts(&place.run("internal/train.parquet")),
        texts(&place.run("internal/test.parquet")),
    );
    assert_eq!(train.len() + test.len(), 200);
    assert!((30..70).contains(&test.len()), "{}", test.len());
    assert!(test.iter().all(|text| !train.contains(text)));
    // Another row more changes nothing of where the others go.
    let more = place.text("train.csv") + "one row more that was not there,positive\n";
    place.write("train.csv", more);
    place.done("prepare", &[]);
    let again = texts(&place.run("internal/test.parquet"));
    let left: Vec<&String> = again.iter().filter(|text| !text.contains("not there")).collect();
    assert_eq!(left, test.iter().collect::<Vec<_>>());
    for share in ["0.0", "1.0", "7"] {
        place
            .prepare(&["--set", &format!("dataset.test={share}")])
            .refused(2, &["between 0 and 1"]);
    }
}

fn texts(path: &Path) -> Vec<String> {
    let file = fs::File::open(path).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let batches = reader.build().unwrap().map(|batch| batch.unwrap());
    batches
        .flat_map(|batch| {
            let texts = batch.column_by_name("text").unwrap().as_string::<i32>().clone();
            (0..texts.len()).map(|i| texts.value(i).to_string()).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn held_out_records_that_say_little_are_pointed_out() {
    let place = tiny();
    let only: String = place
        .text("test.csv")
        .lines()
        .filter(|l| !l.ends_with("negative"))
        .map(|l| format!("{l}\n"))
        .collect();
    place.write("test.csv", only);
    let said = place.done("prepare", &[]);
    assert!(
        said.stderr.contains("test.csv: the declared label `negative`"),
        "{}",
        said.stderr
    );
    place.edit("test = \"test.csv\"", "test = \"train.csv\"");
    let said = place.done("prepare", &[]);
    assert!(said.stderr.contains("are in both splits"), "{}", said.stderr);
}

#[test]
fn shards_are_read_as_one_and_a_single_one_of_several_is_pointed_out() {
    let place = tiny();
    let csv = place.text("train.csv");
    let (header, rows) = csv.split_once('\n').unwrap();
    let (first, second) = rows.split_at(rows[..rows.len() / 2].rfind('\n').unwrap() + 1);
    fs::create_dir(place.path("shards")).unwrap();
    place.write("shards/train-00000-of-00002.csv", format!("{header}\n{first}"));
    place.write("shards/train-00001-of-00002.csv", format!("{header}\n{second}"));
    let count = |train: &str| {
        let place_toml = place.text("tiny.toml");
        place.edit("train = \"train.csv\"", &format!("train = {train}"));
        let said = place.done("prepare", &[]);
        place.write("tiny.toml", place_toml);
        (
            texts(&place.run("internal/train.parquet")).len(),
            said.stderr.contains("1 of the 2 shards"),
        )
    };
    assert_eq!(count("\"shards/train-*.csv\""), (200, false));
    assert_eq!(count("\"shards\""), (200, false));
    assert_eq!(
        count("[\"shards/train-00000-of-00002.csv\", \"shards/train-00001-of-00002.csv\"]"),
        (200, false)
    );
    let (one, told) = count("\"shards/train-00000-of-00002.csv\"");
    assert!(told && one < 200, "{one}");
}

/// A folder whose files were moved away once took the paid run's records with it.
#[test]
fn p7_a_paid_run_outlives_its_files_and_new_ones() {
    let place = tiny();
    fs::create_dir(place.path("shards")).unwrap();
    fs::copy(place.path("train.csv"), place.path("shards/train-0.csv")).unwrap();
    place.edit("train = \"train.csv\"", "train = \"shards/train-*.csv\"");
    place.done("run", &[]);
    let kept = fs::read(place.run("internal/train.parquet")).unwrap();
    // A shard more is another dataset, and what was trained on stays what it was.
    fs::copy(place.path("test.csv"), place.path("shards/train-1.csv")).unwrap();
    place.stage("run", &[]).refused(2, &["was trained on other records"]);
    assert_eq!(fs::read(place.run("internal/train.parquet")).unwrap(), kept);
    fs::remove_file(place.path("shards/train-1.csv")).unwrap();
    fs::rename(place.path("shards"), place.path("elsewhere")).unwrap();
    place.ok(&["sample", "runs/tiny-quick"]);
    place.ok(&["run", "runs/tiny-quick"]);
    assert_eq!(fs::read(place.run("internal/train.parquet")).unwrap(), kept);
}

/// A run that was killed before its first checkpoint was thrown away when a file was added, and begun anew in another ledger.
#[test]
fn p7_p8_a_run_that_was_charged_is_not_begun_anew_on_other_records() {
    let place = tiny();
    fs::create_dir(place.path("shards")).unwrap();
    fs::copy(place.path("train.csv"), place.path("shards/train-0.csv")).unwrap();
    place.edit("train = \"train.csv\"", "train = \"shards/train-*.csv\"");
    place.edit("steps = 2", "steps = 5000\ncheckpoint_every = 5000");
    place.done("prepare", &[]);
    let mut run = place.start("finetune", &[]);
    run.until("a step is charged", || {
        place.path("ledgers").is_dir() && {
            let ledgers = fs::read_dir(place.path("ledgers")).unwrap().map(|f| f.unwrap().path());
            ledgers
                .into_iter()
                .any(|f| fs::read_to_string(f).unwrap_or_default().contains("\"kind\":\"use\""))
        }
    });
    run.kill();
    let name = fs::read(place.run("internal/run-id")).unwrap();
    fs::copy(place.path("test.csv"), place.path("shards/train-1.csv")).unwrap();
    place
        .stage("run", &[])
        .refused(2, &["was trained on other records", "another name"]);
    assert_eq!(fs::read(place.run("internal/run-id")).unwrap(), name);
    assert_eq!(place.ledgers(), 1, "no second ledger");
}

#[test]
fn a_relative_path_is_looked_for_beside_the_configuration_and_every_place_is_named() {
    let place = tiny();
    fs::create_dir_all(place.path("project/data")).unwrap();
    for file in ["tiny.toml", "model.gguf"] {
        fs::rename(place.path(file), place.path(&format!("project/{file}"))).unwrap();
    }
    for file in ["train.csv", "test.csv"] {
        fs::rename(place.path(file), place.path(&format!("project/data/{file}"))).unwrap();
    }
    place.ok(&["prepare", "project/tiny.toml", "--profile", "quick"]);
    fs::remove_file(place.path("project/data/train.csv")).unwrap();
    let said = place.call(&[
        "prepare",
        "project/tiny.toml",
        "--profile",
        "quick",
        "--set",
        "name=gone",
    ]);
    let folder = place.path("");
    let folder = folder.to_str().unwrap().trim_end_matches('/');
    let places: Vec<String> = ["", "/project", "/project/data", "/data"]
        .map(|sub| format!("{folder}{sub}"))
        .into();
    said.refused(3, &["there is no file"]);
    for place in places {
        assert!(said.stderr.contains(&place), "{place} is not in {}", said.stderr);
    }
}

/// Without HOME the ledger once moved beside the runs, and the budget began a second time.
#[test]
fn p8_the_ledger_is_found_without_a_home_variable_or_nothing_is_trained() {
    let place = tiny();
    let command = |home: Option<&str>| {
        let mut command = place.command(&["run", "tiny.toml", "--profile", "quick"]);
        command
            .env_remove("DPSYNTH_LEDGERS")
            .env_remove("XDG_DATA_HOME")
            .env_remove("HOME");
        command.envs(home.map(|home| ("HOME", home)));
        command
    };
    let home = place.path("home");
    let output = command(home.to_str()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(home.join(".local/share/dpsynth/ledgers").is_dir());
    assert!(!place.path("runs/ledgers").exists(), "no ledger beside the runs");
    // One that an earlier version of the program left there is not passed over.
    fs::create_dir(place.path("runs/ledgers")).unwrap();
    let files: Vec<_> = (fs::read_dir(home.join(".local/share/dpsynth/ledgers")).unwrap())
        .map(|file| file.unwrap())
        .collect();
    for file in files {
        fs::rename(file.path(), place.path("runs/ledgers").join(file.file_name())).unwrap();
    }
    let output = command(home.to_str()).args(["--set", "name=again"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("runs/ledgers") && said.contains("DPSYNTH_LEDGERS"),
        "{said}"
    );
}

/// Another HOME has another folder of ledgers, in which nothing was spent on the same records.
/// Whoever puts another state, another model or other counts into an interrupted run is found: the ledger names its own.
#[test]
fn p7_a_run_goes_on_from_its_own_states_alone() {
    let place = Place::new();
    let model = format!("model.path={}", support::fixture("model.gguf").display());
    let counted = ["--set", &model, "--set", "finetune.label_histogram_epsilon=0.5"];
    place.done("prepare", &counted);
    place.done("finetune", &counted);
    let trained = fs::read(place.run("model/trained.safetensors")).unwrap();
    let checkpoint = fs::read(place.run("internal/checkpoint.safetensors")).unwrap();
    let counts = fs::read(place.run("model/label_counts.json")).unwrap();
    let stamp = "runs/tiny-quick/internal/stamps/finetune.json";
    // As it was before the ledger knew what was trained.
    let interrupted = || {
        place.forge_ledger(|line| line["kind"] != "end" && line["kind"] != "trained");
        place.write(stamp, place.text(stamp).replace("\"done\":true", "\"done\":false"));
        fs::write(place.run("internal/checkpoint.safetensors"), &checkpoint).unwrap();
        fs::write(place.run("model/label_counts.json"), &counts).unwrap();
    };
    // Another model, before the run's own was noted.
    interrupted();
    let mut foreign = trained.clone();
    *foreign.last_mut().unwrap() ^= 1;
    fs::write(place.run("model/trained.safetensors"), &foreign).unwrap();
    place.done("finetune", &counted);
    assert!(
        fs::read(place.run("model/trained.safetensors")).unwrap() == trained,
        "made again from the run's own state"
    );
    // Another state.
    interrupted();
    fs::remove_file(place.run("model/trained.safetensors")).unwrap();
    let mut state = checkpoint.clone();
    *state.last_mut().unwrap() ^= 1;
    fs::write(place.run("internal/checkpoint.safetensors"), state).unwrap();
    place
        .stage("finetune", &counted)
        .refused(3, &["is no state that the ledger knows"]);
    // Other counts.
    interrupted();
    fs::write(place.run("model/label_counts.json"), "[7,1]").unwrap();
    place
        .stage("finetune", &counted)
        .refused(3, &["is not what was counted and paid for"]);
    interrupted();
    place.done("finetune", &counted);
    assert!(fs::read(place.run("model/trained.safetensors")).unwrap() == trained);
}

/// A row more, another column or a fold of the same people's records is another file and the same population.
#[test]
fn p8_all_datasets_of_a_population_share_a_ledger() {
    let place = tiny();
    let population = "dataset.population=\"acme-reviews\"";
    let run = |name: &str, more: &[&str]| {
        let named = format!("name={name}");
        let more = more.iter().flat_map(|set| ["--set", set]);
        let all: Vec<&str> = ["run", "tiny.toml", "--profile", "quick", "--set", &named]
            .into_iter()
            .chain(more)
            .collect();
        place.call(&all)
    };
    assert_eq!(run("a", &[population]).code, Some(0));
    // One record more: as a dataset of its own it would begin a second budget.
    let more = place.text("train.csv") + "one more film,positive\n";
    place.write("train.csv", more);
    assert_eq!(run("b", &[population]).code, Some(0));
    let ledger = place.path("ledgers/population-acme-reviews.jsonl");
    let view = dpsynth::privacy::verify(&ledger).expect("a ledger");
    assert_eq!(view.runs.len(), 2, "{view:?}");
    assert_eq!(place.ledgers(), 1);
    // Left out, or called another, they would begin one, too.
    run("c", &[]).refused(
        2,
        &[
            "the ledger of the population `acme-reviews`",
            "dataset.population = \"acme-reviews\"",
        ],
    );
    run("d", &["dataset.population=\"others\""]).refused(2, &["the ledger of the population `acme-reviews`"]);
    run("e", &["dataset.population=\"../up\""]).refused(2, &["`dataset.population` cannot be"]);
    // And what has spent under its own name cannot join.
    let others = place.text("train.csv").replace("film", "book");
    place.write("train.csv", others);
    assert_eq!(run("f", &[]).code, Some(0));
    run("g", &[population]).refused(2, &["have spent under their own name"]);
}

/// One row more, a fold or another text column is another file, and the same people: each once began a budget of its own.
#[test]
fn p8_a_dataset_that_shares_rows_began_a_second_budget() {
    let place = tiny();
    let run = |name: &str, more: &[&str]| {
        let named = format!("name={name}");
        let all: Vec<&str> = ["run", "tiny.toml", "--profile", "quick", "--set", &named]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        place.call(&all)
    };
    let views = || {
        let mut all: Vec<_> = fs::read_dir(place.path("ledgers"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
            .map(|path| dpsynth::privacy::verify(&path).unwrap())
            .collect();
        all.sort_by_key(|view| view.runs.len());
        all
    };
    place.edit("total_epsilon = 100.0", "total_epsilon = 6.0");
    assert_eq!(run("a", &[]).code, Some(0));
    let whole = place.text("train.csv");

    // An unlabelled row more.
    place.write("train.csv", whole.clone() + "a row that nobody has labelled,\n");
    run("b", &[]).refused(4, &["this run is charged to both", "budget is epsilon 6"]);
    assert!(views().iter().all(|view| view.runs.len() <= 1), "{:?}", views());
    // A fold of it, in capitals, with room in its budget.
    let fold: Vec<String> = (whole.lines().enumerate())
        .map(|(i, line)| match line.rsplit_once(',') {
            Some((text, label)) if i > 0 => format!(" {} ,{label}", text.to_uppercase()),
            _ => line.to_string(),
        })
        .collect();
    place.write("train.csv", fold[..fold.len() / 2].join("\n") + "\n");
    run("c", &[]).refused(4, &["this run is charged to both", "budget is epsilon 6"]);
    let small = ["--set", "finetune.epsilon=0.2"];
    let said = run("d", &small);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("this run is charged to both"), "{said:?}");
    let charged: Vec<usize> = views()
        .iter()
        .map(|view| view.runs.len())
        .filter(|runs| *runs > 0)
        .collect();
    assert_eq!(charged, [2, 2], "its own, and that of the whole: each knows both runs");
    let (own, other) = (
        dpsynth::privacy::verify(&place.ledger_of("d-quick")).unwrap(),
        dpsynth::privacy::verify(&place.ledger_of("a-quick")).unwrap(),
    );
    for (here, there) in [(&own, &other), (&other, &own)] {
        let native = here.runs.iter().find(|run| run.from.is_none()).unwrap();
        let copy = there.runs.iter().find(|run| run.run == native.run).unwrap();
        assert_eq!(copy.from.as_ref(), Some(&here.dataset));
        assert_eq!(copy.charged_steps(), native.charged_steps());
    }
    assert_eq!(own.counted().unwrap().epsilon, other.counted().unwrap().epsilon);
    // Declared to share nobody: a budget of its own, on record.
    let told = run("e", &["--disjoint"]);
    assert_eq!(told.code, Some(4), "the fold has spent already: {told:?}");
    assert!(!told.stderr.contains("whose dataset shares records"), "{told:?}");
    place.write("train.csv", fold[..fold.len() / 3].join("\n") + "\n");
    let told = run("f", &["--disjoint"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert_eq!(
        views()
            .iter()
            .filter(|view| view.runs.iter().any(|run| run.disjoint))
            .count(),
        1
    );
    // The other's ledger knows, so that no bundle of it says that all was counted.
    let apart = views().into_iter().filter(|view| !view.apart.is_empty()).count();
    assert!(apart >= 1, "{:?}", views());
    let shown = place.ok(&["ledger", "show", place.ledger_of("f-quick").to_str().unwrap()]);
    assert!(shown.stdout.contains("declared to share nobody"), "{shown:?}");
    place.ok(&["audit", "runs/f-quick", "--replay-seconds", "1", "--canaries", "1000"]);
    place.ok(&["release", "runs/f-quick", "--to", "bundle"]);
    let claim = place.json("bundle/privacy.json");
    let composition = &claim["guarantee"]["composition"];
    assert_eq!(
        (&composition["declared_disjoint"], &composition["declared_apart"]),
        (&true.into(), &false.into())
    );
    let (own, apart) = (
        "The owner declared that nobody in the private dataset is in another",
        "Another dataset was declared to share nobody with the private one",
    );
    let card = place.text("bundle/README.md");
    assert!(card.contains(own) && !card.contains(apart), "{card}");
    // The bundle of the other said that its own owner had declared it.
    place.write("train.csv", whole);
    place.ok(&["audit", "runs/a-quick", "--replay-seconds", "1", "--canaries", "1000"]);
    place.ok(&["release", "runs/a-quick", "--to", "other"]);
    let claim = place.json("other/privacy.json");
    let composition = &claim["guarantee"]["composition"];
    assert_eq!(
        (&composition["declared_disjoint"], &composition["declared_apart"]),
        (&false.into(), &true.into())
    );
    let card = place.text("other/README.md");
    assert!(card.contains(apart) && !card.contains(own), "{card}");
    place.ok(&["verify", "other"]);
}

/// `--disjoint` was named as the way out where a ledger protects another unit, and was refused for just that.
#[test]
fn p8_disjoint_was_refused_where_the_other_ledger_protects_another_unit() {
    let place = tiny();
    place.write("train.csv", common::records_by_viewer(2));
    place.done("run", &["--set", "name=a"]);
    place.write(
        "train.csv",
        common::records_by_viewer(2) + "one more film,positive,somebody else\n",
    );
    let unit = [
        "--set",
        "dataset.unit={ column = \"who\", max_records = 2 }",
        "--set",
        "dataset.public_size=50",
    ];
    let run = |more: &[&str]| {
        let begun = ["run", "tiny.toml", "--profile", "quick", "--set", "name=b"];
        place.call(&[&begun[..], &unit, more].concat())
    };
    run(&[]).refused(
        2,
        &[
            "protects the unit record",
            "only where the two share nobody, `--disjoint`",
        ],
    );
    let said = run(&["--disjoint"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let other = dpsynth::privacy::verify(&place.ledger_of("a-quick")).expect("a ledger");
    let own = dpsynth::privacy::verify(&place.ledger_of("b-quick")).expect("a ledger");
    assert_eq!(
        (other.unit.as_str(), own.unit.as_str()),
        ("record", "who (at most 2 records of each)")
    );
    assert_eq!(other.apart, [own.dataset]);
}

/// The ledger said that rows are known before they were: a run that was stopped in between kept every dataset of the folder
/// from beginning.
#[test]
fn p8_a_run_stopped_before_its_rows_were_in_place_blocked_every_dataset() {
    let place = tiny();
    place.edit("total_epsilon = 100.0", "total_epsilon = 6.0");
    place.done("prepare", &["--set", "name=a"]);
    let (config, profile, runs) = run_in(&place.path("runs/a-quick")).expect("a run");
    let folder = RunFolder::open(&runs, &config, profile).expect("opens");
    let places = Places {
        runs,
        ledgers: place.path("ledgers"),
        assets: Locations::from_env(),
    };
    let (preparation, plan) = (Preparation::read(&folder).unwrap(), privacy_plan(&config).unwrap());
    let opened = Opened::open(&places, &folder, &config, &preparation, &plan).expect("opens");
    let (ledger, belonging) = opened.take();
    let (rows, staged) = (
        ledger.path().with_extension("rows"),
        ledger.path().with_extension("rows.new"),
    );
    assert!(!rows.exists());
    let on_disk = fs::read(&staged).expect("on disk before the ledger's line");
    drop(plan.begin(ledger, "a", 200).expect("fits"));
    // What a kill leaves: nobody puts the rows in place, and nobody deletes them.
    drop((belonging, folder));
    assert!(!staged.exists(), "a run that goes no further takes them with it");
    fs::write(&staged, on_disk).expect("writes");

    let whole = place.text("train.csv");
    place.write("train.csv", whole.replace("film", "book"));
    place.done("run", &["--set", "name=others"]);
    assert!(rows.exists() && !staged.exists(), "found, and put in place");
    place.write("train.csv", whole + "one more film,positive\n");
    place
        .call(&[
            "run",
            "tiny.toml",
            "--profile",
            "quick",
            "--set",
            "name=more",
            "--set",
            "finetune.epsilon=6",
        ])
        .refused(4, &["this run is charged to both", "budget is epsilon 6"]);
    let left = fs::read_dir(place.path("ledgers"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let left: Vec<PathBuf> = left
        .filter(|path| path.extension().is_some_and(|ending| ending == "new"))
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "who is refused leaves nothing");
}

/// Each of these once began a second budget without a word.
#[test]
fn p8_what_datasets_share_cannot_be_forgotten_unnoticed() {
    let place = tiny();
    place.edit("total_epsilon = 100.0", "total_epsilon = 6.0");
    place.done("run", &["--set", "name=a"]);
    place.write("train.csv", place.text("train.csv") + "one more film,positive\n");
    let run = || place.call(&["run", "tiny.toml", "--profile", "quick", "--set", "name=b"]);
    let ledgers = place.path("ledgers");
    let find = |ending: &str| -> PathBuf {
        let mut all = fs::read_dir(&ledgers).unwrap().map(|entry| entry.unwrap().path());
        all.find(|path| path.to_string_lossy().ends_with(ending)).unwrap()
    };
    run().refused(4, &["budget is epsilon 6"]);
    let (key, rows, ledger) = (find("/key"), find(".rows"), find(".jsonl"));
    let lost = |file: &PathBuf, said: &str| {
        let whole = fs::read(file).unwrap();
        fs::remove_file(file).unwrap();
        run().refused(3, &[said]);
        fs::write(file, whole).unwrap();
        run().refused(4, &["budget is epsilon 6"]);
    };
    lost(&key, "key is missing");
    lost(&rows, "rows is missing");
    lost(&ledger, "what it has spent is not known");
    let changed = |file: &PathBuf, bytes: &[u8], said: &str| {
        let whole = fs::read(file).unwrap();
        fs::write(file, bytes).unwrap();
        run().refused(3, &[said]);
        fs::write(file, whole).unwrap();
    };
    changed(&rows, &[], "damaged");
    changed(&rows, &fs::read(&rows).unwrap()[..56], "damaged");
    changed(&key, &[7; 32], "made with another key");
    changed(&key, &[7; 5], "no key of 32 bytes");
    // A letter that nobody sees, and a full stop, make no other text.
    let whole = place.text("train.csv");
    place.write(
        "train.csv",
        whole
            .replace(",positive", "\u{200b}.,positive")
            .replace(",negative", "!,negative"),
    );
    run().refused(4, &["budget is epsilon 6"]);
}

#[test]
fn p8_a_key_of_ledgers_is_its_owners_alone() {
    let place = tiny();
    place.done("run", &[]);
    let rows: Vec<_> = fs::read_dir(place.path("ledgers"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let find = |ending: &str| {
        rows.iter()
            .find(|path| path.to_string_lossy().ends_with(ending))
            .unwrap()
    };
    #[cfg(unix)]
    for path in [find("/key"), find(".rows")] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(
            fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            path.display()
        );
    }
    // Without the key nobody can look for a text in them.
    let hashes = fs::read(find(".rows")).unwrap();
    let rows = fs::read(place.run("internal/rows")).unwrap();
    let (hashes, rows) = (&hashes[40..], &rows[40..]);
    assert_eq!((hashes.len() % 16, rows.len() % 32), (0, 0));
    let plain = |hash: &[u8]| hashes.chunks(16).any(|known| known == &hash[..16]);
    assert!(rows.chunks(32).all(|hash| !plain(hash)));
}

#[test]
fn p8_runs_on_the_same_records_are_not_paid_from_two_ledgers() {
    let place = tiny();
    let run = |home: &str, name: &str, more: &[&str]| {
        let mut command = place.command(&["run", "tiny.toml", "--profile", "quick", "--set", name]);
        command
            .args(more)
            .env_remove("DPSYNTH_LEDGERS")
            .env_remove("XDG_DATA_HOME");
        let output = command.env("HOME", place.path(home)).output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(run("one", "name=a", &[]).0, Some(0));
    let (code, said) = run("two", "name=b", &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("a-quick was trained on the same records") && said.contains("DPSYNTH_LEDGERS"),
        "{said}"
    );
    assert!(
        !place.path("two/.local/share/dpsynth/ledgers").exists(),
        "no second ledger"
    );
    assert_eq!(run("one", "name=b", &[]).0, Some(0));
    // The same file read otherwise is another dataset to the ledger, and is charged to both.
    let (code, said) = run("one", "name=d", &["--set", "dataset.quote=false"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("charged to both"), "the texts are the same: {said}");
    for file in ["train.csv", "test.csv"] {
        let rows: Vec<String> = place
            .text(file)
            .lines()
            .skip(1)
            .map(|row| format!("{row},again {row}"))
            .collect();
        place.write(file, format!("text,label,body,rest\n{}\n", rows.join("\n")));
    }
    assert_eq!(run("one", "name=e", &[]).0, Some(0));
    // Another unit is the same dataset: its ledger would refuse it, were it found.
    let unit = ["--set", "dataset.unit={ column = \"rest\", max_records = 4 }"];
    let (code, said) = run("two", "name=g", &unit);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("was trained on the same records"), "{said}");
    let (code, said) = run("one", "name=f", &["--set", "dataset.text=body"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("this run is charged to both"), "{said}");
    // Other records have a ledger of their own anywhere.
    assert_eq!(run("two", "name=c", &["--set", "dataset.train=test.csv"]).0, Some(0));
}

#[test]
fn labels_that_will_get_no_record_are_told_by_the_plan() {
    let place = tiny();
    place.edit("records = 8", "records = 1");
    let said = place.ok(&["plan", "tiny.toml", "--profile", "quick"]);
    assert!(
        said.stderr.contains("sample.records = 1 is too few for 2 labels"),
        "{}",
        said.stderr
    );
}

#[test]
fn each_stage_ends_with_what_to_look_at_and_what_comes_next() {
    let place = tiny();
    let said = place.done("prepare", &[]).stdout;
    assert!(said.contains("next: dpsynth finetune runs/tiny-quick"), "{said}");
    assert!(!said.contains("report.html"), "there is nothing to look at yet: {said}");
    let said = place.done("finetune", &[]).stdout;
    assert!(
        said.contains("next: dpsynth sample runs/tiny-quick") && said.contains("report.html"),
        "{said}"
    );
    let said = place.done("run", &[]).stdout;
    assert!(
        said.contains("synthetic records: ") && said.contains("next: dpsynth audit runs/tiny-quick"),
        "{said}"
    );
}

#[test]
fn a_file_is_inspected_and_a_configuration_made_that_runs() {
    let place = tiny();
    let said = place.ok(&["inspect", "train.csv"]).stdout;
    for part in [
        "internal",
        "CSV, cells separated by a comma",
        "rows       200",
        "label?     label: ",
        "[dataset]",
    ] {
        assert!(said.contains(part), "`{part}` is not in {said}");
    }
    let shown = place.json_of(&["inspect", "train.csv", "--json"]);
    assert_eq!(
        (&shown["rows"], &shown["classification"]),
        (&200.into(), &"internal".into())
    );
    let said = place.ok(&["init", "train.csv", "--label", "label", "--to", "mine.toml"]);
    assert!(said.stdout.contains("next: dpsynth plan mine.toml"), "{}", said.stdout);
    let toml = place.text("mine.toml");
    assert!(
        toml.contains("read private records") && toml.contains("public_size = 100\n"),
        "{toml}"
    );
    place.ok(&["plan", "mine.toml", "--set", "model.path=model.gguf"]);
    place.ok(&["prepare", "mine.toml", "--set", "model.path=model.gguf"]);
    place
        .call(&["init", "train.csv", "--to", "mine.toml"])
        .refused(2, &["is there already"]);
    place
        .call(&["init", "train.csv", "--label", "nothing"])
        .refused(2, &["no column `nothing`", "`label`"]);
    place
        .call(&["init", "train.csv", "--label", "text", "--text", "label"])
        .refused(2, &["different values"]);
    place.write(
        "bare.csv",
        "Guest of room 12 was pleased with the view.,good\nnoisy,bad\nfine,good\nslow,bad\n",
    );
    let said = place.ok(&["inspect", "bare.csv"]).stdout;
    assert!(said.contains("--no-header") && !said.contains("room 12"), "{said}");
    place.call(&["init", "bare.csv"]).refused(2, &["--no-header"]);
    place.write(
        "form.csv",
        "Class Index,What did you like about it?\ngood,all of it\nbad,nothing at all\ngood,the view from here\nbad,the noise\n",
    );
    place.call(&["init", "form.csv"]).refused(2, &["--label COLUMN"]);
    place.ok(&["init", "form.csv", "--label", "Class Index"]);
    let form = place.text("form.toml");
    assert!(
        form.contains("text = { column = \"What did you like about it?\", as = \"text\" }"),
        "{form}"
    );
    place.ok(&["plan", "form.toml", "--set", "model.path=model.gguf"]);
    place.ok(&["init", "bare.csv", "--no-header", "--label", "column_2"]);
    assert!(
        place.text("bare.toml").contains("header = false"),
        "{}",
        place.text("bare.toml")
    );
}

impl Place {
    fn json_of(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(arguments).stdout).expect("one JSON object")
    }
}
