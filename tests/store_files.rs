//! Promise: `mt store import` reads, and `mt store export` writes, no file that somebody else could have put there or could swap;
//! neither waits for a FIFO, takes more memory than a line of an export has, or leaves anything behind when it refuses.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::stat::Mode;

/// Whom root becomes: these commands refuse root.
const NOBODY: u32 = 65534;
/// A stranger to that account.
const STRANGER: u32 = 65533;
/// Seconds. It takes none; what waits for a FIFO, all of them.
const PATIENCE: &str = "60";

const CONFIG: &str = r#"{"keytabPath": "/k", "kerberosPrincipalPattern": "{{.Account}}@R", "vaultServer": "vault.lab.test",
    "experiments": {"dune": {"roles": {"production": {"account": "dunepro", "destinationNodes": ["dune01"]}}}}}"#;

/// The UIDs, the state directory, and the files with what is in them.
type Content = (Vec<u8>, Vec<PathBuf>, Vec<(PathBuf, Vec<u8>)>);

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// With a store that holds a UID, and an export of it, `good`.
    fn new() -> Self {
        // Directly below /tmp, so that whom root becomes can reach it.
        let place = Self { dir: tempfile::Builder::new().prefix("mt-files.").tempdir_in("/tmp").unwrap() };
        place.own(place.dir.path(), 0o755);
        let copied = Command::new("cp").args([Path::new(env!("CARGO_BIN_EXE_mt")), &place.path("mt")]).status();
        assert!(copied.unwrap().success());
        place.mkdir("files");
        place.write("c.json", CONFIG);
        let set = place.mt(&["uids", "set", "dunepro", "1234"]);
        assert!(set.status.success(), "{set:?}");
        let made = place.mt(&["store", "export", "files/good"]);
        assert!(made.status.success(), "{made:?}");
        place
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn own(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        if is_root() {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    fn mkdir(&self, name: &str) -> PathBuf {
        fs::create_dir(self.path(name)).unwrap();
        self.own(&self.path(name), 0o755);
        self.path(name)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.own(&self.path(name), 0o600);
        self.path(name)
    }

    fn command(&self, program: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", PATIENCE]).args(program).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.dir.path());
        command.env("MT_STATE_DIR", self.path("state")).env("MT_CONFIG", self.path("c.json"));
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn mt(&self, arguments: &[&str]) -> Output {
        self.command(&[&["./mt"], arguments].concat()).output().unwrap()
    }

    /// What there is to be seen: the store's UIDs, the files in the state directory, and those beside the export.
    fn content(&self) -> Content {
        let list = |name: &str| {
            let entries = fs::read_dir(self.path(name)).unwrap().map(|entry| entry.unwrap().path());
            BTreeSet::from_iter(entries).into_iter().collect::<Vec<_>>()
        };
        let listed = self.mt(&["uids", "list", "--output", "json"]);
        assert!(listed.status.success(), "{listed:?}");
        let read = |path: PathBuf| {
            let is_small = fs::symlink_metadata(&path).is_ok_and(|about| about.is_file() && about.len() < 10 << 20);
            (path.clone(), if is_small { fs::read(path).unwrap() } else { Vec::new() })
        };
        (listed.stdout, list("state"), list("files").into_iter().map(read).collect())
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Refused by name, in words for people, with the code.
#[track_caller]
fn refused(about: &str, ended: &Output, code: &str, named: &str) {
    let said = String::from_utf8(ended.stderr.clone()).expect("UTF-8");
    assert_eq!(ended.status.code(), Some(1), "{about}: {said}");
    assert!(said.contains(code) && said.contains(named), "{about}: {said}");
    assert!(!said.contains(|c: char| c.is_control() && c != '\n') && said.len() < 4_000, "{about}: {said:?}");
}

type Plant = fn(&Place, &str) -> bool;

/// Each makes something of this name that must not be read. `false`: this machine cannot.
const PLANTED: &[(&str, Plant)] = &[
    ("FIFO", |place, name| {
        nix::unistd::mkfifo(&place.path(name), Mode::S_IRWXU).unwrap();
        place.own(&place.path(name), 0o600);
        true
    }),
    ("directory", |place, name| place.mkdir(name).is_dir()),
    ("link of a stranger", |place, name| {
        symlink(place.path("files/good"), place.path(name)).unwrap();
        is_root() && lchown(place.path(name), Some(STRANGER), None).is_ok()
    }),
    ("file of a stranger", |place, name| {
        fs::copy(place.path("files/good"), place.path(name)).unwrap();
        place.own(&place.path(name), 0o644);
        is_root() && chown(place.path(name), Some(STRANGER), None).is_ok()
    }),
    ("file that everybody may write to", |place, name| {
        fs::copy(place.path("files/good"), place.path(name)).unwrap();
        place.own(&place.path(name), 0o666);
        true
    }),
];

#[test]
fn an_import_reads_no_file_that_others_have_put_there_or_could_change() {
    let place = Place::new();
    let import = |name: &str| place.mt(&["store", "import", "--replace", name]);
    for (number, (what, plant)) in PLANTED.iter().enumerate() {
        let name = format!("files/{number}");
        if !plant(&place, &name) {
            eprintln!("SKIPPED {what}: only root can give things to somebody else");
            continue;
        }
        let before = place.content();
        refused(what, &import(&name), "MT0079", &name);
        assert_eq!(place.content(), before, "{what}");
    }
    place.mkdir("open");
    fs::copy(place.path("files/good"), place.path("open/good")).unwrap();
    place.own(&place.path("open/good"), 0o600);
    place.own(&place.path("open"), 0o777);
    refused("a directory open to everybody", &import("open/good"), "MT0079", "everybody may write to its directory");
    refused("nothing", &import("files/nothing"), "MT0079", "files/nothing");
    // And one that is fine is taken, whatever it is called.
    fs::rename(place.path("files/good"), place.path("-good")).unwrap();
    let done = place.mt(&["store", "import", "--replace", "--", "-good"]);
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn an_import_of_what_is_no_export_takes_no_more_memory_than_a_line_and_changes_nothing() {
    let place = Place::new();
    let good = fs::read_to_string(place.path("files/good")).unwrap();
    let header = good.split_inclusive('\n').next().unwrap();
    place.write("files/garbage", "\u{1b}[2J\u{202e}no export\n");
    place.write("files/deep", &format!("{header}{}\n", "[".repeat(1 << 20)));
    place.write(
        "files/tree",
        &format!("{header}{{\"tree\":\"{}\",\"key\":\"\",\"version\":1,\"value\":1}}\n", "x".repeat(1 << 20)),
    );
    place.write("files/commits", &header.replace("\"sequence\":", "\"sequence\":1844674407370955161"));
    let huge = place.write("files/huge", header);
    File::options().append(true).open(&huge).unwrap().set_len(2 << 30).unwrap();
    for name in ["garbage", "deep", "tree", "commits", "huge"] {
        let before = place.content();
        let limited = "ulimit -v 1000000; exec ./mt store import --replace \"$0\"";
        let ended = place.command(&["sh", "-c", limited, &format!("files/{name}")]).output().unwrap();
        refused(name, &ended, "MT0079", &format!("files/{name}"));
        assert_eq!(place.content(), before, "{name}");
        fs::remove_file(place.path("files").join(name)).unwrap();
    }
}

#[test]
fn an_export_goes_only_where_nobody_can_swap_it_and_in_place_of_nothing_but_an_older_file() {
    let place = Place::new();
    for (number, (what, plant)) in PLANTED[..3].iter().enumerate() {
        let name = format!("files/{number}");
        // A link of our own is refused as well as that of a stranger.
        plant(&place, &name);
        let before = place.content();
        refused(what, &place.mt(&["store", "export", &name]), "MT0009", &name);
        assert_eq!(place.content(), before, "{what}");
    }
    for (what, name) in [("no name", "files/.."), ("no directory", "none/x"), ("a file as directory", "files/good/x")] {
        refused(what, &place.mt(&["store", "export", name]), "MT0009", name);
    }
    place.mkdir("open");
    place.own(&place.path("open"), 0o777);
    refused("open to everybody", &place.mt(&["store", "export", "open/x"]), "MT0009", "everybody may write");
    assert_eq!(fs::read_dir(place.path("open")).unwrap().count(), 0);

    for name in ["files/good", "-x"] {
        let done = place.mt(&["store", "export", "--", name]);
        assert!(done.status.success(), "{done:?}");
        assert_eq!(fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // Whoever reads stdout may go away.
    let ended = place.command(&["bash", "-c", "./mt store export - | true; echo ${PIPESTATUS[0]}"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "0\n", "{ended:?}");
}
