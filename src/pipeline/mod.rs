//! The stages of a run: doing them, and going on where one stopped.
//!
//! A run lives in one folder. A stage reads what the stage before it wrote there, writes its outputs whole, then its
//! stamp; it is skipped while its stamp still holds. Everything that reads private records stays under `internal/`.

mod account;
mod arm;
pub mod checks;
pub mod cost;
mod direct;
pub mod estimate;
mod evaluate;
mod finetune;
pub mod footprint;
pub mod hours;
mod journal;
mod lexicon;
mod non_private;
mod posterior;
pub mod predict;
mod prepare;
mod quality;
pub mod rates;
mod references;
mod sample;
pub mod scorers;
mod warm_start;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::assets;
use crate::config::{Files, HeldOut, Profile, RunConfig, Task};
use crate::documents::Report;
use crate::hash::sha256_file;
use crate::machine::peak_rss_bytes;
use crate::models::device;
use crate::models::{LanguageModel, ModelFiles};
use crate::progress::Progress;
use crate::records::Vocabulary;
use crate::run::Preparation;
use crate::run::keys::{key, section, stages};
use crate::run::stamp::{self, Stamp};
use crate::run::{Places, RunFolder, RunPaths, Stage, report};
use crate::tables::{self, Split};
use crate::training::trainable;
use crate::{Error, Result};

/// A run whose folder is open and locked.
pub struct Pipeline<'a> {
    config: RunConfig,
    places: &'a Places,
    folder: RunFolder,
    stop: &'a AtomicBool,
    progress: &'a dyn Progress,
}

impl<'a> Pipeline<'a> {
    /// Opens `<runs>/<name>-<profile>` for `config`.
    ///
    /// # Errors
    /// Another program has the folder, or it was written by a configuration that trains something else.
    pub fn open(
        config: RunConfig,
        profile: Profile,
        places: &'a Places,
        stop: &'a AtomicBool,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let warnings = checks::configuration(&config)?;
        let folder = RunFolder::open(&places.runs, &config, profile)?;
        warnings
            .iter()
            .for_each(|warning| progress.note(&format!("warning: {warning}")));
        if let Some(note) = device::fallback(config.device) {
            progress.note(&note);
        }
        Ok(Pipeline {
            config,
            places,
            folder,
            stop,
            progress,
        })
    }

    /// Whether the person has asked to stop.
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// [`Error::interrupted`] once the person has asked to stop.
    fn check_stop(&self, doing: &str) -> Result<()> {
        match self.is_stopped() {
            true => {
                Err(Error::interrupted(format!("stopped while {doing}")).hint("the same command goes on from here"))
            }
            false => Ok(()),
        }
    }

    /// The language model as it came, and its tokenizer.
    fn language_model(&self) -> Result<(Vocabulary, LanguageModel)> {
        let c = &self.config;
        let file = assets::language_model(&c.model, &self.places.assets, self.progress)?;
        let file = file.language_model()?;
        // A repository's branch may have moved on, or a file have been exchanged.
        file.require(&Preparation::read(&self.folder)?.model_sha256)?;
        let files = ModelFiles::open(&file.path)?;
        let base = trainable::base(&c.finetune, &files, &device::choose(c.device)?)?;
        Ok((Vocabulary::of(&files)?, base))
    }

    /// What it is told.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// The run's folder.
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// Does what is missing up to and including `last`.
    pub fn run_until(&self, last: Stage) -> Result<()> {
        direct::give_back(self)?;
        let mut before = String::new();
        let mut earlier = Vec::new();
        for stage in stages(&self.config).into_iter().filter(|s| *s <= last) {
            before = self.ensure(stage, &before, &mut earlier)?;
        }
        Ok(())
    }

