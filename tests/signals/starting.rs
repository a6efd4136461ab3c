//! Signals before the work begins.

use std::fs::{self, File};

use nix::sys::signal::Signal;

use crate::case::{Run, Shot};
use crate::held::{UIDS_LOCK, is_open};
use crate::support::corner::{Corner, wait_for};
use crate::{DUNE, LAB};

const OWN: &str = r#"Workflow(name: "own", for_each: Service, deadline: "5m", steps: [Step(name: "first", action: Exec(command: ["true"]), timeout: "1m")])"#;

#[test]
fn a_signal_that_comes_in_line_for_the_store_ends_the_run_before_it_begins() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "in-line");
    corner.workflow("own", OWN);
    let words = ["run", "own", "-s", DUNE];
    corner.run(&words).exits(0);
    let queue = corner.state().join("queue.lock");
    let shots = [
        (Shot::Sent(Signal::SIGINT), 130),
        (Shot::CtrlC, 130),
        (Shot::Sent(Signal::SIGTERM), 143),
        (Shot::Sent(Signal::SIGHUP), 143),
        (Shot::TerminalClosed, 143),
        (Shot::KillWorker, 137),
        (Shot::KillGuardian, 137),
        (Shot::KillBoth, 137),
    ];
    for (shot, code) in shots {
        let before_us = File::open(&queue).expect("it is there");
        before_us.lock().expect("nobody has it");
        let mut run = Run::start(&corner, &words, shot);
        wait_for("somebody in line", || is_open(&corner, &queue));
        run.shoot(shot);
        // It is not given the store, and does not go on without it.
        if let Shot::Sent(_) = shot {
            let said = run.said();
            assert!(said.contains("nothing was done"), "{shot:?}: {said}");
        }
        assert_eq!(run.end(), code, "{shot:?}");
        drop(before_us);
        // A worker whose guardian was killed ends by itself.
        wait_for("the end of all processes", || corner.processes().is_empty());
        // Of whoever could not clear up the next start removes what is left.
        let cleared = shot != Shot::KillBoth;
        assert!(!cleared || corner.private_files().is_empty(), "{shot:?}: {:?}", corner.private_files());
        assert_eq!(corner.runs().len(), 1, "{shot:?}");
    }
    corner.run(&words).exits(0);
    assert_eq!(corner.private_files(), [""; 0].map(std::path::PathBuf::from));
    assert_eq!(corner.runs().len(), 2);
}

#[test]
fn a_signal_that_comes_while_store_and_uids_are_compared_ends_the_run_before_it_begins() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "comparing");
    corner.workflow("own", OWN);
    let words = ["run", "own", "-s", DUNE];
    corner.run(&["uids", "set", "dunepro", "1234"]).exits(0);
    let (uids, lock) = (corner.state().join("uids.json"), corner.state().join(UIDS_LOCK));
    for (shot, code) in [(Shot::Sent(Signal::SIGTERM), 143), (Shot::CtrlC, 130)] {
        // They differ, and it is another process's turn to change that.
        fs::write(&uids, "{}").expect("it can be written");
        let before_us = File::open(&lock).expect("it is there");
        before_us.lock().expect("nobody has it");
        let mut run = Run::start(&corner, &words, shot);
        wait_for("whoever waits for its turn", || is_open(&corner, &lock));
        run.shoot(shot);
        assert_eq!(run.end(), code, "{shot:?}");
        drop(before_us);
        wait_for("the end of all processes", || corner.processes().is_empty());
        assert_eq!(corner.runs().len(), 0, "{shot:?}: it did not begin");
    }
    corner.run(&words).exits(0);
    let uids = fs::read_to_string(uids).expect("it is there");
    assert!(uids.contains("1234"), "{uids}");
}
