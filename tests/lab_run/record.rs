//! What a run leaves for people and programs to read.

use serde_json::{Value, json};

use crate::support::corner::{Corner, step};
use crate::{DUNE, LAB, MU2E, NODE1, NODE2};

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|entry| entry["name"].as_str().expect("a name")).collect()
}

/// RFC 3339, UTC.
#[track_caller]
fn time(value: &Value) -> jiff::Timestamp {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    assert!(text.ends_with('Z'), "{text}");
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn a_good_run_says_nothing_and_records_every_step_target_and_attempt() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "record");
    // The one with credds, the other without.
    corner.configure(|config| {
        config["experiments"]["dune"]["roles"]["production"]["tokenGetterOverride"] = "storeAndGetToken".into();
    });
    corner.run(&["run", "token-push"]).is_quiet();
    corner.run(&["run", "token-push", "-s", MU2E]).is_quiet();

    let list = corner.run(&["runs", "list", "--output", "json"]).exits(0).json();
    assert_eq!(list["schema_version"], 1);
    let runs = list["runs"].as_array().expect("a list");
    let [newest, first] = runs.as_slice() else { panic!("two runs: {list}") };
    for run in runs {
        assert_eq!((&run["workflow"], &run["status"]), (&json!("token-push"), &json!("succeeded")));
        assert!(time(&run["started_at"]) <= time(&run["ended_at"]));
        assert_eq!(run["id"].as_str().expect("an id").len(), 26);
    }
    assert!(time(&first["ended_at"]) <= time(&newest["started_at"]), "newest first");

    let shown = corner.run(&["runs", "show", first["id"].as_str().expect("an id"), "--output", "json"]).exits(0).json();
    assert_eq!(shown["schema_version"], 1);
    let run = &shown["run"];
    for same in ["id", "workflow", "status", "started_at", "ended_at"] {
        assert_eq!(run[same], first[same], "{same}");
    }
    assert_eq!(run["mode"], "normal");
    let sessions = run["sessions"].as_array().expect("sessions");
    assert_eq!((sessions.len(), &sessions[0]["end"]), (1, &json!("finished")));
    assert_eq!(names(&run["steps"]), ["notify"]);

    let machines = run["machines"].as_array().expect("machines");
    let subjects: Vec<_> = machines.iter().map(|m| (&m["subject"], &m["kind"], &m["status"])).collect();
    let (service, succeeded) = (json!("service"), json!("succeeded"));
    assert_eq!(subjects, [(&json!(DUNE), &service, &succeeded), (&json!(MU2E), &service, &succeeded)]);
    let every_step = ["kinit", "get-vault-token", "store-in-credd", "ping", "push"];
    let credds: &[&str] = &["schedd1.lab.test", "schedd2.lab.test"];
    let targets: [&[&str]; 5] = [&["-"], &["-"], credds, &[NODE1, NODE2], &[NODE1, NODE2]];
    for machine in machines {
        assert_eq!(names(&machine["steps"]), every_step);
    }
    for (name, targets) in every_step.into_iter().zip(targets) {
        let step = step(run, DUNE, name);
        assert_eq!((&step["status"], names(&step["targets"])), (&succeeded, targets.to_vec()), "{name}");
    }
    let left_out = step(run, MU2E, "store-in-credd");
    assert_eq!((&left_out["status"], &left_out["targets"]), (&json!("skipped"), &json!([])), "{left_out}");

    let run_wide = run["steps"].as_array().expect("run-wide steps").iter();
    let all = machines.iter().flat_map(|m| m["steps"].as_array().expect("steps")).chain(run_wide);
    for target in all.flat_map(|step| step["targets"].as_array().expect("targets")) {
        assert_eq!(target["status"], "succeeded");
        let attempts = target["attempts"].as_array().expect("attempts");
        assert_eq!(attempts.len(), 1, "{target}");
        assert!(time(&attempts[0]["started_at"]) <= time(&attempts[0]["ended_at"]));
        assert_eq!(attempts[0]["outcome"], "succeeded");
        for nothing in ["class", "code", "message"] {
            assert_eq!(attempts[0].get(nothing), Some(&Value::Null), "{target}");
        }
    }
    assert_eq!(
        corner.private_files(),
        [""; 0].map(std::path::PathBuf::from),
        "private directories go with their process"
    );
}

#[test]
fn the_newest_run_is_shown_without_being_named_and_any_by_the_beginning_of_its_id() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "latest");
    corner.run(&["runs", "show"]).exits(1);
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    corner.run(&["run", "token-push", "-s", MU2E]).is_quiet();
    let runs = corner.runs();
    let ids: Vec<&str> = runs.iter().map(|run| run["id"].as_str().expect("an id")).collect();
    assert_eq!(corner.show("latest")["id"], ids[0]);
    assert_eq!(corner.show(&ids[1][..ids[1].len() - 1])["id"], ids[1]);
    let of_dune = corner.run(&["runs", "show", "--service", DUNE, "--output", "json"]).exits(0).json();
    assert_eq!(of_dune["run"]["id"], ids[1]);
    corner.run(&["runs", "show", "01"]).exits(1);
}
