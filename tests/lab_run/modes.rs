//! What `mt run` is asked for: which services, and how far.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::corner::{Corner, Ended, STARTED, files_below, step};
use crate::{DUNE, LAB, MU2E};

fn calls_of_all(corner: &Corner) -> BTreeMap<&'static str, usize> {
    let calls = STARTED.iter().map(|program| (*program, corner.calls(program).len()));
    calls.filter(|(_, calls)| *calls > 0).collect()
}

#[track_caller]
fn statuses<'v>(run: &'v Value, subject: &str) -> Vec<&'v str> {
    let steps = ["kinit", "get-vault-token", "store-in-credd", "ping", "push"];
    steps.iter().map(|name| step(run, subject, name)["status"].as_str().expect("a status")).collect()
}

#[test]
fn test_mode_and_onboarding_get_the_tokens_and_start_neither_rsync_nor_ssh() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "no-node");
    STARTED.iter().for_each(|program| corner.spy(program, ""));

    corner.run(&["run", "token-push", "--test"]).is_quiet();
    let run = corner.show("latest");
    assert_eq!(run["mode"], "test");
    for subject in [DUNE, MU2E] {
        assert_eq!(statuses(&run, subject), ["succeeded", "succeeded", "skipped", "skipped", "skipped"]);
    }
    corner.run(&["run", "token-push", "--onboard", "-s", DUNE]).exits(0);
    let run = corner.show("latest");
    assert_eq!((run["mode"].as_str(), run["machines"].as_array().map(Vec::len)), (Some("onboard"), Some(1)));
    assert_eq!(statuses(&run, DUNE), ["succeeded", "succeeded", "skipped", "skipped", "skipped"]);
    assert_eq!(corner.calls("htgettoken").len(), 3);
    for untouched in ["ping", "rsync", "ssh"] {
        assert_eq!(corner.calls(untouched), [""; 0], "{untouched}");
    }

    // The same with --push does start them: the wrappers do see.
    corner.run(&["run", "token-push", "--onboard", "--push", "-s", DUNE]).exits(0);
    assert_eq!((corner.calls("rsync").len(), corner.calls("ssh").len()), (2, 2), "one connection for each node");
}

#[test]
fn onboarding_is_for_exactly_one_service() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "onboard");
    let refused = |more: &[&str]| {
        let ended = corner.run(&[&["run", "token-push"], more].concat()).exits(2);
        assert!(ended.err.contains("--onboard"), "{ended:?}");
    };
    refused(&["--onboard"]);
    refused(&["--onboard", "-e", "dune"]);
    refused(&["--onboard", "-s", DUNE, "-s", MU2E]);
    refused(&["--onboard", "--test", "-s", DUNE]);
    refused(&["--push", "-s", DUNE]);
    assert_eq!(files_below(&corner.state()), [""; 0].map(PathBuf::from));
}

#[test]
fn a_dry_run_starts_nothing_and_writes_nothing() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "dry");
    corner.configure(|config| {
        config["experiments"]["dune"]["roles"]["production"]["tokenGetterOverride"] = "storeAndGetToken".into();
    });
    STARTED.iter().for_each(|program| corner.spy(program, ""));
    std::fs::remove_dir(corner.state()).expect("it is empty");
    let before = files_below(&corner.path(""));

    let said = corner.run(&["run", "token-push", "--dry-run"]).exits(0);
    for word in [DUNE, MU2E, "get-vault-token", "node1.lab.test", "collector.lab.test", "Nothing was started"] {
        assert!(said.out.contains(word), "{word}: {}", said.out);
    }
    assert_eq!(said.err, "");
    assert_eq!(files_below(&corner.path("")), before);
    assert_eq!(calls_of_all(&corner), BTreeMap::new());
}

