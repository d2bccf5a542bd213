//! The program as a person runs it: in a folder of its own, with a tiny dataset and the real language model.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The longest any command here may take, on a machine that does other things besides.
const PATIENCE: Duration = Duration::from_secs(180);

/// The file of the language model, which is fetched where it is not on this machine yet.
pub fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| fetch("smollm2-135m-instruct"))
}

/// Fetches an asset into the person's own cache, one test at a time; the path of its first file.
pub fn fetch(asset: &str) -> PathBuf {
    let turn = fs::File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("fetch.lock")).expect("a lock file");
    turn.lock().expect("the other tests let go of it");
    let output = Command::new(env!("CARGO_BIN_EXE_dpsynth"))
        .args(["fetch", asset])
        .output()
        .expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().nth(1).expect("a path").trim().into()
}

/// A folder with `train.csv` (200 records), `test.csv` (60) and `tiny.toml`; runs and ledgers are kept in it too.
pub struct Place {
    folder: tempfile::TempDir,
}

/// Seconds of work. Two waves of sampling at least, whatever the number of cores: the commands are told to use two.
const TINY: &str = r#"
[dataset]
train = "train.csv"
test = "test.csv"
labels = [{ column = "label", names = ["negative", "positive"] }]
public_size = 200
total_epsilon = 100.0

[prompt]
user = "Write a {{ label }} film review."

[prepare]
max_tokens = 16

[lexicon]
share = 0

[finetune]
epsilon = 4.0
expected_batch_size = 4
steps = 2
rank = 2

[finetune.objective]
contrast = 0.0

[sample]
records = 8
max_tokens = 8
batch_size = 2
guidance = 1.0

[sample.refine]
min_posterior = 0.0

[evaluate]
encoder = false
seeds = 2
all_real = "none"
size_curve = []
"#;

/// Of the run with the default name, as quickly as an audit goes.
pub const QUICK_AUDIT: [&str; 6] = [
    "audit",
    "runs/tiny-quick",
    "--canaries",
    "1000",
    "--replay-seconds",
    "1",
];

impl Place {
    pub fn new() -> Self {
        let place = Place {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        place.write("train.csv", records(200));
        place.write("test.csv", records(60));
        place.write("tiny.toml", TINY);
        place
    }

    /// The tiny model, so that a run takes seconds.
    pub fn with_tiny_model(self) -> Self {
        fs::copy(crate::support::fixture("model.gguf"), self.path("model.gguf")).expect("copies");
        let toml = self.text("tiny.toml") + "\n[model]\npath = \"model.gguf\"\n";
        self.write("tiny.toml", toml);
        self
    }

    /// Changes a part of `tiny.toml`.
    pub fn edit(&self, from: &str, to: &str) {
        let toml = self.text("tiny.toml");
        assert!(toml.contains(from), "{toml}");
        self.write("tiny.toml", toml.replace(from, to));
    }

    /// The ledger of a run by its folder's name.
    pub fn ledger_of(&self, run: &str) -> PathBuf {
        let prepared = self.json(&format!("runs/{run}/internal/prepare.json"));
        let dataset = prepared["dataset_hash"].as_str().expect("a hash");
        self.path(&format!("ledgers/{dataset}.jsonl"))
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// A file of the run with the default name.
    pub fn run(&self, file: &str) -> PathBuf {
        self.path("runs/tiny-quick").join(file)
    }

    pub fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(file), content).expect("writes");
    }

