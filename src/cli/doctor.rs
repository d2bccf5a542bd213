//! `dpsynth doctor`: what this machine has and what a run would miss.

use std::path::{Path, PathBuf};

use clap::Args;
use dpsynth::Result;
use dpsynth::assets::{self, Locations, Registry, Status};
use dpsynth::machine;
use dpsynth::models::device;
use serde::Serialize;
use sysinfo::Disks;

use super::Ui;

/// Shows what this machine has: cores, memory, disk, GPU support, caches, and where each model and dataset is or could
/// be had from. Changes nothing.
#[derive(Args)]
pub struct Doctor {
    /// Prints one JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Folder in which runs are kept: the free space of its disk is shown
    #[arg(long, value_name = "FOLDER", default_value = "runs")]
    runs_dir: PathBuf,
}

/// What was found. Sizes are in bytes; `null` where the system does not tell.
#[derive(Serialize)]
struct Findings {
    version: &'static str,
    cores: Option<usize>,
    memory_bytes: Option<u64>,
    memory_free_bytes: Option<u64>,
    runs_dir: PathBuf,
    disk_free_bytes: Option<u64>,
    cuda_compiled_in: bool,
    nvidia_driver: bool,
    cuda: Finding,
    hub_cache: Folder,
    own_cache: Folder,
    pip: Finding,
    hub: Finding,
    assets: Vec<Status>,
}

#[derive(Serialize)]
struct Folder {
    path: PathBuf,
    exists: bool,
}

/// Something that works, or why it does not.
#[derive(Serialize)]
struct Finding {
    works: bool,
    detail: String,
}

impl Doctor {
    /// Looks around and prints.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let findings = Findings::collect(self.runs_dir, &Locations::from_env());
        match self.json {
            true => ui.print_json(&findings),
            false => ui.print(&findings.table()),
        }
    }
}

impl Findings {
    fn collect(runs_dir: PathBuf, locations: &Locations) -> Self {
        let (memory_bytes, memory_free_bytes) = machine::memory().unzip();
        let hub_name = locations
            .hub
            .as_ref()
            .map_or_else(String::new, |hub| hub.endpoint.clone());
        Findings {
            version: env!("CARGO_PKG_VERSION"),
            cores: std::thread::available_parallelism().ok().map(usize::from),
            memory_bytes,
            memory_free_bytes,
            disk_free_bytes: disk_free(&runs_dir),
            runs_dir,
            cuda_compiled_in: cfg!(feature = "cuda-plain"),
            nvidia_driver: nvidia_driver(),
            cuda: Finding::new(match device::cuda() {
                Ok(_) => Ok("a product was computed on the first device".into()),
                Err(why) => Err(format!("{} ({})", why.reason, why.hint)),
            }),
            hub_cache: Folder::new(&locations.hub_cache),
            own_cache: Folder::new(&locations.own_cache),
            pip: Finding::new(match &locations.python {
                Some(python) => assets::pip_version(python),
                None => Err("not asked".into()),
            }),
            hub: Finding::new(assets::hub_reachable(locations).map(|()| hub_name)),
            assets: Registry::built_in().status(locations),
        }
    }

    fn table(&self) -> String {
        let gpu = match (self.cuda_compiled_in, self.nvidia_driver) {
            (true, _) => self.cuda.to_string(),
            (false, true) => "not compiled in, though there is a driver: build with `make build CUDA=1`".to_string(),
            (false, false) => "not compiled in: runs use the CPU".to_string(),
        };
        let lines = [
            ("dpsynth", self.version.to_string()),
            ("cores", self.cores.map_or("unknown".into(), |n| n.to_string())),
            (
                "memory",
                format!("{} free of {}", size(self.memory_free_bytes), size(self.memory_bytes)),
            ),
            (
                "disk",
                format!(
                    "{} free on the disk of {}",
                    size(self.disk_free_bytes),
                    self.runs_dir.display()
                ),
            ),
            ("cuda", gpu),
            ("hub cache", self.hub_cache.to_string()),
            ("own cache", self.own_cache.to_string()),
            ("pip", self.pip.to_string()),
            ("hub", self.hub.to_string()),
        ];
        let mut out: Vec<String> = lines
            .iter()
            .map(|(name, value)| format!("{name:<10} {value}"))
            .collect();
        for asset in &self.assets {
            let state = match &asset.present {
                Some(found) => format!("in {}: {}", found.place, found.folder.display()),
                None => format!(
                    "not here; `dpsynth fetch {}` asks {}",
                    asset.name,
                    asset.sources.join(", then ")
                ),
            };
            out.push(format!(
                "{:<10} {} ({}): {state}",
                asset.kind, asset.name, asset.license
            ));
        }
        out.join("\n")
    }
}

impl Folder {
    fn new(path: &Path) -> Self {
        Folder {
            path: path.to_path_buf(),
            exists: path.is_dir(),
        }
    }
}

impl std::fmt::Display for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.exists { "found" } else { "not there yet" };
        write!(f, "{} ({state})", self.path.display())
    }
}

impl Finding {
    fn new(outcome: std::result::Result<String, String>) -> Self {
        let works = outcome.is_ok();
        let detail = outcome.unwrap_or_else(|why| why);
        Finding { works, detail }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.works { "works" } else { "does not work" };
        write!(f, "{state}: {}", self.detail)
    }
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or("unknown".into(), |b| {
        format!("{:.1} GiB", b as f64 / (1u64 << 30) as f64)
    })
}

fn nvidia_driver() -> bool {
    ["/proc/driver/nvidia/version", "/dev/nvidia0"]
        .iter()
        .any(|path| Path::new(path).exists())
}

/// Free space on the disk that `folder` is on or would be made on.
fn disk_free(folder: &Path) -> Option<u64> {
    let absolute = std::path::absolute(folder).ok()?;
    let existing = absolute.ancestors().find_map(|p| p.canonicalize().ok())?;
    let disks = Disks::new_with_refreshed_list().ok()?;
    let on_it = disks.iter().filter(|disk| existing.starts_with(disk.mount_point()));
    on_it
        .max_by_key(|disk| disk.mount_point().components().count())
        .map(|disk| disk.available_space())
}
