//! Metrics, as the laboratory's pushgateway has them after real runs.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;
use support::corner::{Corner, Ended, wait_for};
use support::lab::Lab;

mod support;

const DUNE: &str = "dune_production";
const MU2E: &str = "mu2e_production";

/// The value of every series of a job, by name and labels in the order in which the gateway gives them.
fn series(lab: &Lab, job: &str) -> BTreeMap<String, f64> {
    let page = lab.run(&["curl", "-sS", "-m", "20", "http://pushgateway.lab.test:9091/metrics"]);
    assert!(page.status.success(), "{}", String::from_utf8_lossy(&page.stderr));
    let page = String::from_utf8(page.stdout).expect("it is text");
    let mine = page.lines().filter(|line| line.contains(&format!("job=\"{job}\"")));
    mine.map(|line| {
        let (series, value) = line.rsplit_once(' ').expect("name and value");
        let short = series.replace("instance=\"\",", "").replace(&format!("job=\"{job}\""), "").replace("{,", "{");
        let short = short.replace(",,", ",").replace(",}", "}").replace("{}", "");
        (short.strip_prefix("managed_tokens_").unwrap_or(&short).to_owned(), value.parse().expect("a number"))
    })
    .collect()
}

fn of(series: &BTreeMap<String, f64>, service: &str) -> BTreeMap<String, f64> {
    let label = format!("service=\"{service}\"");
    series.iter().filter(|(name, _)| name.contains(&label)).map(|(name, value)| (name.clone(), *value)).collect()
}

/// What else is told of the run itself changes with every run.
fn names(series: &BTreeMap<String, f64>) -> Vec<&str> {
    series.keys().map(String::as_str).filter(|name| !name.starts_with("run_info")).collect()
}

fn corner<'a>(lab: &'a Lab, name: &str) -> Corner<'a> {
    let corner = Corner::new(lab, name);
    configure(&corner, name, |_| {});
    corner
}

/// Every corner has a job of its own.
fn configure(corner: &Corner<'_>, job: &str, change: impl FnOnce(&mut serde_json::Value)) {
    corner.configure(|config| {
        config["prometheus"]["jobname"] = job.into();
        change(config);
    });
}

/// The code of the one warning on stderr.
#[track_caller]
fn warns(ended: &Ended, code: &str) {
    assert!(ended.err.contains("WARN") && ended.err.contains(code), "{ended:?}");
}

#[test]
fn every_run_pushes_the_whole_set_of_what_is_configured() {
    let Some(lab) = Lab::up() else { return };
    let corner = corner(&lab, "whole");
    let with_credds = |config: &mut serde_json::Value| {
        config["experiments"]["dune"]["roles"]["production"]["tokenGetterOverride"] = "storeAndGetToken".into();
    };
    configure(&corner, "whole", with_credds);
    corner.run(&["run", "token-push"]).is_quiet();
    let all = series(&lab, "whole");
    assert_eq!(all["push_failure_time_seconds"], 0.0);
    for service in [DUNE, MU2E] {
        for node in ["node1.lab.test", "node2.lab.test"] {
            let pushed = all[&format!("last_token_push_timestamp{{node=\"{node}\",service=\"{service}\"}}")];
            assert!(pushed > 1.7e9, "{pushed}");
        }
        assert_eq!(all[&format!("current_setup_error_count{{service=\"{service}\"}}")], 0.0);
        let expires = all[&format!("token_expires_timestamp{{service=\"{service}\"}}")];
        assert!(expires > all[&format!("last_success_timestamp{{service=\"{service}\"}}")]);
    }
    assert!(
        all.contains_key(&format!("token_store_duration_seconds{{credd=\"schedd1.lab.test\",service=\"{DUNE}\"}}"))
    );
    assert_eq!(all["failed_services_push_count"], 0.0);
    assert_eq!(all["ping_duration_seconds_count{node=\"node1.lab.test\"}"], 2.0);
    for stage in ["setup", "getKerberosTickets", "getTokens", "storeAndGetTokens", "pingNodes", "pushTokens", "cleanup"]
    {
        let name = format!("stage_duration_seconds{{executable=\"token-push\",stage=\"{stage}\"}}");
        assert!(all[&name] >= 0.0, "{stage}");
    }
    let run = corner.runs()[0]["id"].as_str().expect("an id").to_owned();
    let info = |all: &BTreeMap<String, f64>| -> Vec<String> {
        all.keys().filter(|name| name.starts_with("run_info")).cloned().collect()
    };
    let [told] = &info(&all)[..] else { panic!("one run: {all:?}") };
    assert!(told.contains(&run) && told.contains("status=\"succeeded\""), "{told}");

    // One service alone: nothing of the other changes, and nothing is missing.
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    let one = series(&lab, "whole");
    assert_eq!(names(&one), names(&all));
    assert_eq!(of(&one, MU2E), of(&all, MU2E));
    let pushed = format!("last_token_push_timestamp{{node=\"node1.lab.test\",service=\"{DUNE}\"}}");
    assert!(one[&pushed] > all[&pushed]);

    // One that fails: what was last good stays, the failure is counted, and the other service is as it was.
    lab.fault("keytab-mu2epro", "wrong");
    corner.run(&["run", "token-push", "-s", MU2E]).exits(11);
    lab.fault("keytab-mu2epro", "ok");
    let failed = series(&lab, "whole");
    assert_eq!(names(&failed), names(&all));
    assert_eq!(of(&failed, DUNE), of(&one, DUNE));
    assert_eq!(failed[&format!("failed_kinit_count{{service=\"{MU2E}\"}}")], 1.0);
    assert_eq!(failed[&format!("current_setup_error_count{{service=\"{MU2E}\"}}")], 1.0);
    assert_eq!(failed["failed_services_push_count"], 1.0);
    let pushed = format!("last_token_push_timestamp{{node=\"node1.lab.test\",service=\"{MU2E}\"}}");
    assert_eq!(failed[&pushed], all[&pushed]);

    // The other job, with series of its own.
    corner.run(&["run", "ferry-refresh"]).exits(0);
    let daily = series(&lab, "whole");
    assert!(names(&failed).iter().all(|name| daily.contains_key(*name)), "nothing is lost");
    assert_eq!((of(&daily, DUNE), of(&daily, MU2E)), (of(&failed, DUNE), of(&failed, MU2E)));
    assert_eq!(daily["ferry_request_duration_seconds_count"], 2.0);
    assert_eq!(daily["ferry_request_error_count"], 0.0);
    assert!(daily["last_ferry_refresh"] > 1.7e9);
    for stage in ["getFERRYData", "refreshManagedTokensDB"] {
        let name = format!("stage_duration_seconds{{executable=\"refresh-uids-from-ferry\",stage=\"{stage}\"}}");
        assert!(daily.contains_key(&name), "{stage}");
    }

    // A test says nothing.
    corner.run(&["run", "token-push", "--test", "-s", MU2E]).exits(0);
    assert_eq!(series(&lab, "whole"), daily);

    // A run that cannot be recorded replaces what it knows and leaves the rest.
    let unusable = corner.path("managedTokens.json");
    let mut mt = corner.mt(&["run", "token-push"]);
    let ended: Ended = mt.env("MT_STATE_DIR", unusable).output().expect("lab/lab can be started").into();
    let ended = ended.exits(21);
    let unrecorded = series(&lab, "whole");
    assert!(unrecorded[&pushed] > failed[&pushed], "{ended:?}");
    let untold = format!("current_setup_error_count{{service=\"{MU2E}\"}}");
    assert_eq!(unrecorded.get(&untold), Some(&1.0), "nobody knows better");

    // What is no longer configured is gone, and what comes back is remembered.
    configure(&corner, "whole", |config| {
        with_credds(config);
        config["experiments"].as_object_mut().expect("a map").remove("mu2e");
        config["experiments"]["dune"]["roles"]["production"]["destinationNodes"] = "node1.lab.test".into();
    });
    corner.run(&["run", "token-push"]).is_quiet();
    let fewer = series(&lab, "whole");
    assert!(fewer.keys().all(|name| !name.contains("mu2e") && !name.contains("node2")), "{fewer:?}");
    assert!(of(&fewer, DUNE).len() > 10);
    configure(&corner, "whole", with_credds);
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    assert_eq!(of(&series(&lab, "whole"), MU2E), of(&failed, MU2E));
}

