//! A store that cannot be used: tokens are pushed all the same, and it is said loudly.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::corner::{Corner, Ended, files_below, wait_for};
use crate::{DUNE, LAB};

const NODES: [&str; 2] = ["node1", "node2"];

/// A corner whose pushes can be told from those of others: by a default role file of their own, which goes with the
/// token in one rsync. The UID is known to the store and to the file beside it alone.
fn corner<'a>(lab: &'a crate::support::lab::Lab, name: &str) -> Corner<'a> {
    let corner = Corner::new(lab, name);
    corner.configure(|config| {
        config["notifications"]["admin_email"] = admin(name).into();
        let role = &mut config["experiments"]["dune"]["roles"]["production"];
        role["defaultRoleFileDestinationTemplateOverride"] = format!("/tmp/{name}_{{{{.DesiredUID}}}}").into();
        role.as_object_mut().expect("a map").remove("desiredUIDOverride");
    });
    corner
}

fn admin(name: &str) -> String {
    format!("admin-{name}@example.org")
}

/// What the admins of the corner were told, without what breaks the lines of mails.
fn told(corner: &Corner, name: &str) -> Vec<String> {
    let mails = corner.lab.mails().into_iter().filter(|mail| mail.to == [admin(name)]);
    mails.map(|mail| mail.text.replace("=\r\n", "").replace("=\n", "").split_whitespace().collect()).collect()
}

fn pushed(corner: &Corner, name: &str) -> [PathBuf; 2] {
    NODES.map(|node| corner.lab.path(format!("nodes/{node}/tmp/{name}_1234")))
}

/// Runs dune; both nodes have got its token, and the exit code, the log and a mail say that nothing was recorded. `runtime`: what
/// stands in for the state directory; else /dev/shm does, which tests share.
#[track_caller]
fn pushes_unrecorded(corner: &Corner, name: &str, runtime: Option<&Path>) -> Ended {
    for path in pushed(corner, name) {
        let _ = fs::remove_file(path);
    }
    let before = told(corner, name).len();
    let mut mt = corner.mt(&["run", "token-push", "-s", DUNE]);
    if let Some(runtime) = runtime {
        mt.env("LAB_RUN_ENV_PASS", "XDG_RUNTIME_DIR").env("XDG_RUNTIME_DIR", runtime);
    }
    let ended = Ended::from(mt.output().expect("lab/lab can be started")).exits(21);
    for path in pushed(corner, name) {
        assert!(path.exists(), "{}: {ended:?}", path.display());
    }
    assert!(ended.err.contains("ERROR") && ended.err.contains("the store cannot be used"), "{ended:?}");
    assert!(ended.err.contains("1 service succeeded") && ended.err.contains("not recorded"), "{ended:?}");
    assert_eq!(corner.processes(), [""; 0]);
    let told = told(corner, name).split_off(before);
    assert!(told.len() == 1 && told[0].contains("thestorecannotbeused"), "the admins are told once: {told:?}");
    ended
}

#[test]
fn with_a_state_directory_that_cannot_be_written_tokens_are_pushed_and_the_exit_code_says_it() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "read-only");
    corner.run(&["uids", "set", "dunepro", "1234"]).exits(0);
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    let writable = |bits: u32| {
        for path in files_below(&corner.state()).into_iter().chain([corner.state()]) {
            let mode = if path.is_dir() { 0o500 } else { 0o400 } | bits;
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
        }
    };
    writable(0);
    let ended = pushes_unrecorded(&corner, "read-only", None);
    assert!(ended.err.contains(&*corner.state().to_string_lossy()), "it names the directory: {ended:?}");
    writable(0o200);
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    assert_eq!(corner.runs().len(), 2);
}

#[test]
fn without_a_place_for_private_files_in_the_state_directory_memory_stands_in_for_the_time_of_the_run() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "no-place");
    corner.run(&["uids", "set", "dunepro", "1234"]).exits(0);
    let (runtime, run) = (corner.path("runtime"), corner.state().join("run"));
    fs::create_dir(&runtime).expect("nothing is there yet");
    corner.give(&runtime);
    fs::remove_dir(&run).expect("no process is left in it");
    fs::write(&run, "in the way").expect("it can be written");
    pushes_unrecorded(&corner, "no-place", Some(&runtime));
    let stood_in = runtime.join(format!("mt-{}/run", corner.own_uid()));
    assert!(stood_in.is_dir(), "it was used");
    assert_eq!(files_below(&stood_in), [""; 0].map(PathBuf::from), "and nothing stays there");
    fs::remove_file(&run).expect("it is ours");
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    assert_eq!(corner.runs().len(), 1);
}

