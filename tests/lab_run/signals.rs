//! Asked to stop in the middle, and what the next start makes of it.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::corner::{Corner, target, wait_for};
use crate::{DUNE, LAB, NODE1};

/// Starts a run of dune, lets it come to its pushes and ends it with this signal. Its id.
fn stopped_by(corner: &Corner, signal: Signal, code: i32, more: &[&str]) -> String {
    let gate = corner.hold("rsync");
    corner.forget_calls();
    let run = corner.start(&[&["run", "token-push", "-s", DUNE], more].concat());
    wait_for("both pushes", || corner.calls("rsync").len() == 2);
    assert!(!corner.private_files().is_empty(), "it has a private directory while it runs");
    run.signal(signal);
    let ended = run.end().exits(code);
    assert_eq!(corner.processes(), [""; 0], "no child outlives it");
    assert_eq!(corner.private_files(), [""; 0].map(std::path::PathBuf::from), "nor a file");
    drop(gate);
    let run = corner.show("latest");
    let id = run["id"].as_str().expect("an id").to_owned();
    assert_eq!(run["status"], "interrupted");
    assert_eq!(target(&run, DUNE, "push", NODE1)["attempts"][0]["outcome"], "interrupted");
    assert!(ended.err.contains(&format!("mt runs resume {}", &id[..8])), "it says how to go on: {ended:?}");
    id
}

#[test]
fn a_run_that_was_asked_to_stop_is_interrupted_and_the_next_start_goes_on_with_it() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "signals");
    let first = stopped_by(&corner, Signal::SIGTERM, 143, &[]);
    // The same run again, and interrupted again: a third session has to finish it.
    assert_eq!(stopped_by(&corner, Signal::SIGINT, 130, &[]), first);
    corner.spy("htgettoken", "");
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    let run = corner.show("latest");
    assert_eq!((&run["id"], &run["status"]), (&json!(first), &json!("succeeded")));
    let ends: Vec<_> = run["sessions"].as_array().expect("sessions").iter().map(|s| &s["end"]).collect();
    assert_eq!(ends, ["interrupted", "interrupted", "finished"]);
    let outcomes = target(&run, DUNE, "push", NODE1)["attempts"].as_array().expect("attempts");
    let outcomes: Vec<_> = outcomes.iter().map(|a| &a["outcome"]).collect();
    assert_eq!(outcomes, ["interrupted", "interrupted", "succeeded"], "the history is kept");
    assert_eq!(corner.calls("htgettoken"), [""; 0], "the kept token is reused");
    assert_eq!(corner.runs().len(), 1);
}

#[test]
fn a_start_resumes_only_the_newest_run_of_the_same_selection_and_mode_and_never_with_new() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "not-resumed");
    let first = stopped_by(&corner, Signal::SIGTERM, 143, &[]);
    corner.run(&["run", "token-push", "-s", DUNE, "--test"]).is_quiet();
    corner.run(&["run", "token-push", "-e", "dune"]).is_quiet();
    corner.run(&["run", "token-push", "-s", DUNE, "--new"]).is_quiet();
    let runs = corner.runs();
    assert_eq!(runs.len(), 4, "each was a run of its own: {runs:?}");
    assert_eq!((&runs[3]["id"], &runs[3]["status"]), (&json!(first), &json!("interrupted")), "it stays as it is");
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    assert_eq!(corner.runs().len(), 5, "a newer run of the same kind has overtaken it");
    // By its id it can still be finished; a newer run did its work.
    corner.run(&["runs", "resume", &first]).exits(0);
    assert_eq!(corner.show(&first)["status"], "superseded");
}
