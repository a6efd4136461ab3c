//! Where tokens lie, for whom, and what nobody can make of the places: here and on the nodes of the laboratory.
//!
//! Nodes and /tmp are everybody's, so these tests take turns in one laboratory.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use support::corner::{Corner, files_below};
use support::lab::Lab;

#[path = "../support/mod.rs"]
mod support;

mod arrival;
mod one_issuer;
mod planted;

const DUNE: &str = "dune_production";
const NODE1: &str = "node1.lab.test";
const NODE2: &str = "node2.lab.test";

/// It goes down with the test process, which a watcher outside sees to.
static LAB: LazyLock<Option<Mutex<Lab>>> = LazyLock::new(|| Lab::up().map(Mutex::new));

/// The laboratory for this test alone, with nothing of earlier tests in the shared places.
fn lab() -> Option<MutexGuard<'static, Lab>> {
    // A test that failed has left it usable.
    let lab = LAB.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
    for place in ["tmp", "nodes/node1/tmp", "nodes/node2/tmp"] {
        for path in strangers(&lab.path(place)) {
            let removed =
                if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.expect("it is a test's");
        }
    }
    Some(lab)
}

/// What is in a /tmp of the laboratory besides the laboratory itself.
fn strangers(tmp: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(tmp).expect("the laboratory has it").map(|entry| entry.expect("it can be read").path());
    let own = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("mt-lab"));
    entries.filter(|path| !own(path)).collect()
}

/// Permissions, and whether it is a regular file.
fn mode(meta: &Metadata) -> (u32, bool) {
    (meta.mode() & 0o7777, meta.is_file())
}

fn look_at(path: &Path) -> Metadata {
    fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn node_file(lab: &Lab, node: &str, name: &str) -> PathBuf {
    lab.path(format!("nodes/{node}/tmp/{name}"))
}

/// The kept token files of the corner.
fn kept(corner: &Corner) -> Vec<PathBuf> {
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vt_"));
    files_below(&corner.path("tokens")).into_iter().filter(named).collect()
}

fn kept_of_dune(corner: &Corner) -> PathBuf {
    corner.path(format!("tokens/vt_u{}-{DUNE}", corner.own_uid()))
}

/// Makes htgettoken get a new token in place of one that is older than a second or two: it asks for seven days.
fn always_a_new_token(config: &mut serde_json::Value) {
    config["minTokenLifetime"] = "604799s".into();
}

fn is_token(content: &str) -> bool {
    content.starts_with("hvs.") || content.starts_with("s.")
}

/// Asks the vault about the token in a file on a node, from there. Its remaining lifetime in seconds.
#[track_caller]
fn lifetime_on_node(lab: &Lab, node: &str, name: &str) -> u64 {
    let ask = format!(
        "curl -sS --fail --cacert \"$LAB/ca/ca.pem\" -H \"X-Vault-Token: $(cat /tmp/{name})\" \
         https://vault.lab.test:8200/v1/auth/token/lookup-self"
    );
    let answer = lab.node(node, &["sh", "-c", &ask]);
    assert!(answer.status.success(), "{node} {name}: {answer:?}");
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("the vault answers JSON");
    answer["data"]["ttl"].as_u64().expect("a lifetime")
}

/// Somebody who looks at token files whenever the file system says that there is something new, and who is told of
/// everything that was done to them. He misses nothing, however short.
struct Watcher {
    inotify: Inotify,
    places: Vec<(WatchDescriptor, PathBuf)>,
}

impl Watcher {
    fn of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK).expect("the kernel has it");
        let watch = |path: PathBuf| {
            let directory = path.parent().expect("a directory");
            (inotify.add_watch(directory, AddWatchFlags::IN_ALL_EVENTS).expect("it exists"), path)
        };
        let places = paths.into_iter().map(watch).collect();
        Self { inotify, places }
    }

    /// What happened up to now. How often was one of the files put into its place as a whole?
    ///
    /// # Panics
    /// When it was ever made, written or opened up under its name, where a reader could see half of it.
    fn replaced(&self) -> usize {
        let harmless = AddWatchFlags::IN_ACCESS
            | AddWatchFlags::IN_OPEN
            | AddWatchFlags::IN_CLOSE_NOWRITE
            // Only the end of a writing that is not there: a write under this name would be told as such.
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_TO;
        let mut replaced = 0;
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(nix::errno::Errno::EAGAIN) => return replaced,
                Err(errno) => panic!("inotify: {errno}"),
            };
            for event in events {
                assert!(!event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW), "more happened than was remembered");
                let Some(name) = &event.name else { continue };
                if self.places.iter().any(|(watch, path)| *watch == event.wd && path.file_name() == Some(name)) {
                    assert!(harmless.contains(event.mask), "{}: {:?}", name.to_string_lossy(), event.mask);
                    replaced += usize::from(event.mask.contains(AddWatchFlags::IN_MOVED_TO));
                }
            }
        }
    }
}
