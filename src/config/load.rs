//! From TOML text to a [`RunConfig`]: built-in profile, file, the file's own profile, overrides, in that order.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{Files, HeldOut, Judge, Method, Named, RunConfig};
use crate::tables::{Split, find, is_pattern};
use crate::{Error, Result};

/// How much work a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Minutes on two CPU cores.
    Quick,
    /// Hours on two CPU cores.
    Overnight,
    /// The whole dataset, for a GPU.
    Full,
}

impl Profile {
    /// All of them, from the least work to the most.
    pub const ALL: [Profile; 3] = [Profile::Quick, Profile::Overnight, Profile::Full];

    /// The name as written in TOML and in the run's folder.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Quick => "quick",
            Profile::Overnight => "overnight",
            Profile::Full => "full",
        }
    }

    fn built_in(self) -> &'static str {
        match self {
            Profile::Quick => include_str!("quick.toml"),
            Profile::Overnight => include_str!("overnight.toml"),
            Profile::Full => include_str!("full.toml"),
        }
    }
}

/// A run's own `config.toml`, whose text is given: every key resolved.
///
/// # Errors
/// Usage: it is not as this program writes it.
pub fn resolved(path: &Path, text: &str) -> Result<RunConfig> {
    toml::from_str(text).map_err(|e| {
        let e = e.message();
        Error::usage(format!("{} is not as this program writes it: {e}", path.display())).hint(
            "it was edited, or is of another version of the program; a new run has another name: --set name=another",
        )
    })
}

/// Reads `path` and resolves it for `profile` with the dotted `overrides` (`finetune.epsilon=3`).
///
/// Relative data paths are resolved here: as given, beside the TOML, in `data/` beside it, under `data_dir`; the first that
/// exists wins.
///
/// # Errors
/// A file that is no TOML, an unknown key (with the nearest known one as the hint), a value out of range.
pub fn load(path: &Path, profile: Profile, overrides: &[String], data_dir: &Path) -> Result<RunConfig> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Error::usage(format!("cannot read the configuration {}: {e}", path.display()))
            .hint("the pipelines that come with the program are in pipelines/")
    })?;
    let mut file: Table = text.parse().map_err(|e: toml::de::Error| {
        let before = e
            .span()
            .map_or(&[][..], |span| &text.as_bytes()[..span.start.min(text.len())]);
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        Error::usage(format!(
            "{} is not valid TOML in line {line}: {}",
            path.display(),
            e.message()
        ))
        .hint("texts stand in quotes, names of sections in brackets; pipelines/imdb.toml is an example")
    })?;
    let own_profiles = file.remove("profile");
    let mut asked = file;
    if let Some(own) = own_profiles {
        let mut own = expect_table(own, "profile")?;
        let chosen = own.remove(profile.name());
        Profile::ALL.iter().for_each(|other| drop(own.remove(other.name())));
        if let Some(unknown) = own.keys().next() {
            return Err(
                Error::usage(format!("unknown profile `{unknown}` in {}", path.display()))
                    .hint("the profiles are `quick`, `overnight` and `full`"),
            );
        }
        if let Some(chosen) = chosen {
            merge(&mut asked, expect_table(chosen, "profile.<name>")?);
        }
    }
    for o in overrides {
        apply(&mut asked, o)?;
    }
    let batch_is_given = names(&asked, "finetune", "expected_batch_size");
    let way_is_given = WAY_OF_TRAINING.iter().any(|key| names(&asked, "finetune", key));
    let mut merged: Table = profile.built_in().parse().expect("built-in profiles are valid TOML");
    // Else what the profile says would silently win over what was asked for.
    for (section, asked_for, instead) in [("finetune", "epochs", "steps"), ("sample", "records", "tokens")] {
        if names(&asked, section, asked_for)
            && !names(&asked, section, instead)
            && let Some(Value::Table(section)) = merged.get_mut(section)
        {
            section.remove(instead);
        }
    }
    merge(&mut merged, asked);
    if !merged.contains_key("name") {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        merged.insert("name".into(), Value::String(stem));
    }
    let mut config: RunConfig = Value::Table(merged)
        .try_into()
        .map_err(|e: toml::de::Error| explain(path, &e))?;
    if !batch_is_given {
        // A profile's batch is for datasets of thousands; of fewer records it takes half at most.
        let most = config.dataset.public_size.div_ceil(2).max(1);
        config.finetune.expected_batch_size = config.finetune.expected_batch_size.min(most);
    }
    if profile == Profile::Quick && !way_is_given && draws_many(&config) {
        config.finetune.method = Method::Bitfit;
        config.finetune.learning_rate = BITFIT_RATE;
    }
    resolve_paths(&mut config, path.parent().unwrap_or(Path::new(".")), data_dir);
    config.check()?;
    Ok(config)
}

/// Settings of `finetune` that go with a set of trained values: who gives one of them gets no other set than LoRA's by itself.
const WAY_OF_TRAINING: [&str; 7] = [
    "method",
    "rank",
    "alpha",
    "learning_rate",
    "optimizer",
    "update",
    "precision",
];

/// Step size for gains and biases: there are few, and they are moved further.
const BITFIT_RATE: f64 = 1e-2;

/// Whether a step draws a sixteenth of the records or more. The noise is then so large beside what they have in common that
/// few values learn more from it than many (docs/results.md, "Few values for few records").
fn draws_many(config: &RunConfig) -> bool {
    config.finetune.expected_batch_size.saturating_mul(16) >= config.dataset.public_size
}

/// Whether `<section>.<key>` is given.
fn names(table: &Table, section: &str, key: &str) -> bool {
    table
        .get(section)
        .and_then(Value::as_table)
        .is_some_and(|section| section.contains_key(key))
}