#[test]
fn a_gateway_that_is_paused_wrong_or_dead_costs_a_warning_and_nothing_else() {
    let Some(lab) = Lab::up() else { return };
    let corner = corner(&lab, "trouble");
    corner.run(&["run", "token-push"]).is_quiet();
    let before = series(&lab, "trouble");

    let host = |host: &str| configure(&corner, "trouble", |config| config["prometheus"]["host"] = host.into());
    // A TLS server, one that speaks ssh, one that takes no pushes, an address that is none.
    for (wrong, code) in [
        ("http://vault.lab.test:8200", "MT0192"),
        ("http://node1.lab.test:22", "MT0190"),
        ("http://pushgateway.lab.test:9091/api", "MT0192"),
        ("http://nowhere.lab.test", "MT0190"),
        ("ftp://pushgateway.lab.test", "MT0193"),
    ] {
        host(wrong);
        let ended = corner.run(&["run", "token-push", "-s", DUNE]).exits(0);
        assert_eq!(ended.err.lines().count(), 1, "{wrong}: {ended:?}");
        warns(&ended, code);
    }

    configure(&corner, "trouble", |_| {});
    lab.pause("pushgateway");
    let ended = corner.run(&["run", "token-push"]).exits(0);
    warns(&ended, "MT0191");
    assert_eq!(corner.runs()[0]["status"], "succeeded");
    lab.fault("keytab-mu2epro", "wrong");
    let ended = corner.run(&["run", "token-push"]).exits(10);
    warns(&ended, "MT0191");
    lab.fault("keytab-mu2epro", "ok");
    // A signal does not wait for it.
    let run = corner.start(&["run", "token-push", "-s", DUNE]);
    wait_for("the run to be over", || corner.runs()[0]["status"] == "succeeded" && corner.runs().len() == 9);
    run.signal(Signal::SIGTERM);
    let ended = run.end();
    assert_eq!(ended.code, Some(0), "the work was done: {ended:?}");

    // What could not be told comes with the next push.
    lab.resume("pushgateway");
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    let after = series(&lab, "trouble");
    assert_eq!(names(&after), names(&before));
    assert_eq!(after[&format!("failed_kinit_count{{service=\"{MU2E}\"}}")], 1.0);

    lab.kill("pushgateway");
    let ended = corner.run(&["run", "token-push"]).exits(0);
    warns(&ended, "MT0190");
    assert_eq!(corner.runs()[0]["status"], "succeeded");
}