/// The services a dry run would work for.
fn would_work_for(ended: Ended) -> Vec<String> {
    let plan = ended.exits(0).json();
    let mut services: Vec<String> = plan["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .map(|step| step["service"].as_str().expect("a service").to_owned())
        .collect();
    services.dedup();
    services
}

#[test]
fn services_and_experiments_are_selected_and_one_that_is_unknown_is_wrong_usage() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "select");
    let selects = |more: &[&str]| {
        would_work_for(corner.run(&[&["run", "token-push", "--dry-run", "--output", "json"], more].concat()))
    };
    assert_eq!(selects(&[]), [DUNE, MU2E]);
    assert_eq!(selects(&["-s", MU2E]), [MU2E]);
    assert_eq!(selects(&["-e", "dune"]), [DUNE]);
    assert_eq!(selects(&["-s", MU2E, "-s", DUNE]), [DUNE, MU2E]);
    assert_eq!(selects(&["-s", "DUNE_Production"]), [DUNE], "as in the configuration, case does not matter");
    for (wrong, near) in [(["-s", "dune_prodution"], DUNE), (["-e", "duen"], "dune")] {
        let ended = corner.run(&[&["run", "token-push"], &wrong[..]].concat()).exits(2);
        assert!(ended.err.contains(wrong[1]), "{ended:?}");
        assert!(ended.err.contains(near), "it names the nearest: {ended:?}");
    }
    let ended = corner.run(&["run", "token-psh"]).exits(20);
    assert!(ended.err.contains("token-push"), "it names the nearest: {ended:?}");
    assert_eq!(files_below(&corner.state()), [""; 0].map(PathBuf::from));

    corner.run(&["run", "token-push", "-e", "mu2e"]).is_quiet();
    let run = corner.show("latest");
    let subjects: Vec<_> = run["machines"].as_array().expect("machines").iter().map(|m| &m["subject"]).collect();
    assert_eq!(subjects, [MU2E]);
}

/// `mt` as root in the corner.
fn as_root(corner: &Corner, arguments: &[&str]) -> Ended {
    let mut command: Command = corner.lab.tool("enter");
    let mt = corner.lab.path("bin/mt");
    command.arg(mt).args(arguments);
    command
        .env("MT_CONFIG", corner.path("managedTokens.json"))
        .env("MT_STATE_DIR", corner.state())
        .env("MT_WORKFLOW_DIR", corner.path("workflows"));
    command.output().expect("lab/lab can be started").into()
}

#[test]
fn root_is_refused_with_the_account_to_use_and_may_still_check_a_workflow() {
    let Some(lab) = &*LAB else { return };
    if !lab.has_own_accounts() {
        eprintln!("SKIPPED: only root can try what root may not do");
        return;
    }
    let corner = Corner::new(lab, "root");
    let before = files_below(&corner.path(""));
    for refused in [
        &["run", "token-push"][..],
        &["run", "ferry-refresh"],
        &["runs", "list"],
        &["runs", "show"],
        &["runs", "resume"],
        &["runs", "cancel", "latest"],
        &["runs", "prune"],
        &["uids", "list"],
        &["uids", "set", "dunepro", "1"],
        &["counters", "list"],
        &["counters", "reset", DUNE],
        &["store", "verify"],
        &["store", "export", "-"],
        &["store", "import", "--empty"],
        &["store", "compact"],
    ] {
        let ended = as_root(&corner, refused).exits(1);
        assert!(ended.err.contains("runuser -u mtlab -- mt"), "{refused:?}: {ended:?}");
        assert_eq!(ended.out, "");
    }
    as_root(&corner, &["workflow", "check", "token-push"]).exits(0);
    as_root(&corner, &["workflow", "list"]).exits(0);
    as_root(&corner, &["config", "check"]).exits(0);
    as_root(&corner, &["explain", "MT0001"]).exits(0);
    assert_eq!(files_below(&corner.path("")), before, "root leaves nothing behind");
    assert!(!Path::new("/dev/shm/mt-0").exists());
}