fn expect_table(value: Value, key: &str) -> Result<Table> {
    match value {
        Value::Table(t) => Ok(t),
        other => Err(Error::usage(format!(
            "`{key}` must be a table, not {}",
            other.type_str()
        ))),
    }
}

/// Lays `over` on `under`: tables are merged, everything else is replaced.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            // Another kind of thing has other keys.
            (Some(Value::Table(u)), Value::Table(o)) if o.contains_key("kind") && u.get("kind") != o.get("kind") => {
                *u = o
            }
            (Some(Value::Table(u)), Value::Table(o)) => merge(u, o),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Applies one `a.b.c=value`; the value is TOML, or a bare string.
fn apply(table: &mut Table, assignment: &str) -> Result<()> {
    let (path, raw) = assignment.split_once('=').ok_or_else(|| {
        Error::usage(format!("`--set {assignment}` is not of the form key=value"))
            .hint("for example: --set finetune.epsilon=3")
    })?;
    let value = format!("v = {raw}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| Value::String(raw.to_string()));
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().unwrap_or_default();
    let mut at = table;
    for key in keys {
        at = at
            .entry(key)
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| {
                Error::usage(format!("`--set {assignment}`: `{key}` is a value, not a section"))
                    .hint("a key is a section and a name in it, such as finetune.epsilon")
            })?;
    }
    at.insert(last.to_string(), value);
    Ok(())
}

/// Serde's message and the key in one sentence, with the nearest known name where a key is unknown.
fn explain(path: &Path, error: &toml::de::Error) -> Error {
    let message = error.message().trim().replace('\n', " ");
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    // The key stands only in what the error displays.
    let place = error
        .to_string()
        .lines()
        .find(|l| l.starts_with("in `"))
        .map_or(String::new(), |l| format!(" {l}"));
    let out = Error::usage(format!("the configuration {}{place}: {message}", path.display()));
    match names.split_first() {
        Some((wrong, known)) if message.starts_with("unknown") => {
            let nearest = known
                .iter()
                .map(|name| (strsim::jaro_winkler(name, wrong), name))
                .max_by(|a, b| a.0.total_cmp(&b.0));
            match nearest {
                Some((alike, name)) if alike > 0.7 => out.hint(format!("did you mean `{name}`?")),
                Some(_) => out.hint(format!("it may be one of: {}", known.join(", "))),
                None => out.hint("leave it out: this has no settings"),
            }
        }
        _ => {
            out.hint("the config.toml of any run has every section; `dpsynth plan` checks a file without touching data")
        }
    }
}

fn resolve_paths(config: &mut RunConfig, beside: &Path, data_dir: &Path) {
    let mut folders = vec![
        PathBuf::new(),
        beside.to_path_buf(),
        beside.join("data"),
        data_dir.to_path_buf(),
    ];
    // A run is the same run from whichever folder the command is given.
    let full = |path: &Path| {
        let up = path.components().any(|part| part == std::path::Component::ParentDir);
        // `..` away, where the folder is there: the same path is the same text.
        let plain = up
            .then(|| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?)))
            .flatten();
        plain.unwrap_or_else(|| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()))
    };
    let resolve = |p: &mut PathBuf| {
        if is_remote(p) {
            return;
        }
        let found = folders
            .iter()
            .map(|folder| folder.join(&*p))
            .find(|path| is_there(path));
        // A path that is nowhere is reported under the data folder, where the README says to put it.
        *p = full(&found.unwrap_or_else(|| data_dir.join(&*p)));
    };
    let dataset = &mut config.dataset;
    let held_out = dataset.test.as_mut().and_then(HeldOut::files_mut);
    let files = dataset.train.iter_mut().chain(held_out);
    let public = config.evaluate.dp_direct.public.iter_mut();
    files.chain(public).flat_map(Files::paths_mut).for_each(&resolve);
    let names = dataset.labels.iter_mut().filter_map(|l| l.names_file.as_mut());
    names.for_each(&resolve);
    let model = |path: &mut PathBuf| {
        if let (Ok(below), Some(home)) = (path.strip_prefix("~"), std::env::var_os("HOME")) {
            *path = Path::new(&home).join(below);
        }
        resolve(path);
    };
    config.model.path.as_mut().map(&model);
    config.evaluate.encoder_path.as_mut().map(&model);
    let judge = match &mut config.evaluate.encoder {
        Judge::Named(named) => Some(named),
        Judge::Switch(_) => None,
    };
    let direct = config.evaluate.dp_direct.encoder.as_mut();
    for named in judge.into_iter().chain(direct).chain(&mut config.lexicon.encoder) {
        let path = match Named::of(named) {
            Named::Path(path) => Some(path),
            // A folder's name is a folder, and no repository's.
            _ if folders.iter().any(|folder| folder.join(&*named).is_dir()) => Some(PathBuf::from(&*named)),
            _ => None,
        };
        if let Some(mut path) = path {
            model(&mut path);
            *named = path.to_string_lossy().into_owned();
        }
    }
    folders = folders
        .iter()
        .map(|folder| {
            full(if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            })
        })
        .collect();
    folders.dedup();
    let mut seen = std::collections::HashSet::new();
    folders.retain(|folder| seen.insert(folder.clone()));
    config.dataset.looked_in = folders;
}

/// Whether it is an address: of the Hugging Face hub, or one that is refused where it is read.
pub(crate) fn is_remote(path: &Path) -> bool {
    path.to_string_lossy().contains("://")
}

fn is_there(path: &Path) -> bool {
    path.exists() || (is_pattern(path) && find(path, Split::Train).is_ok())
}
