//! Several `mt` at once: who works, who waits for nobody, who only reads.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::corner::{Corner, Gate, Started, step, target, wait_for};
use crate::{DUNE, LAB, MU2E, NODE1};

/// A run of dune that waits with both its rsyncs started, and its id.
fn held_run(corner: &Corner) -> (Started, Gate, String) {
    let gate = corner.hold("rsync");
    let run = corner.start(&["run", "token-push", "-s", DUNE]);
    wait_for("both pushes", || corner.calls("rsync").len() == 2);
    let id = corner.runs()[0]["id"].as_str().expect("an id").to_owned();
    (run, gate, id)
}

#[test]
fn of_two_runs_of_one_service_the_second_is_skipped_and_names_the_first_and_other_services_go_on() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "overlap");
    let (mut first, gate, first_id) = held_run(&corner);

    let second = corner.run(&["run", "token-push", "-s", DUNE]).exits(22);
    assert!(second.err.contains(&first_id[..8]), "it names the run that holds the service: {second:?}");
    let second = corner.show("latest");
    assert_eq!(second["status"], "skipped");
    assert_eq!(
        (&second["machines"][0]["status"], &second["machines"][0]["other_run"]),
        (&json!("skipped"), &json!(first_id))
    );
    assert_eq!(corner.calls("rsync").len(), 2, "the second pushed nothing");

    // Another service goes side by side; test mode does not come as far as the gate.
    corner.run(&["run", "token-push", "-s", MU2E, "--test"]).is_quiet();
    assert!(first.is_running());
    gate.open();
    let (other, first) = (corner.start(&["run", "token-push", "-s", MU2E]), first.end());
    first.exits(0);
    other.end().is_quiet();
    assert_eq!(corner.show(&first_id)["status"], "succeeded");
}

#[test]
fn of_all_services_those_that_another_run_holds_are_skipped_and_the_rest_is_done() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "partly-held");
    let (first, gate, first_id) = held_run(&corner);
    // Its own two pushes wait at the same gate.
    let all = corner.start(&["run", "token-push"]);
    wait_for("the pushes of the other service", || corner.calls("rsync").len() == 4);
    gate.open();
    all.end().exits(0);
    first.end().is_quiet();
    let all = corner.show("latest");
    let of = |subject| {
        all["machines"].as_array().expect("machines").iter().find(|m| m["subject"] == subject).expect(subject)
    };
    assert_eq!((&of(DUNE)["status"], &of(DUNE)["other_run"]), (&json!("skipped"), &json!(first_id)));
    assert_eq!(of(MU2E)["status"], "succeeded");
}

#[test]
fn a_run_that_goes_on_is_listed_and_shown_with_what_it_has_done_so_far() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "reading");
    let (run, gate, id) = held_run(&corner);
    let listed = &corner.runs()[0];
    assert_eq!((&listed["status"], &listed["ended_at"]), (&json!("running"), &json!(null)));
    let shown = corner.show("latest");
    assert_eq!((&shown["status"], &shown["ended_at"]), (&json!("running"), &json!(null)));
    assert_eq!(step(&shown, DUNE, "get-vault-token")["status"], "succeeded");
    let attempt = &target(&shown, DUNE, "push", NODE1)["attempts"][0];
    assert_eq!((&attempt["ended_at"], &attempt["outcome"]), (&json!(null), &json!(null)), "{attempt}");
    let events = corner.run(&["runs", "show", &id, "--events", "--output", "ndjson"]).exits(0);
    let begun = events.out.lines().filter(|line| line.contains("attempt-started") && line.contains("\"push\"")).count();
    assert_eq!(begun, 2, "{}", events.out);
    let said = corner.run(&["runs", "show"]).exits(0);
    assert!(said.out.contains("running"), "{}", said.out);
    gate.open();
    run.end().is_quiet();
    assert_eq!(corner.show(&id)["status"], "succeeded");
}

#[test]
fn a_live_run_that_is_cancelled_ends_its_children_and_is_cancelled_for_good() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "cancel");
    let (run, gate, id) = held_run(&corner);
    corner.run(&["runs", "cancel", &id]).exits(0);
    let ended = run.end();
    assert_eq!(ended.code, Some(11), "none of its services came to an end: {ended:?}");
    assert!(ended.err.contains("cancelled"), "{ended:?}");
    assert_eq!(corner.processes(), [""; 0]);
    assert_eq!(corner.show(&id)["status"], "cancelled");
    gate.open();

    let refused = corner.run(&["runs", "resume", &id]).exits(1);
    assert!(refused.err.contains("cancelled"), "{refused:?}");
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    assert_ne!(corner.runs()[0]["id"], json!(id), "a start does not resume it");
}

#[test]
fn an_interrupted_run_can_be_cancelled_and_is_not_resumed_then() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "cancel-dead");
    let (run, gate, id) = held_run(&corner);
    run.signal(Signal::SIGTERM);
    run.end().exits(143);
    gate.open();
    corner.run(&["runs", "cancel", &id[..12]]).exits(0);
    assert_eq!(corner.show(&id)["status"], "cancelled");
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    assert_ne!(corner.runs()[0]["id"], json!(id));
}