    pub fn text(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).expect("reads")
    }

    /// Whole lines of a file of the run; none where there is no file yet.
    pub fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.run(file)).unwrap_or_default();
        text.split_inclusive('\n')
            .filter(|l| l.ends_with('\n'))
            .map(|l| l.trim_end().to_string())
            .collect()
    }

    pub fn json(&self, file: &str) -> Value {
        serde_json::from_str(&self.text(file)).expect("JSON")
    }

    /// How many ledgers there are with a complete line.
    pub fn ledgers(&self) -> usize {
        let files = fs::read_dir(self.path("ledgers")).expect("a folder of ledgers");
        files
            .map(|e| e.expect("an entry").path())
            .filter(|f| f.extension().is_some_and(|e| e == "jsonl"))
            .filter(|f| fs::read(f).expect("reads").contains(&b'\n'))
            .count()
    }

    /// The only ledger there is.
    pub fn ledger(&self) -> PathBuf {
        let files = fs::read_dir(self.path("ledgers"))
            .expect("a folder of ledgers")
            .map(|e| e.expect("an entry").path());
        let ledgers: Vec<PathBuf> = files.filter(|f| f.extension().is_some_and(|e| e == "jsonl")).collect();
        assert_eq!(ledgers.len(), 1, "one dataset, one ledger: {ledgers:?}");
        ledgers[0].clone()
    }

    /// The ledger as `dpsynth ledger show` gives it, verified before.
    pub fn ledger_shown(&self) -> Value {
        let ledger = self.ledger();
        let ledger = ledger.to_str().expect("a plain path");
        assert!(
            self.ok(&["ledger", "verify", ledger])
                .stdout
                .trim_end()
                .ends_with("intact")
        );
        serde_json::from_str(&self.ok(&["ledger", "show", ledger, "--json"]).stdout).expect("one JSON object")
    }

    /// The program, at work in this folder; its standard input is no terminal, so that its width is not asked.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dpsynth"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("DPSYNTH_LEDGERS", self.path("ledgers"))
            .env("XDG_DATA_HOME", self.path("share"))
            .env("RAYON_NUM_THREADS", "2")
            .env_remove("DPSYNTH_DATA")
            .env_remove("COLUMNS")
            .env_remove("CLICOLOR_FORCE")
            .stdin(Stdio::null());
        command
    }

    pub fn call(&self, arguments: &[&str]) -> Said {
        Said::from(self.command(arguments).output().expect("starts"))
    }

    pub fn ok(&self, arguments: &[&str]) -> Said {
        let said = self.call(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}\n{said:?}");
        said
    }

    /// Rewrites stamp and ledger as if the run had come to the trained values that are there: what a forger of the whole
    /// chain can do, and what a test needs to put a known model in.
    pub fn charge_to_what_is_there(&self) {
        let trained = sha256(&fs::read(self.run("model/trained.safetensors")).expect("reads"));
        let mut stamp = self.json("runs/tiny-quick/internal/stamps/finetune.json");
        stamp["written"]["model/trained.safetensors"] = trained.as_str().into();
        self.write("runs/tiny-quick/internal/stamps/finetune.json", stamp.to_string());
        self.forge_ledger(|line| {
            if line["kind"] == "trained" {
                line["sha256"] = trained.as_str().into();
            }
            true
        });
    }

    /// Changes lines of the ledger, or drops those for which `change` says no, and makes its chain whole again.
    pub fn forge_ledger(&self, mut change: impl FnMut(&mut Value) -> bool) {
        let (path, mut previous, mut lines) = (self.ledger(), None, Vec::new());
        for line in fs::read_to_string(&path).expect("reads").lines() {
            let mut line: Value = serde_json::from_str(line).expect("JSON");
            if !change(&mut line) {
                continue;
            }
            line["seq"] = lines.len().into();
            if let Some(previous) = previous {
                line["prev"] = Value::String(previous);
            }
            let text = line.to_string();
            previous = Some(sha256(text.as_bytes()));
            lines.push(text);
        }
        fs::write(&path, lines.join("\n") + "\n").expect("writes");
        let head = serde_json::json!({ "seq": lines.len() - 1, "hash": previous });
        fs::write(path.with_extension("jsonl.head"), head.to_string()).expect("writes");
    }

    /// Audits the run with the default name, as quickly as an audit goes.
    pub fn audit(&self) -> Said {
        self.ok(&QUICK_AUDIT)
    }

    /// Starts the program on `tiny.toml`; what it says is kept for [`Running::end`].
    pub fn start(&self, stage: &str, more: &[&str]) -> Running {
        Running::of(&mut self.command(&[&[stage, "tiny.toml", "--profile", "quick"], more].concat()))
    }

    /// Runs a stage (or `run`) of `tiny.toml` with more arguments.
    pub fn stage(&self, stage: &str, more: &[&str]) -> Said {
        self.call(&[&[stage, "tiny.toml", "--profile", "quick"], more].concat())
    }

    /// The same, which must work.
    pub fn done(&self, stage: &str, more: &[&str]) -> Said {
        self.ok(&[&[stage, "tiny.toml", "--profile", "quick"], more].concat())
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Short made-up reviews with two labels, as CSV.
pub fn records(count: usize) -> String {
    let who = ["the cast", "the story", "the music", "the camera", "the director"];
    let good = [
        "is a delight",
        "moves and surprises",
        "could not be better",
        "is funny and warm",
    ];
    let bad = [
        "is a bore",
        "drags on and on",
        "could not be worse",
        "is loud and empty",
    ];
    let row = |i: usize| {
        let (label, what) = if i.is_multiple_of(2) {
            ("positive", good)
        } else {
            ("negative", bad)
        };
        format!("{} of film {i} {},{label}\n", who[i % 5], what[i / 2 % 4])
    };
    let rows: String = (0..count).map(row).collect();
    format!("text,label\n{rows}")
}

/// 200 records of 50 viewers, four each, in the column `who`; one in `every` is negative.
pub fn records_by_viewer(every: usize) -> String {
    let row = |i: usize| {
        let label = if i.is_multiple_of(every) {
            "negative"
        } else {
            "positive"
        };
        format!("film {i} was what it was,{label},viewer {}\n", i / 4)
    };
    let rows: String = (0..200).map(row).collect();
    format!("text,label,who\n{rows}")
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    /// None where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let said = Said {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        };
        assert!(!said.stderr.contains("panicked"), "{said:?}");
        assert!(
            !said.stdout.contains('\x1b') && !said.stderr.contains('\x1b'),
            "no colours in a pipe: {said:?}"
        );
        said
    }
}

