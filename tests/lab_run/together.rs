//! Everything at once on one state directory: the hourly run, an onboarding, the refresh of the UIDs, and people who watch.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::corner::{Corner, step, wait_for};
use crate::{DUNE, LAB, MU2E};

const SHIPPED: &str = include_str!("../../workflows/token-push.ron");

fn machine<'v>(run: &'v Value, subject: &str) -> &'v Value {
    run["machines"].as_array().expect("machines").iter().find(|m| m["subject"] == subject).expect(subject)
}

fn newest(corner: &Corner) -> String {
    corner.runs()[0]["id"].as_str().expect("an id").to_owned()
}

#[test]
fn hourly_run_onboarding_refresh_and_watchers_go_on_at_once_and_each_service_has_one_owner() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "together");
    // The same workflow under the same leases, but it waits for others.
    let waiting = SHIPPED.replace("overlap: Skip", "overlap: Wait(\"2m\")").replace("\"token-push\"", "\"patient\"");
    assert!(waiting.contains("Wait(") && waiting.contains("patient"), "{waiting}");
    corner.workflow("patient", &waiting);
    let mut watch = corner.start(&["runs", "list", "--watch", "--output", "ndjson"]);
    let gate = corner.hold("rsync");

    let onboarding = corner.start(&["run", "token-push", "--onboard", "--push", "-s", MU2E]);
    wait_for("the onboarding's pushes", || corner.calls("rsync").len() == 2);
    let onboarding_id = newest(&corner);
    let hourly = corner.start(&["run", "token-push"]);
    wait_for("the hourly run's pushes of the other service", || corner.calls("rsync").len() == 4);
    let hourly_id = newest(&corner);
    let mut patient = corner.start(&["run", "patient", "-s", MU2E]);
    wait_for("the patient run", || newest(&corner) != hourly_id);
    let patient_id = newest(&corner);

    // Who works for accounts is in nobody's way; who finds every service held says so.
    corner.run(&["run", "ferry-refresh"]).exits(0);
    let none = corner.run(&["run", "token-push", "--new"]).exits(22);
    for id in [&onboarding_id, &hourly_id] {
        assert!(none.err.contains(&id[..8]), "{none:?}");
    }
    let skipped = corner.show("latest");
    assert_eq!(machine(&skipped, MU2E)["other_run"], json!(onboarding_id));
    assert_eq!(machine(&skipped, DUNE)["other_run"], json!(hourly_id));
    assert!(patient.is_running() && watch.is_running());
    assert_eq!(machine(&corner.show(&patient_id), MU2E)["status"], "pending");
    assert_eq!(corner.calls("rsync").len(), 4, "nobody else has pushed");

    gate.open();
    onboarding.end().exits(0);
    hourly.end().exits(0);
    patient.end().exits(0);
    let hourly = corner.show(&hourly_id);
    assert_eq!(machine(&hourly, DUNE)["status"], "succeeded");
    assert_eq!(
        (&machine(&hourly, MU2E)["status"], &machine(&hourly, MU2E)["other_run"]),
        (&json!("skipped"), &json!(onboarding_id))
    );
    for id in [&onboarding_id, &patient_id] {
        assert_eq!(machine(&corner.show(id), MU2E)["status"], "succeeded");
    }
    assert_eq!(corner.calls("rsync").len(), 6, "the patient run has pushed after the onboarding");
    // Nobody's records were lost: five runs, and the UIDs that the refresh has learned.
    assert_eq!(corner.runs().len(), 5);
    let uids = corner.run(&["uids", "list", "--output", "json"]).exits(0).json();
    assert!(uids["uids"].as_array().expect("uids").iter().all(|row| row["uid"].is_number()), "{uids}");

    watch.signal(Signal::SIGKILL);
    wait_for("the end of the watcher", || !watch.is_running());
    let seen = watch.end().out;
    assert!([&onboarding_id, &hourly_id].iter().all(|id| seen.contains(id.as_str())), "{seen}");
}

#[test]
fn who_waits_for_a_service_begins_when_the_children_of_its_dead_holder_are_gone() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "orphans");
    let (orphan, found) = (corner.path("calls/orphan"), corner.path("calls/found"));
    corner.workflow(
        "patient",
        r#"Workflow(name: "patient", for_each: Service, deadline: "5m", overlap: Wait("2m"),
            steps: [Step(name: "work", action: Exec(command: ["work"]), timeout: "2m")])"#,
    );
    // The first never ends. The second looks whether it lives: a dead one may wait to be collected.
    let (orphan_is, found_is) = (orphan.display(), found.display());
    corner.program(
        "work",
        &format!(
            "#!/bin/sh\n[ -e {orphan_is} ] || {{ echo $$ >{orphan_is}; sleep 1000; exit; }}\n\
             case $(cut -d' ' -f3 /proc/$(cat {orphan_is})/stat) in Z | X | '') echo gone ;; *) echo alive ;; esac >{found_is}\n"
        ),
    );
    let first = corner.start(&["run", "patient", "-s", DUNE]);
    wait_for("the first's child", || fs::read_to_string(&orphan).is_ok_and(|pid| pid.ends_with('\n')));
    let pids = corner.mt_pids();
    let second = corner.start(&["run", "patient", "-s", DUNE, "--new"]);
    wait_for("the second run", || corner.runs().len() == 2);
    // Stopped first, so that neither can do anything about the other's death.
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        pids.iter().for_each(|pid| kill(Pid::from_raw(*pid), signal).expect("it is there"));
    }
    second.end().exits(0);
    assert_eq!(fs::read_to_string(&found).expect("the second has looked"), "gone\n");
    drop(first);
    assert_eq!(corner.processes(), [""; 0]);
}

