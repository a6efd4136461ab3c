//! A store in trouble, with the real program against the real laboratory: tokens are pushed all the same, the admins are
//! told, the exit code says it, the damaged store stays and is named, and what can be saved is saved.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use nix::fcntl::{Flock, FlockArg};
use support::corner::{Corner, Ended, files_below};
use support::lab::Lab;

#[path = "support/mod.rs"]
mod support;

/// It goes down with the test process, which a watcher outside sees to.
static LAB: LazyLock<Option<Lab>> = LazyLock::new(Lab::up);

const DUNE: &str = "dune_production";

/// What holds the trouble up; dropping it ends it.
type Held = Option<Flock<fs::File>>;

/// Trouble with a store, by name.
struct Trouble {
    name: &'static str,
    /// Brings it about.
    begin: fn(&Path) -> Held,
    /// What the log and the mail say of it.
    says: &'static str,
    way_out: WayOut,
}

enum WayOut {
    /// Export what can be read, import it. The runs are there again, or not.
    Import { runs_are_saved: bool },
    /// Nothing is wrong with the store once the trouble has ended.
    End(fn(&Path)),
}

const TROUBLES: &[Trouble] = &[
    Trouble {
        name: "empty-db",
        begin: |state| {
            fs::write(state.join("store/db"), "").unwrap();
            None
        },
        says: "is damaged",
        way_out: WayOut::Import { runs_are_saved: false },
    },
    Trouble {
        name: "random-db",
        begin: |state| {
            let length = fs::metadata(state.join("store/db")).unwrap().len();
            let noise: Vec<u8> = (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            fs::write(state.join("store/db"), noise).unwrap();
            None
        },
        says: "is damaged",
        way_out: WayOut::Import { runs_are_saved: false },
    },
    Trouble {
        name: "no-db",
        begin: |state| {
            fs::remove_file(state.join("store/db")).unwrap();
            None
        },
        says: "is damaged",
        way_out: WayOut::Import { runs_are_saved: false },
    },
    Trouble {
        name: "cut-db",
        begin: |state| {
            // sled makes the file longer than what it has written: the end of what counts is cut off.
            let db = state.join("store/db");
            let text = fs::read(&db).unwrap();
            let written = text.iter().rposition(|byte| *byte != 0).unwrap() as u64;
            OpenOptions::new().write(true).open(db).unwrap().set_len(written - 200).unwrap();
            None
        },
        says: "is damaged",
        way_out: WayOut::Import { runs_are_saved: true },
    },
    Trouble {
        name: "no-sidecar",
        begin: |state| {
            fs::remove_file(state.join("store.json")).unwrap();
            None
        },
        says: "store.json beside it is gone",
        way_out: WayOut::Import { runs_are_saved: true },
    },
    Trouble {
        name: "newer",
        begin: |state| {
            let text = fs::read_to_string(state.join("store.json")).unwrap();
            fs::write(state.join("store.json"), text.replace("\"format\":1", "\"format\":99")).unwrap();
            None
        },
        says: "a newer mt gave it format 99",
        way_out: WayOut::End(|state| {
            let text = fs::read_to_string(state.join("store.json")).unwrap();
            fs::write(state.join("store.json"), text.replace("\"format\":99", "\"format\":1")).unwrap();
        }),
    },
    Trouble {
        name: "read-only",
        begin: |state| {
            writable(&state.join("store"), false);
            None
        },
        says: "Permission denied",
        way_out: WayOut::End(|state| writable(&state.join("store"), true)),
    },
    Trouble {
        name: "locked",
        begin: |state| Some(lock(&state.join("store.lock"))),
        says: "has held it for more than 10s",
        way_out: WayOut::End(|_| {}),
    },
    Trouble {
        name: "locked-db",
        begin: |state| Some(lock(&state.join("store/db"))),
        says: "has held it for more than 5s",
        way_out: WayOut::End(|_| {}),
    },
];

fn lock(path: &Path) -> Flock<fs::File> {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno).expect("nobody uses it now")
}