impl Said {
    /// It was refused with this exit code, a hint, and all of `parts` in the message; standard output stayed empty.
    #[track_caller]
    pub fn refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "standard output is for results: {self:?}");
        for part in parts.iter().chain(&["error: ", "hint: "]) {
            assert!(self.stderr.contains(part), "no {part:?} in {}", self.stderr);
        }
    }
}

/// A command at work. Killed when dropped.
pub struct Running(Option<Child>);

impl Running {
    /// Starts `command`; what it says is kept for the end.
    pub fn of(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(Some(command.spawn().expect("starts")))
    }

    /// Waits until `so`; the command must still be at work then.
    #[track_caller]
    pub fn until(&mut self, what: &str, so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !so() {
            let child = self.0.as_mut().expect("not ended yet");
            if child.try_wait().expect("asks").is_some() {
                panic!("ended before {what}: {:?}", self.take());
            }
            assert!(begun.elapsed() < PATIENCE, "waited too long for {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends SIGKILL: no code of the program runs after this.
    #[track_caller]
    pub fn kill(mut self) {
        self.0.as_mut().expect("not ended yet").kill().expect("kills");
        assert_eq!(self.take().code, None, "it ended by itself before it was killed");
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        let child = self.0.as_mut().expect("not taken yet");
        child.try_wait().expect("asks").is_some()
    }

    /// Sends SIGKILL; what it said where it had ended by itself.
    pub fn kill_or_end(&mut self) -> Option<Said> {
        self.0.as_mut().expect("not ended yet").kill().expect("kills");
        let said = self.take();
        said.code.is_some().then(|| {
            assert_eq!(said.code, Some(0), "{said:?}");
            said
        })
    }

    /// Sends SIGINT, as Ctrl-C does, and waits for the end.
    pub fn interrupt(mut self) -> Said {
        let id = self.0.as_ref().expect("not ended yet").id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &id])
                .status()
                .expect("starts")
                .success()
        );
        self.take()
    }

    fn take(&mut self) -> Said {
        Said::from(self.0.take().expect("not ended yet").wait_with_output().expect("ends"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // Already ended, or ended now: either way nothing is left behind.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