    /// Does `stage` alone; the stages before it must be done.
    ///
    /// # Errors
    /// Usage: one before it is not, or the configuration has no such stage.
    pub fn run_only(&self, stage: Stage) -> Result<()> {
        if !stages(&self.config).contains(&stage) {
            if self.config.task == Task::Classify {
                self.config.require_records()?;
            }
            return Err(Error::usage(format!("the run has no stage `{}`", stage.name()))
                .hint("evaluate.arms = [\"non_private\"] or [\"dp_direct\"] asks for models to compare with"));
        }
        let (mut before, mut stamps) = (String::new(), Vec::new());
        for earlier in stages(&self.config).into_iter().filter(|s| *s < stage) {
            before = self.key(earlier, &before)?;
            let done = self.done(earlier, &before, &stamps, Some(stage))?;
            stamps.extend(done.clone());
            if done.is_none() {
                return Err(
                    Error::usage(format!("the stage `{}` is not done yet", earlier.name())).hint(format!(
                        "`dpsynth {}` comes first; `dpsynth run` does all in order",
                        earlier.name()
                    )),
                );
            }
        }
        self.ensure(stage, &before, &mut stamps)?;
        Ok(())
    }

    /// The report of what is done under this configuration; written to `report.json`.
    pub fn report(&self) -> Result<Report> {
        let (mut before, mut done, mut stamps) = (String::new(), Vec::new(), Vec::new());
        for stage in stages(&self.config) {
            before = self.key(stage, &before)?;
            let Some(stamp) = self.stamped(stage, &before, &stamps)? else {
                break;
            };
            stamps.push(stamp);
            done.push(stage);
        }
        report::write(&self.config, &self.folder, &self.places.ledgers, &done)
    }

    /// What the stage depends on: its settings, the files they name, the stage before it.
    fn key(&self, stage: Stage, before: &str) -> Result<String> {
        let inputs = match stage {
            Stage::Prepare => self.inputs()?,
            _ => BTreeMap::new(),
        };
        Ok(key(&self.config, stage, before, &inputs))
    }

    /// Hashes of the files that the configuration names. A file that has gone away counts as what it was.
    fn inputs(&self) -> Result<BTreeMap<PathBuf, String>> {
        let c = &self.config;
        let earlier = Stamp::read(&self.folder, Stage::Prepare)?
            .map(|s| s.inputs)
            .unwrap_or_default();
        let mut named: Vec<PathBuf> = c.dataset.labels.iter().filter_map(|l| l.names_file.clone()).collect();
        if let Some(path) = &c.model.path {
            // What has gone away counts as what it was.
            let before = earlier.keys().filter(|file| file.starts_with(path)).cloned();
            named.extend(assets::model_paths(path).unwrap_or_default().into_iter().chain(before));
        }
        let held_out = c.dataset.test.as_ref().and_then(HeldOut::files);
        for (files, split) in [(c.dataset.train.as_ref(), Split::Train), (held_out, Split::Test)] {
            for path in files.into_iter().flat_map(Files::paths) {
                match tables::find(path, split) {
                    Ok(files) => named.extend(files),
                    // What has gone away counts as what it was; what never was is told of where it is read.
                    Err(_) => named.extend(earlier.keys().cloned().chain([path.clone()])),
                }
            }
        }
        let mut out = BTreeMap::new();
        for path in named {
            if path.is_file() {
                let (hash, _) = sha256_file(&path).map_err(|e| Error::io("read", &path, e))?;
                out.insert(path, hash);
            } else if let Some(hash) = earlier.get(&path) {
                out.insert(path, hash.clone());
            }
        }
        Ok(out)
    }

    /// The stamp of a stage that is done, on what the stages with the stamps `earlier` wrote; none where it is to be done. Its
    /// files are held against it: those that `reader` reads, or all.
    ///
    /// # Errors
    /// Data: a file of it was changed since.
    fn done(&self, stage: Stage, key: &str, earlier: &[Stamp], reader: Option<Stage>) -> Result<Option<Stamp>> {
        let stamp = self.stamped(stage, key, earlier)?;
        if let Some(stamp) = &stamp {
            let read = |file: &str| reader.is_none_or(|reader| RunPaths::is_read_by(reader, file));
            stamp.require_written(&self.folder, stage, read)?;
        }
        Ok(stamp)
    }