#[test]
fn what_a_killed_process_left_in_memory_is_cleared_by_the_next_one_wherever_that_is() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "left-in-memory");
    corner.run(&["uids", "set", "dunepro", "1234"]).exits(0);
    let (runtime, run) = (corner.path("runtime"), corner.state().join("run"));
    fs::create_dir(&runtime).expect("nothing is there yet");
    corner.give(&runtime);
    let mt = |words: &[&str]| {
        let mut mt = corner.mt(words);
        mt.env("LAB_RUN_ENV_PASS", "XDG_RUNTIME_DIR").env("XDG_RUNTIME_DIR", &runtime);
        mt.stdout(Stdio::null()).stderr(Stdio::null());
        mt
    };
    fs::remove_dir(&run).expect("no process is left in it");
    fs::write(&run, "in the way").expect("it can be written");
    let gate = corner.hold("rsync");
    let mut killed = mt(&["run", "token-push", "-s", DUNE]).spawn().expect("lab/lab can be started");
    wait_for("the pushes", || corner.calls("rsync").len() == NODES.len());
    // Stopped first, so that neither can do anything about the other's death.
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        corner.mt_pids().into_iter().for_each(|pid| kill(Pid::from_raw(pid), signal).expect("it is there"));
    }
    killed.wait().expect("it is our child");
    let stood_in = runtime.join(format!("mt-{}/run", corner.own_uid()));
    assert!(!files_below(&stood_in).is_empty(), "nobody was there to remove them");
    assert!(!corner.processes().is_empty(), "nor to end them");

    fs::remove_file(&run).expect("it is ours");
    // Nothing is to be resumed: that run could not be recorded.
    assert!(mt(&["runs", "resume"]).status().expect("lab/lab can be started").success());
    assert_eq!(files_below(&stood_in), [""; 0].map(PathBuf::from));
    assert_eq!(corner.processes(), [""; 0]);
    drop(gate);
}

#[test]
fn with_a_damaged_store_tokens_are_pushed_and_the_damage_stays_for_a_look() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "damaged");
    corner.run(&["uids", "set", "dunepro", "1234"]).exits(0);
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    let db = corner.state().join("store/db");
    let garbage = vec![0xa5; 20_000];
    fs::write(&db, &garbage).expect("it is ours");
    for _ in 0..2 {
        pushes_unrecorded(&corner, "damaged", None);
        assert!(fs::read(&db).expect("it stays where it is") == garbage);
    }
    corner.run(&["runs", "list"]).exits(21);
    corner.run(&["runs", "resume"]).exits(21);
}

/// Puts a small disk under the state directory, inside the laboratory. `false`: not to be had here.
fn small_disk(corner: &Corner) -> bool {
    let state = corner.state();
    let owner = corner.own_uid();
    let options = format!("size=24m,mode=0700,uid={owner}");
    let mut mount = corner.lab.tool("enter");
    let mounted = mount.args(["mount", "-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&state).output().expect("lab/lab");
    if !mounted.status.success() {
        // Not `eprintln`: what a test that succeeds prints is kept from people.
        let why = String::from_utf8_lossy(&mounted.stderr);
        writeln!(std::io::stderr(), "SKIPPED: no tmpfs can be mounted: {why}").expect("stderr is there");
    }
    mounted.status.success()
}

fn fill_disk(corner: &Corner) {
    let filler = corner.state().join("filler");
    let full = corner.lab.run(&["sh", "-c", &format!("cat /dev/zero >{}", filler.display())]);
    assert!(String::from_utf8_lossy(&full.stderr).contains("No space left"), "{full:?}");
}

#[test]
fn with_a_full_disk_under_the_state_directory_tokens_are_pushed_and_nothing_acknowledged_is_lost() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "full");
    if !small_disk(&corner) {
        return;
    }
    corner.run(&["uids", "set", "dunepro", "1234"]).exits(0);
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    let before = corner.show("latest");
    // What is left of the disk when a run has begun may do for that run's records or not: the pushes do not depend on it.
    let gate = corner.hold("rsync");
    let run = corner.start(&["run", "token-push", "-s", DUNE]);
    wait_for("both pushes", || corner.calls("rsync").len() == 2);
    fill_disk(&corner);
    gate.open();
    let ended = run.end();
    match ended.code {
        Some(0) => assert_eq!(ended.err, ""),
        Some(21) => {
            assert!(ended.err.contains("not recorded") && ended.err.contains("1 service succeeded"), "{ended:?}")
        }
        _ => panic!("{ended:?}"),
    }

    let ended = pushes_unrecorded(&corner, "full", None);
    assert!(ended.err.contains("free"), "it says what is wrong: {ended:?}");
    assert!(lab.run(&["rm", &corner.state().join("filler").to_string_lossy()]).status.success());
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    assert_eq!(corner.show("latest")["status"], "succeeded");
    assert_eq!(corner.show(before["id"].as_str().expect("an id")), before);
}
