//! Going on with a run that failed. In a laboratory of its own, because of the faults.

use serde_json::{Value, json};

use crate::support::corner::{Corner, target};
use crate::support::lab::Lab;
use crate::{DUNE, MU2E, NODE1, NODE2};

const CREDD1: &str = "schedd1.lab.test";
const CREDD2: &str = "schedd2.lab.test";
const PROGRAMS: &[&str] = &["kinit", "htgettoken", "condor_vault_storer", "ping", "rsync"];

/// How often each of the programs was started by mt itself: the storer calls htgettoken, too.
fn calls(corner: &Corner) -> [usize; 5] {
    let own = |call: &String| !call.contains("/tmp/vt_mt");
    std::array::from_fn(|index| corner.calls(PROGRAMS[index]).iter().filter(|call| own(call)).count())
}

fn statuses(run: &Value, step: &str, names: [&str; 2]) -> [String; 2] {
    names.map(|name| target(run, DUNE, step, name)["status"].as_str().expect("a status").to_owned())
}

/// What `--explain` says, as (service, step, target, what).
fn explained(corner: &Corner, more: &[&str]) -> Vec<[String; 4]> {
    let said = corner.run(&[&["runs", "resume", "--explain", "--output", "json"], more].concat()).exits(0).json();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let decisions = said["decisions"].as_array().expect("decisions").iter();
    decisions
        .map(|d| {
            assert!(!text(&d["why"]).is_empty(), "{d}");
            [text(&d["subject"]), text(&d["step"]), text(&d["target"]), text(&d["what"])]
        })
        .collect()
}

#[test]
fn a_resume_redoes_what_failed_and_nothing_else_and_says_so_before() {
    let Some(lab) = Lab::up() else { return };
    let corner = Corner::new(&lab, "resume");
    corner.configure(|config| {
        config["experiments"]["dune"]["roles"]["production"]["tokenGetterOverride"] = "storeAndGetToken".into();
    });
    PROGRAMS.iter().for_each(|program| corner.spy(program, ""));
    lab.fault("schedd2", "denied");
    lab.fault("node2", "hostkey");

    let ended = corner.run(&["run", "token-push", "-s", DUNE]).exits(11);
    let failed = corner.show("latest");
    let id = failed["id"].as_str().expect("an id").to_owned();
    assert_eq!(failed["status"], "failed");
    assert_eq!(statuses(&failed, "store-in-credd", [CREDD1, CREDD2]), ["succeeded", "failed"]);
    assert_eq!(statuses(&failed, "push", [NODE1, NODE2]), ["succeeded", "needs-human"]);
    // Every failure is told with its code and its reason, where it is shown and at the end of the run.
    for (step, name) in [("store-in-credd", CREDD2), ("push", NODE2)] {
        let attempt = &target(&failed, DUNE, step, name)["attempts"][0];
        let (code, message) =
            (attempt["code"].as_str().expect("a code"), attempt["message"].as_str().expect("a message"));
        assert!(code.starts_with("MT0") && !message.is_empty(), "{attempt}");
        assert_eq!(attempt["outcome"], target(&failed, DUNE, step, name)["status"], "{attempt}");
        assert!(attempt["class"].is_string(), "{attempt}");
        assert!(ended.err.contains(&format!("{message} [{code}]")), "{message} is not in {}", ended.err);
    }
    assert_eq!(calls(&corner), [1, 1, 2, 2, 2]);

    // With everything mended, explained first.
    lab.fault("schedd2", "ok");
    lab.fault("node2", "ok");
    corner.forget_calls();
    let plan = explained(&corner, &[]);
    let plan: Vec<[&str; 3]> = plan.iter().map(|[_, step, target, what]| [step.as_str(), target, what]).collect();
    let expected = [
        ["kinit", "-", "redo"],
        ["get-vault-token", "-", "reuse"],
        ["store-in-credd", CREDD1, "reuse"],
        ["store-in-credd", CREDD2, "redo"],
        ["ping", NODE1, "reuse"],
        ["ping", NODE2, "reuse"],
        ["push", NODE1, "reuse"],
        ["push", NODE2, "redo"],
    ];
    assert_eq!(plan, expected);
    assert_eq!(calls(&corner), [0; 5], "--explain starts nothing");
    assert_eq!(corner.show(&id), failed, "and records nothing");

    corner.run(&["runs", "resume", &id[..10]]).is_quiet();
    assert_eq!(calls(&corner), [1, 0, 1, 0, 1]);
    assert!(corner.calls("rsync")[0].contains(NODE2), "{:?}", corner.calls("rsync"));
    let resumed = corner.show(&id);
    assert_eq!((&resumed["status"], resumed["sessions"].as_array().map(Vec::len)), (&json!("succeeded"), Some(2)));
    let attempts = target(&resumed, DUNE, "push", NODE2)["attempts"].as_array().expect("attempts").clone();
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0], target(&failed, DUNE, "push", NODE2)["attempts"][0], "the first failure is not lost");

    // Nothing is left to do.
    let refused = corner.run(&["runs", "resume", &id]).exits(1);
    assert!(refused.err.contains("nothing is left to do"), "{refused:?}");
    let none = corner.run(&["runs", "resume", "--failed"]).exits(0);
    assert!(none.err.contains("no run is left to resume"), "{none:?}");
    assert_eq!(corner.runs().len(), 1);

    a_lost_product_is_made_anew(&corner);
    services_leave_the_configuration(&corner);
}

/// A token that was replaced since, or removed, is got again, because push needs one.
fn a_lost_product_is_made_anew(corner: &Corner) {
    corner.lab.fault("node2", "hostkey");
    corner.run(&["run", "token-push", "-s", DUNE]).exits(11);
    corner.lab.fault("node2", "ok");
    let kept = corner.path(format!("tokens/vt_u{}-{DUNE}", corner.own_uid()));
    std::fs::remove_file(&kept).expect("it is kept");
    let plan = explained(corner, &["--failed"]);
    assert!(plan.contains(&[DUNE, "get-vault-token", "-", "redo"].map(str::to_owned)), "{plan:?}");
    corner.forget_calls();
    corner.run(&["runs", "resume", "--failed"]).is_quiet();
    assert_eq!(calls(corner), [1, 1, 0, 0, 1]);
    assert!(kept.exists());
}

/// What vanished from the configuration since is gone: neither success nor failure.
fn services_leave_the_configuration(corner: &Corner) {
    corner.lab.fault("node2", "hostkey");
    corner.run(&["run", "token-push"]).exits(11);
    corner.lab.fault("node2", "ok");
    corner.configure(|config| {
        config["experiments"].as_object_mut().expect("a map").remove("mu2e");
        config["experiments"]["dune"]["roles"]["production"]["destinationNodes"] = json!([NODE1]);
    });
    let plan = explained(corner, &[]);
    assert!(plan.contains(&[DUNE, "push", NODE2, "gone"].map(str::to_owned)), "{plan:?}");
    corner.forget_calls();
    corner.run(&["runs", "resume"]).is_quiet();
    assert_eq!(corner.calls("rsync"), [""; 0]);
    let run = corner.show("latest");
    assert_eq!(statuses(&run, "push", [NODE1, NODE2]), ["succeeded", "gone"]);
    let mu2e =
        run["machines"].as_array().expect("machines").iter().find(|m| m["subject"] == MU2E).expect("its machine");
    assert_eq!((&mu2e["status"], &run["status"]), (&json!("gone"), &json!("succeeded")));
}