fn writable(directory: &Path, yes: bool) {
    for path in files_below(directory).into_iter().chain([directory.to_owned()]) {
        let mode = if path.is_dir() { 0o500 } else { 0o400 } | if yes { 0o200 } else { 0 };
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
}

/// Never a panic, in no word of it.
#[track_caller]
fn calm(ended: Ended, code: i32) -> Ended {
    assert!(!ended.err.contains("panicked") && !ended.err.contains("backtrace"), "{ended:?}");
    ended.exits(code)
}

fn run_ids(corner: &Corner) -> Vec<String> {
    corner.runs().iter().map(|run| run["id"].as_str().expect("an id").to_owned()).collect()
}

/// Two tests, which go side by side: some troubles are mostly waited for.
#[test]
fn with_a_damaged_store_tokens_are_pushed_the_admins_are_told_and_nothing_is_silently_lost() {
    befall(|trouble| matches!(trouble.way_out, WayOut::Import { .. }));
}

#[test]
fn with_a_store_that_is_withheld_tokens_are_pushed_the_admins_are_told_and_it_is_as_it_was_afterwards() {
    befall(|trouble| matches!(trouble.way_out, WayOut::End(_)));
}

fn befall(which: impl Fn(&Trouble) -> bool) {
    let Some(lab) = &*LAB else { return };
    for trouble in TROUBLES.iter().filter(|trouble| which(trouble)) {
        let name = trouble.name;
        eprintln!("{name}");
        let corner = Corner::new(lab, name);
        let admin = format!("admin-{name}@example.org");
        corner.configure(|config| {
            config["notifications"]["admin_email"] = admin.clone().into();
            let role = &mut config["experiments"]["dune"]["roles"]["production"];
            role["defaultRoleFileDestinationTemplateOverride"] = format!("/tmp/{name}_{{{{.DesiredUID}}}}").into();
            // The UID is known to the store and to the file beside it alone.
            role.as_object_mut().expect("a map").remove("desiredUIDOverride");
        });
        corner.run(&["uids", "set", "dunepro", "1234"]).exits(0);
        corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
        let before = run_ids(&corner);
        let pushed: PathBuf = lab.path(format!("nodes/node1/tmp/{name}_1234"));
        fs::remove_file(&pushed).expect("it was pushed");

        let held = (trouble.begin)(&corner.state());
        let ended = calm(corner.run(&["run", "token-push", "-s", DUNE]), 21);
        assert!(pushed.exists(), "{name}: {ended:?}");
        assert!(ended.err.contains(trouble.says) && ended.err.contains("not recorded"), "{name}: {ended:?}");
        let mails: Vec<String> =
            lab.mails().into_iter().filter(|mail| mail.to == [admin.clone()]).map(|mail| plain(&mail.text)).collect();
        assert_eq!(mails.len(), 1, "{name}: the admins are told once");
        let said = trouble.says.split_whitespace().collect::<String>();
        assert!(mails[0].contains("thestorecannotbeused") && mails[0].contains(&said), "{name}: {}", mails[0]);
        match trouble.way_out {
            // A newer store is shown as far as it is understood.
            WayOut::End(_) if name == "newer" => assert_eq!(run_ids(&corner), before),
            // Whoever waits in vain waits long: once is enough.
            WayOut::End(_) if held.is_some() => {}
            WayOut::End(_) | WayOut::Import { .. } => {
                calm(corner.run(&["runs", "list"]), 21);
            }
        }

        match trouble.way_out {
            WayOut::End(end) => {
                drop(held);
                end(&corner.state());
                assert_eq!(run_ids(&corner), before, "{name}");
            }
            WayOut::Import { runs_are_saved } => repair(&corner, name, &before, runs_are_saved),
        }
        calm(corner.run(&["store", "verify"]), 0);
        // The UID is still known.
        fs::remove_file(&pushed).expect("it is there");
        corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
        assert!(pushed.exists(), "{name}");
    }
}

/// As the manual says: look, save, import.
fn repair(corner: &Corner, name: &str, before: &[String], runs_are_saved: bool) {
    let verified = calm(corner.run(&["store", "verify", "--output", "json"]), 21).json();
    assert_eq!((&verified["whole"], &verified["usable"]), (&false.into(), &false.into()), "{name}: {verified}");
    assert_eq!(verified["why"]["code"], "MT0072", "{name}: {verified}");
    let (file, backup) = (corner.path("export"), corner.path("backup"));
    fs::write(&backup, "of last night").unwrap();
    calm(corner.run(&["store", "export", backup.to_str().expect("text")]), 21);
    assert_eq!(
        fs::read_to_string(&backup).unwrap(),
        "of last night",
        "{name}: a good backup is replaced by what is left"
    );
    let incomplete = fs::metadata(corner.path("backup.incomplete")).expect("what is left is beside it");
    assert_eq!(incomplete.permissions().mode() & 0o777, 0o600);
    if runs_are_saved {
        // The store has the UIDs, too.
        fs::write(corner.state().join("uids.json"), "{\"dunepro").unwrap();
    }
    let exported = calm(corner.run(&["store", "export", file.to_str().expect("text")]), 21);
    assert!(exported.err.contains("warning[MT0072]"), "{name}: {exported:?}");
    let imported = calm(corner.run(&["store", "import", file.to_str().expect("text")]), 0);
    assert!(imported.err.contains("store.damaged-"), "the damaged store is named: {name}: {imported:?}");
    let kept = fs::read_dir(corner.state()).unwrap().flatten();
    let is_uids = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("uids.json.damaged-");
    let of_uids = fs::read_dir(corner.state()).unwrap().flatten().filter(is_uids).count();
    assert_eq!(of_uids, usize::from(runs_are_saved), "{name}: a damaged uids.json is kept: {imported:?}");
    let kept: Vec<_> = kept.filter(|e| e.file_name().to_string_lossy().starts_with("store.damaged-")).collect();
    assert!(kept.iter().any(|entry| entry.path().is_dir()), "{name}: it is kept");
    let saved = run_ids(corner);
    if runs_are_saved {
        assert_eq!(saved, before, "{name}");
    } else {
        assert_eq!(saved, [""; 0], "{name}");
        assert!(exported.err.contains("missing:"), "{name}: what is lost is named: {exported:?}");
    }
}

/// A mail's text without what breaks its lines.
fn plain(text: &str) -> String {
    text.replace("=\r\n", "").replace("=\n", "").replace("=3D", "=").split_whitespace().collect()
}

/// A store that is so long that its end is in another part of the log than its beginning, where the UIDs and the definitions
/// are: what is wrong there does not show when it is opened.
fn long_store(corner: &Corner) {
    corner.run(&["uids", "set", "dunepro", "1234"]).exits(0);
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    let exported = corner.run(&["store", "export", "-"]).exits(0).out;
    let mut lines: Vec<String> = exported.lines().map(str::to_owned).collect();
    let mut end: serde_json::Value = serde_json::from_str(&lines.pop().expect("the last")).expect("JSON");
    let record = |tree: &str, key: String, text: String| {
        serde_json::json!({ "tree": tree, "key": key, "version": 1, "value": text }).to_string()
    };
    lines.extend((0..60).map(|n| record("meta", format!("definition/{n:064}"), format!("{OLD} {n:03}").repeat(300))));
    lines.extend((0..150).map(|n| record("metrics", format!("zzz/{n:03}"), "z".repeat(9_000))));
    end["end"]["records"] = (lines.len() - 1).into();
    let file = corner.path("long");
    fs::write(&file, format!("{}\n{end}\n", lines.join("\n"))).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    corner.run(&["store", "import", "--replace", file.to_str().expect("text")]).exits(0);
    corner.run(&["runs", "list"]).exits(0);
}

const OLD: &str = "old definition";

/// Changes a bit of this text in the store's log, where it is newest.
fn spoil(corner: &Corner, text: &str) {
    let db = corner.state().join("store/db");
    let mut log = fs::read(&db).unwrap();
    let at = log.windows(text.len()).rposition(|part| part == text.as_bytes()).expect("it is there");
    log[at] ^= 1;
    fs::write(&db, log).unwrap();
}

/// Runs dune with a store that opens, and has a part that cannot be read: the admins are told, and the exit code says it.
#[track_caller]
fn told_late(name: &str, spoiled: &str, said: &str) -> (Corner<'static>, Ended) {
    let lab = LAB.as_ref().expect("it is up");
    let corner = Corner::new(lab, name);
    let admin = format!("admin-{name}@example.org");
    corner.configure(|config| config["notifications"]["admin_email"] = admin.clone().into());
    long_store(&corner);
    spoil(&corner, spoiled);
    let ended = calm(corner.run(&["run", "token-push", "-s", DUNE]), 21);
    assert!(ended.err.contains("is damaged") && ended.err.contains("1 service succeeded"), "{ended:?}");
    let mails: Vec<String> =
        lab.mails().into_iter().filter(|mail| mail.to == [admin.clone()]).map(|mail| plain(&mail.text)).collect();
    assert_eq!(mails.len(), 1, "the admins are told once: {mails:?}");
    assert!(mails[0].contains(said) && mails[0].contains("isdamaged"), "{}", mails[0]);
    calm(corner.run(&["store", "verify"]), 21);
    let file = corner.path("saved");
    calm(corner.run(&["store", "export", file.to_str().expect("text")]), 21);
    calm(corner.run(&["store", "import", file.to_str().expect("text")]), 0);
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    (corner, ended)
}

#[test]
fn a_run_that_comes_upon_a_damage_before_its_work_is_not_recorded_and_the_admins_are_told() {
    if LAB.is_none() {
        return;
    }
    let (_corner, ended) = told_late("late-uids", "\"uid\":1234", "thestorecannotbeused");
    assert!(ended.err.contains("not recorded"), "{ended:?}");
}

#[test]
fn a_run_that_comes_upon_a_damage_after_its_work_tells_the_admins_and_its_exit_code_says_it() {
    if LAB.is_none() {
        return;
    }
    let (corner, ended) = told_late("late-prune", &format!("{OLD} 030"), "isrecordedinadamagedstore");
    assert!(!ended.err.contains("not recorded"), "{ended:?}");
    assert_eq!(corner.runs().len(), 3, "it is in the store that was built anew, too");
}

#[test]
fn an_export_holds_no_token_and_gives_the_history_to_another_host() {
    let Some(lab) = &*LAB else { return };
    let (here, there) = (Corner::new(lab, "here"), Corner::new(lab, "there"));
    here.run(&["uids", "set", "dunepro", "1234"]).exits(0);
    here.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    let exported = here.run(&["store", "export", "-"]).exits(0);
    assert!(exported.out.lines().count() > 10, "{exported:?}");
    let mut secrets = 0;
    for token in files_below(&here.path("tokens")).into_iter().filter(|path| path.is_file()) {
        let secret = fs::read_to_string(&token).expect("it is text");
        // The lock beside it is empty.
        if secret.trim().is_empty() {
            continue;
        }
        assert!(!exported.out.contains(secret.trim()), "{} is in the export", token.display());
        secrets += 1;
    }
    assert!(secrets > 0, "no token was kept");
    let file = there.path("export");
    fs::write(&file, &exported.out).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    there.run(&["store", "import", file.to_str().expect("text")]).exits(0);
    assert_eq!(run_ids(&there), run_ids(&here));
    let (a, b) = (here.show("latest"), there.show("latest"));
    assert_eq!((&a["id"], &a["machines"]), (&b["id"], &b["machines"]));
    there.run(&["store", "verify"]).exits(0);
    let refused = there.run(&["store", "import", file.to_str().expect("text")]).exits(1);
    assert!(refused.err.contains("MT0079") && refused.err.contains("--replace"), "{refused:?}");
    let other = here.run(&["store", "compact"]).exits(0);
    assert!(other.err.contains("B now"), "{other:?}");
    here.run(&["store", "verify"]).exits(0);
}
