//! The Hugging Face hub: downloads into the Hugging Face cache, giving up early on a hub that does not answer.

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};

use super::locations::{Hub, Locations};
use super::registry::HubRepo;
use crate::progress::{Progress, Unit};

/// Silence in the middle of a download that counts as its end.
const STALL: Duration = Duration::from_secs(60);

/// What the downloading thread has to say.
enum Event {
    Size(u64),
    Bytes(u64),
    Done(Result<(), String>),
}

/// Downloads `files` of a repository into the Hugging Face cache.
pub(super) fn download(
    locations: &Locations,
    hub: &Hub,
    kind: RepoType,
    from: &HubRepo,
    files: &[&str],
    progress: &dyn Progress,
) -> Result<(), String> {
    let api = api(locations.hub_cache.clone(), hub)?;
    for file in files {
        let repo = api.repo(Repo::with_revision(from.repo.clone(), kind, from.revision.clone()));
        let name = file.to_string();
        let events = in_background(move |events| {
            repo.download_with_progress(&name, Reporter(events))
                .map(|_| ())
                .map_err(|e| e.to_string())
        });
        follow(&events, hub, file, progress)?;
    }
    Ok(())
}

/// The names of all files of a repository.
pub(super) fn list(locations: &Locations, hub: &Hub, kind: RepoType, from: &HubRepo) -> Result<Vec<String>, String> {
    let api = api(locations.hub_cache.clone(), hub)?;
    let repo = api.repo(Repo::with_revision(from.repo.clone(), kind, from.revision.clone()));
    let (sender, names) = mpsc::channel();
    let events = in_background(move |_| {
        let info = repo.info().map_err(|e| e.to_string())?;
        let _ = sender.send(info.siblings.into_iter().map(|file| file.rfilename).collect());
        Ok(())
    });
    follow(&events, hub, "", &crate::progress::Silent)?;
    names.recv().map_err(|_| "the hub said nothing".to_string())
}

/// Asks the hub for one small file's metadata.
///
/// # Errors
/// Why the hub counts as unreachable, for a person to read.
pub fn reachable(locations: &Locations) -> Result<(), String> {
    let hub = locations.hub.as_ref().ok_or("HF_HUB_OFFLINE is set")?;
    let api = api(locations.hub_cache.clone(), hub)?;
    let url = api.model("openai-community/gpt2".into()).url("config.json");
    let events = in_background(move |_| api.metadata(&url).map(|_| ()).map_err(|e| e.to_string()));
    follow(&events, hub, "", &crate::progress::Silent)
}

fn api(cache: PathBuf, hub: &Hub) -> Result<Api, String> {
    if !(hub.endpoint.starts_with("https://") || hub.endpoint.starts_with("http://")) {
        return Err(format!(
            "HF_ENDPOINT must begin with https:// or http://, not `{}`",
            hub.endpoint
        ));
    }
    ApiBuilder::from_cache(Cache::new(cache))
        .with_endpoint(hub.endpoint.clone())
        .with_token(hub.token.clone())
        .with_progress(false)
        .build()
        .map_err(|e| e.to_string())
}

/// The client has no time limits of its own, so it works on a thread that can be left behind: whatever hangs
/// (name lookup, proxy, handshake), the caller goes on. A download left behind lands in the cache whole or not at all.
fn in_background(work: impl FnOnce(Sender<Event>) -> Result<(), String> + Send + 'static) -> Receiver<Event> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let outcome = work(sender.clone());
        let _ = sender.send(Event::Done(outcome));
    });
    receiver
}

fn follow(events: &Receiver<Event>, hub: &Hub, file: &str, progress: &dyn Progress) -> Result<(), String> {
    let mut task = None;
    let mut done = 0;
    loop {
        let patience = if task.is_none() { hub.patience } else { STALL };
        match events.recv_timeout(patience) {
            Ok(Event::Size(total)) => {
                done = 0;
                task.get_or_insert_with(|| progress.begin("download", total, Unit::Bytes))
                    .set(0, file);
            }
            Ok(Event::Bytes(n)) => {
                done += n;
                if let Some(task) = &task {
                    task.set(done, file);
                }
            }
            Ok(Event::Done(outcome)) => return outcome,
            Err(RecvTimeoutError::Timeout) => return Err(format!("no answer within {} s", patience.as_secs())),
            Err(RecvTimeoutError::Disconnected) => return Err("the download broke off".into()),
        }
    }
}

struct Reporter(Sender<Event>);

impl hf_hub::api::Progress for Reporter {
    fn init(&mut self, size: usize, _: &str) {
        let _ = self.0.send(Event::Size(size as u64));
    }
    fn update(&mut self, size: usize) {
        let _ = self.0.send(Event::Bytes(size as u64));
    }
    fn finish(&mut self) {}
}