/// Has this process the store, or a place in line?
fn is_in_the_way(corner: &Corner, pid: Pid) -> bool {
    let inode = |lock| fs::metadata(corner.state().join(lock)).expect("a lock").ino();
    let ours = ["store.lock", "queue.lock"].map(|lock| format!(":{}", inode(lock)));
    let (locks, pid) = (fs::read_to_string("/proc/locks").expect("it can be read"), pid.to_string());
    // 1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF
    locks.lines().any(|line| {
        let has = |wanted: &dyn Fn(&str) -> bool| line.split_whitespace().any(wanted);
        has(&|word| word == pid) && has(&|word| ours.iter().any(|lock| word.ends_with(lock)))
    })
}

/// A child that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Stops it at a moment when it does not have the store, as almost all are.
fn stop_without_the_store(corner: &Corner, child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let send = |signal| kill(pid, signal).expect("it is our child");
    let is_stopped = || fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there").contains(") T ");
    wait_for("a moment without the store", || {
        send(Signal::SIGSTOP);
        wait_for("it to be stopped", is_stopped);
        let stays = !is_in_the_way(corner, pid);
        if !stays {
            send(Signal::SIGCONT);
        }
        stays
    });
}

#[test]
fn a_stopped_watcher_is_in_nobodys_way() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "watchers");
    corner.run(&["uids", "set", "mu2epro", "1235"]).exits(0);
    let gate = corner.hold("ping");
    let running = corner.start(&["run", "token-push", "-s", DUNE]);
    wait_for("both pings", || corner.calls("ping").len() == 2);
    let list: &[&str] = &["runs", "list", "--watch", "--output", "ndjson"];
    let watchers = [list, &["runs", "show", "--watch"]].map(|arguments| {
        let seen = corner.path(format!("seen-{}", arguments[1]));
        let watcher = corner.mt(arguments).stdout(File::create(&seen).expect("ours")).spawn().expect("lab/lab");
        wait_for("what it shows", || fs::metadata(&seen).is_ok_and(|seen| seen.len() > 0));
        Killed(watcher)
    });
    for watcher in &watchers {
        stop_without_the_store(&corner, &watcher.0);
    }
    let other = corner.run(&["run", "token-push", "--test", "-s", MU2E]).exits(0);
    assert!(!other.err.contains("not recorded"), "{other:?}");
    assert_eq!(corner.runs().len(), 2);
    gate.open();
    running.end();
}

#[test]
fn a_stopped_holder_of_the_store_costs_others_their_patience_and_not_the_work_and_a_dead_one_nothing() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "stopped");
    corner.run(&["uids", "set", "mu2epro", "1235"]).exits(0);
    let gate = corner.hold("ping");
    let holder = corner.start(&["run", "token-push", "-s", DUNE]);
    wait_for("both pings", || corner.calls("ping").len() == 2);
    let id = newest(&corner);
    let pids = corner.mt_pids();
    assert_eq!(pids.len(), 2, "a worker and its guardian");
    let send = |signal| pids.iter().for_each(|pid| kill(Pid::from_raw(*pid), signal).expect("it is there"));
    // Whoever looked last has given the store back to nobody. Let the worker have it in hand: it records an outcome.
    gate.open();
    let gate = corner.hold("rsync");
    wait_for("both pushes", || corner.calls("rsync").len() == 2);
    send(Signal::SIGSTOP);
    let reader = corner.run(&["runs", "list"]);
    assert_eq!(reader.code, Some(21), "{reader:?}");
    assert!(
        reader.err.contains("kill -CONT") && pids.iter().any(|pid| reader.err.contains(&pid.to_string())),
        "{reader:?}"
    );
    // Test mode does not come as far as the gate.
    let other = corner.run(&["run", "token-push", "--test", "-s", MU2E]).exits(21);
    assert!(other.err.contains("not recorded") && other.err.contains("1 service succeeded"), "{other:?}");

    send(Signal::SIGKILL);
    wait_for("their end", || corner.mt_pids().is_empty());
    drop(holder);
    // The lock has died with its holder; a start resumes what it left.
    assert_eq!(corner.show(&id)["status"], "interrupted");
    gate.open();
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    let run = corner.show("latest");
    assert_eq!((&run["id"], &run["status"]), (&json!(id), &json!("succeeded")));
    assert_eq!(step(&run, DUNE, "ping")["status"], "succeeded");
    assert_eq!(corner.processes(), [""; 0]);
}