    /// The same by its stamp alone.
    fn stamped(&self, stage: Stage, key: &str, earlier: &[Stamp]) -> Result<Option<Stamp>> {
        let read = stamp::read_of(earlier);
        let stamp = Stamp::read(&self.folder, stage)?.filter(|s| s.done && s.key == key && s.has_read(&read));
        let there = |p: &PathBuf| p.exists();
        Ok(stamp.filter(|_| self.folder.results(stage, Some(&self.config)).iter().all(there)))
    }

    /// Runs `stage` unless its stamp holds; returns its key, and adds its stamp to those of the stages before it.
    fn ensure(&self, stage: Stage, before: &str, stamps: &mut Vec<Stamp>) -> Result<String> {
        let key = self.key(stage, before)?;
        if let Some(stamp) = self.done(stage, &key, stamps, None)? {
            self.progress.note(&format!("{}: done before, kept", stage.name()));
            stamps.push(stamp);
            return Ok(key);
        }
        let read = stamp::read_of(stamps.iter());
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::interrupted("stopped between stages").hint("the same command goes on from here"));
        }
        // A stage that was begun under another key leaves nothing to resume from.
        let begun = Stamp::read(&self.folder, stage)?.filter(|s| s.key == key && s.has_read(&read));
        let earlier = match begun {
            Some(stamp) => stamp.seconds,
            None => {
                // Training is paid for: neither a newer program nor a lost stamp may throw it away and pay again.
                if stage <= Stage::Finetune && self.folder.is_training_begun() {
                    let root = self.folder.root().display();
                    return Err(Error::usage(format!(
                        "{root} was trained on other records, by another version of the program, or its stamps were changed"
                    ))
                    .hint(format!(
                        "where files were added, changed or taken away, `dpsynth sample {root}` goes on with what was trained; to train \
                         on them give the run another name (--set name=another); what was charged stays charged"
                    )));
                }
                match stage {
                    // Its files are replaced one by one, once the new ones are whole.
                    Stage::Prepare => {}
                    _ => self.clear(stage)?,
                }
                0.0
            }
        };
        let mut stamp = Stamp {
            key: key.clone(),
            before: before.to_string(),
            section: section(&self.config, stage),
            inputs: if stage == Stage::Prepare {
                self.inputs()?
            } else {
                BTreeMap::new()
            },
            read,
            written: BTreeMap::new(),
            machine: device::arithmetic(self.config.device)?,
            done: false,
            seconds: earlier,
            peak_rss_bytes: 0,
        };
        stamp.write(&self.folder, stage)?;
        let start = Instant::now();
        let outcome = match stage {
            Stage::Prepare => prepare::run(self),
            Stage::Finetune => finetune::run(self),
            Stage::Sample => sample::run(self),
            Stage::References => references::run(self),
            Stage::Evaluate => evaluate::run(self),
        };
        stamp.seconds = earlier + start.elapsed().as_secs_f64();
        stamp.peak_rss_bytes = peak_rss_bytes();
        stamp.done = outcome.is_ok();
        if stamp.done {
            stamp.written = self.written(stage)?;
        }
        // A full disk must not hide the stage's own error.
        let written = stamp.write(&self.folder, stage);
        outcome?;
        written?;
        self.progress
            .note(&format!("{}: done in {:.0} s", stage.name(), stamp.seconds));
        stamps.push(stamp);
        Ok(key)
    }

    /// Hashes of what a stage wrote.
    fn written(&self, stage: Stage) -> Result<BTreeMap<String, String>> {
        let files = self.folder.written(stage)?;
        let named = |path: &PathBuf| {
            let name = path.strip_prefix(self.folder.root()).unwrap_or(path);
            Ok((name.display().to_string(), stamp::hash_of(path)?))
        };
        files.iter().map(named).collect()
    }

    /// Removes what a stage wrote under another key.
    fn clear(&self, stage: Stage) -> Result<()> {
        // The stamp goes first: were it left behind, it would speak for what is gone.
        for path in std::iter::once(self.folder.stamp(stage)).chain(self.folder.outputs(stage)) {
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            match removed {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", &path, e)),
                _ => {}
            }
        }
        Ok(())
    }
}
