//! ferry-refresh against the laboratory's FERRY: who we are to it, what it may answer, what becomes of the answer.
//!
//! FERRY's faults and the mails are everybody's, so these tests take turns in one laboratory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use support::corner::{Corner, files_below, wait_for};
use support::lab::{Lab, Mail};

#[path = "../support/mod.rs"]
mod support;

mod takeover;

/// It goes down with the test process, which a watcher outside sees to.
static LAB: LazyLock<Option<Mutex<Lab>>> = LazyLock::new(|| Lab::up().map(Mutex::new));

const REFRESH: &[&str] = &["run", "ferry-refresh"];
const DUNE_ONLY: &[&str] = &["run", "ferry-refresh", "-s", "dune_production"];
const SHIPPED: &str = include_str!("../../workflows/ferry-refresh.ron");

/// The laboratory for this test alone, with a FERRY that works.
fn lab() -> Option<MutexGuard<'static, Lab>> {
    // A test that failed has left it usable.
    let lab = LAB.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
    lab.fault("ferry", "ok");
    ferry_says(&lab, json!({"dunepro": {"uid": 1234}, "mu2epro": {"uid": 1235}}));
    Some(lab)
}

/// What FERRY knows from now on.
fn ferry_says(lab: &Lab, users: Value) {
    let new = lab.path("ferry_users.json.new");
    fs::write(&new, users.to_string()).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(new, lab.path("ferry_users.json")).unwrap();
}

/// A corner in which only FERRY knows the UIDs.
fn corner<'a>(lab: &'a Lab, name: &str) -> Corner<'a> {
    let corner = Corner::new(lab, name);
    with_ferry(&corner, |_| {});
    corner
}

/// The corner's configuration without UIDs, and with this change of `ferry`.
fn with_ferry(corner: &Corner, change: impl FnOnce(&mut Value)) {
    corner.configure(|config| {
        for experiment in config["experiments"].as_object_mut().unwrap().values_mut() {
            experiment["roles"]["production"].as_object_mut().unwrap().remove("desiredUIDOverride");
        }
        change(&mut config["ferry"]);
    });
}

/// One try is enough where the answer stays the same.
fn without_retries(corner: &Corner) {
    let text = SHIPPED.replace("retry: Retry(times: 1, backoff: (\"2s\", \"2s\")),", "");
    assert_ne!(text, SHIPPED);
    corner.workflow("ferry-refresh", &text);
}

/// The UIDs in the store.
fn uids(corner: &Corner) -> Vec<(String, Option<u64>)> {
    let listed = corner.run(&["uids", "list", "--output", "json"]).exits(0).json();
    let rows = listed["uids"].as_array().unwrap().iter();
    rows.map(|row| (row["account"].as_str().unwrap().to_owned(), row["uid"].as_u64())).collect()
}

fn known(dune: u64, mu2e: u64) -> Vec<(String, Option<u64>)> {
    vec![("dunepro".to_owned(), Some(dune)), ("mu2epro".to_owned(), Some(mu2e))]
}

fn beside(corner: &Corner) -> Value {
    serde_json::from_str(&fs::read_to_string(corner.state().join("uids.json")).unwrap()).unwrap()
}

/// What FERRY was asked since it was asked so often.
fn asked(lab: &Lab, before: usize) -> Vec<Value> {
    let lines = fs::read_to_string(lab.path("out/ferry.jsonl")).unwrap_or_default();
    lines.lines().skip(before).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The machine of an account in a run.
fn machine<'a>(run: &'a Value, account: &str) -> &'a Value {
    let machines = run["machines"].as_array().unwrap();
    machines.iter().find(|machine| machine["subject"] == account).unwrap_or_else(|| panic!("{account} in {run:#}"))
}

/// The last attempt of a step.
fn attempt<'a>(machine: &'a Value, step: &str) -> &'a Value {
    let step = machine["steps"].as_array().unwrap().iter().find(|found| found["name"] == step).unwrap();
    step["targets"][0]["attempts"].as_array().and_then(|attempts| attempts.last()).unwrap_or(&Value::Null)
}

/// The mails that have come since there were so many.
fn mails(lab: &Lab, before: usize) -> Vec<Mail> {
    let unfolded = |mail: Mail| Mail { text: mail.text.replace("=\r\n", "").replace("\r\n ", " "), ..mail };
    lab.mails().into_iter().skip(before).map(unfolded).collect()
}

#[test]
fn the_client_certificate_opens_ferry_and_the_uids_are_kept_twice() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "tls");
    let before = asked(&lab, 0).len();
    corner.run(REFRESH).is_quiet();
    assert_eq!(uids(&corner), known(1234, 1235));
    assert_eq!(beside(&corner), json!({"dunepro": 1234, "mu2epro": 1235}));
    let asked = asked(&lab, before);
    assert_eq!(asked.len(), 2);
    for question in asked {
        assert!(question["subject"].as_str().unwrap().contains("managed-tokens.lab.test"), "{question}");
        assert_eq!(question["bearer"], false);
    }
    let run = corner.show("latest");
    assert_eq!(run["status"], "succeeded", "{run:#}");
    assert!(corner.run(&["run", "token-push", "-s", "dune_production"]).exits(0).err.is_empty());
}

#[test]
fn a_token_opens_ferry_too_and_one_serves_all_accounts() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "jwt");
    with_ferry(&corner, |ferry| {
        ferry.as_object_mut().unwrap().remove("hostCert");
        ferry.as_object_mut().unwrap().remove("hostKey");
    });
    let options = corner.path("calls/options");
    corner.spy("kinit", "");
    corner.spy("htgettoken", &format!("printf '%s\\n' \"$HTGETTOKENOPTS\" >>{}", options.display()));
    let before = asked(&lab, 0).len();
    corner.run(&[REFRESH, &["--authmethod", "jwt"]].concat()).is_quiet();
    assert_eq!(uids(&corner), known(1234, 1235));
    let asked = asked(&lab, before);
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|question| question["subject"].is_null() && question["bearer"] == true), "{asked:?}");
    assert_eq!((corner.calls("kinit").len(), corner.calls("htgettoken").len()), (1, 1));
    let htgettoken = &corner.calls("htgettoken")[0];
    assert!(htgettoken.starts_with("-a vault.lab.test -i fermilab -r admin "), "{htgettoken}");
    assert_eq!(fs::read_to_string(options).unwrap(), "--credkey=fermiadm/managedtokens/lab.test\n");
    let kept: Vec<_> = files_below(&corner.state()).into_iter().filter(|path| path.is_file()).collect();
    assert!(!kept.is_empty());
    for path in kept {
        let text = fs::read(&path).unwrap();
        assert!(!text.windows(4).any(|window| window == b"eyJh"), "a token is in {}", path.display());
    }
}

#[test]
fn a_token_that_nobody_has_signed_opens_nothing() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "forged");
    let token = fs::read_to_string(lab.path("jwt/fermilab_admin.jwt")).unwrap();
    let (signed, signature) = token.trim().rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    let find = "while [ $# -gt 1 ]; do [ \"$1\" = -o ] && file=$2; shift; done";
    corner.program("htgettoken", &format!("#!/bin/sh\n{find}\numask 077\nprintf '%s\\n' '{forged}' >$file\n"));
    corner.run(&[DUNE_ONLY, &["--authmethod", "jwt"]].concat()).exits(11);
    let run = corner.show("latest");
    let failed = attempt(machine(&run, "dunepro"), "fetch-uid");
    assert_eq!((&failed["code"], &failed["class"]), (&json!("MT0174"), &json!("permanent")), "{failed}");
    assert!(!run.to_string().contains(signature));
}

#[test]
fn a_kdc_that_does_not_know_us_is_asked_once_for_all_accounts() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "nokey");
    let stranger = lab.path("keytabs/stranger.keytab");
    with_ferry(&corner, |ferry| ferry["serviceKeytabPath"] = stranger.to_str().into());
    corner.spy("kinit", "");
    corner.run(&[REFRESH, &["--authmethod", "jwt"]].concat()).exits(11);
    let run = corner.show("latest");
    for account in ["dunepro", "mu2epro"] {
        assert_eq!(attempt(machine(&run, account), "fetch-uid")["code"], "MT0022", "{run:#}");
    }
    assert_eq!(corner.calls("kinit").len(), 1);
}

#[test]
fn whatever_ferry_answers_wrongly_fails_the_account_and_leaves_the_stored_uid() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "answers");
    corner.run(DUNE_ONLY).is_quiet();
    without_retries(&corner);
    let success =
        |output: &str| format!(r#"raw {{"ferry_status":"success","ferry_error":[],"ferry_output":{output}}}"#);
    let answers = [
        ("status 503".to_owned(), "MT0176", "transient", "503"),
        ("status 404".to_owned(), "MT0176", "permanent", "404"),
        ("status 403".to_owned(), "MT0174", "permanent", "ferry.hostCert"),
        // A redirection is not followed.
        ("status 302".to_owned(), "MT0176", "permanent", "302"),
        ("raw <html>".to_owned(), "MT0177", "transient", "is not FERRY: a page of HTML"),
        (r#"raw {"ferry_status":"succ"#.to_owned(), "MT0177", "transient", "cannot be read"),
        (
            r#"raw {"ferry_status":"failure","ferry_error":["no such thing"]}"#.to_owned(),
            "MT0178",
            "permanent",
            "no such thing",
        ),
        (success("{}"), "MT0179", "permanent", "missing"),
        (success(r#"{"uid":0}"#), "MT0179", "permanent", "is 0"),
        (success(r#"{"uid":-5}"#), "MT0179", "permanent", "-5"),
        (success(r#"{"uid":4294967296}"#), "MT0179", "permanent", "too large"),
    ];
    for (fault, code, class, word) in &answers {
        lab.fault("ferry", fault);
        let ended = corner.run(&[DUNE_ONLY, &["--no-notify"]].concat()).exits(11);
        assert!(ended.err.contains(code) && ended.err.contains(word), "{fault}: {ended:?}");
        let run = corner.show("latest");
        assert_eq!(run["status"], "failed", "{fault}");
        let failed = attempt(machine(&run, "dunepro"), "fetch-uid");
        assert_eq!(
            (failed["code"].as_str(), failed["class"].as_str()),
            (Some(*code), Some(*class)),
            "{fault}: {failed}"
        );
        assert_eq!(beside(&corner), json!({"dunepro": 1234}), "{fault}");
    }
    lab.fault("ferry", "ok");
    assert_eq!(uids(&corner)[0], ("dunepro".to_owned(), Some(1234)));
}

#[test]
fn a_ferry_that_does_not_answer_costs_the_configured_time() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "hang");
    without_retries(&corner);
    corner.configure(|config| config["timeouts"]["ferryRequestTimeout"] = "1s".into());
    lab.fault("ferry", "hang 60");
    corner.run(DUNE_ONLY).exits(11);
    let failed = corner.show("latest");
    let failed = attempt(machine(&failed, "dunepro"), "fetch-uid");
    assert_eq!((&failed["code"], &failed["class"]), (&json!("MT0172"), &json!("timeout")), "{failed}");
    assert!(failed["next"].as_str().unwrap().contains("ferryRequestTimeout"), "{failed}");
}

#[test]
fn a_passing_fault_is_tried_again() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "retry");
    lab.fault("ferry", "status 503");
    let before = asked(&lab, 0).len();
    let running = corner.start(DUNE_ONLY);
    wait_for("the first question", || asked(&lab, before).len() == 1);
    lab.fault("ferry", "ok");
    running.end().exits(0);
    assert_eq!(asked(&lab, before).len(), 2);
    assert_eq!(beside(&corner), json!({"dunepro": 1234}));
}

#[test]
fn certificates_that_do_not_fit_are_named() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "certificates");
    let own = |name: &str| corner.path(name).to_str().unwrap().to_owned();
    // One that nobody knows, and a directory of authorities with nobody in it whom FERRY's certificate is from.
    fs::create_dir(corner.path("ca")).unwrap();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=stranger", "-keyout", &own("key.pem"), "-out", &own("ca/stranger.pem")])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    for name in ["ca", "ca/stranger.pem", "key.pem"] {
        fs::set_permissions(corner.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let stranger = |ferry: &mut Value| {
        ferry["hostCert"] = own("ca/stranger.pem").into();
        ferry["hostKey"] = own("key.pem").into();
    };
    type Change<'a> = &'a dyn Fn(&mut Value);
    let cases: [(Change<'_>, &str, &str); 6] = [
        (&|ferry| ferry["caPath"] = own("ca").into(), "MT0173", "not trusted"),
        (&|ferry| stranger(ferry), "MT0174", "refuses"),
        (&|ferry| ferry["hostKey"] = own("nothing").into(), "MT0171", "nothing"),
        (&|ferry| ferry["hostKey"] = own("key.pem").into(), "MT0171", ""),
        (&|ferry| ferry["caPath"] = own("bin").into(), "MT0171", "ferry.caPath"),
        (&|ferry| drop(ferry.as_object_mut().unwrap().remove("hostCert")), "MT0170", "ferry.hostCert is not set"),
    ];
    for (change, code, word) in cases {
        with_ferry(&corner, change);
        let ended = corner.run(&[DUNE_ONLY, &["--no-notify"]].concat()).exits(11);
        assert!(ended.err.contains(code) && ended.err.contains(word), "{code} {word}: {ended:?}");
    }
}

#[test]
fn a_uid_that_changed_is_stored_and_the_admins_are_told_the_old_and_the_new_once() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "changed");
    corner.run(REFRESH).is_quiet();
    ferry_says(&lab, json!({"dunepro": {"uid": 4321}, "mu2epro": {"uid": 1235}}));
    let before = lab.mails().len();
    corner.run(REFRESH).is_quiet();
    let told = mails(&lab, before);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].to, ["admin@lab.test"]);
    assert!(
        told[0].text.contains("Subject: [managed tokens] dunepro: the UID has changed: 1234 before, 4321 now"),
        "{told:?}"
    );
    assert!(!told[0].text.contains("failing") && !told[0].text.contains("mu2epro"), "{told:?}");
    assert_eq!(uids(&corner), known(4321, 1235));
    assert_eq!(beside(&corner), json!({"dunepro": 4321, "mu2epro": 1235}));
    let listed = corner.run(&["runs", "list"]).exits(0).out;
    assert!(listed.lines().nth(1).unwrap().ends_with("2 ok, 1 uid changed"), "{listed}");
    assert!(!listed.lines().nth(2).unwrap().contains("changed"), "{listed}");
    let shown = corner.run(&["runs", "show"]).exits(0).out;
    assert!(shown.contains("1234 before, 4321 now"), "{shown}");
    corner.run(REFRESH).is_quiet();
    assert_eq!(lab.mails().len(), before + 1, "the same UID is no news");
}

#[test]
fn a_uid_that_was_learnt_without_the_store_is_pushed_to_and_comes_into_the_store() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "without-store");
    corner.run(REFRESH).is_quiet();
    ferry_says(&lab, json!({"dunepro": {"uid": 4321}, "mu2epro": {"uid": 1235}}));
    // Nobody can wait for the store.
    let queue = corner.state().join("queue.lock");
    fs::remove_file(&queue).unwrap();
    fs::create_dir(&queue).unwrap();
    corner.run(REFRESH).exits(21);
    assert_eq!(beside(&corner)["dunepro"]["uid"], 4321, "{}", beside(&corner));
    fs::remove_dir(&queue).unwrap();
    assert_eq!(uids(&corner), known(4321, 1235), "it is listed at once");
    corner.spy("rsync", "");
    let push = || {
        corner.forget_calls();
        corner.run(&["run", "token-push", "-s", "dune_production"]).exits(0);
        let pushes = corner.calls("rsync");
        assert!(!pushes.is_empty() && pushes.iter().all(|push| push.contains("vt_u4321")), "{pushes:?}");
    };
    // A process that is stopped while it writes the file: what the file alone has stays there, and counts.
    let turn = fs::File::open(corner.state().join("uids.lock")).unwrap();
    turn.lock().unwrap();
    push();
    assert_eq!(beside(&corner)["dunepro"]["uid"], 4321, "{}", beside(&corner));
    drop(turn);
    push();
    assert_eq!(beside(&corner), json!({"dunepro": 4321, "mu2epro": 1235}));
    corner.run(&["uids", "set", "mu2epro", "5321"]).exits(0);
    assert_eq!(uids(&corner), known(4321, 5321));
}

#[test]
fn an_account_that_fails_does_not_stop_the_others_and_is_told_at_once() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "partly");
    corner.run(REFRESH).is_quiet();
    ferry_says(&lab, json!({"mu2epro": {"uid": 5321}}));
    let before = lab.mails().len();
    corner.run(REFRESH).exits(10);
    assert_eq!(uids(&corner), known(1234, 5321));
    let told = mails(&lab, before);
    assert_eq!(told.len(), 1, "{told:?}");
    for words in [
        "Subject: [managed tokens] errors of 2 accounts: dunepro, mu2epro",
        "fetch-uid: FERRY has no answer for dunepro: username does not exist.",
        "the UID has changed: 1235 before, 5321 now",
    ] {
        assert!(told[0].text.contains(words), "{words}: {told:?}");
    }
    // Accounts have no counters: the next run tells again, a resumed one does not.
    corner.run(&["runs", "resume"]).exits(10);
    assert_eq!(lab.mails().len(), before + 1, "{:?}", mails(&lab, before));
    corner.run(REFRESH).exits(10);
    let again = mails(&lab, before + 1);
    assert_eq!(again.len(), 1, "{again:?}");
    assert!(again[0].text.contains("Subject: [managed tokens] dunepro: fetch-uid"), "{again:?}");
}

#[test]
fn a_test_asks_and_stores_nothing() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "test");
    let before = asked(&lab, 0).len();
    corner.run(&[REFRESH, &["--test"]].concat()).is_quiet();
    assert_eq!(asked(&lab, before).len(), 2);
    assert!(uids(&corner).iter().all(|(_, uid)| uid.is_none()), "{:?}", uids(&corner));
    assert!(!corner.state().join("uids.json").exists());
    let mailed = lab.mails().len();
    lab.fault("ferry", "status 404");
    corner.run(&[REFRESH, &["--test"]].concat()).exits(11);
    let told = mails(&lab, mailed);
    assert_eq!(told.iter().map(|mail| mail.to.clone()).collect::<Vec<_>>(), [["admin-test@lab.test"]]);
}

#[test]
fn what_was_fetched_before_an_interruption_is_not_asked_for_again() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "resumed");
    let between = "Step(name: \"between\", action: Exec(command: [\"true\"]), timeout: \"60s\"),\n        Step(\n            name: \"store-uid\"";
    let text = SHIPPED.replace("Step(\n            name: \"store-uid\"", between);
    assert_ne!(text, SHIPPED);
    corner.workflow("ferry-refresh", &text);
    let gate = corner.hold("true");
    let before = asked(&lab, 0).len();
    let running = corner.start(REFRESH);
    wait_for("both accounts to wait", || corner.calls("true").len() == 2);
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.end().exits(143);
    assert!(!corner.state().join("uids.json").exists());
    gate.open();
    let explained = corner.run(&["runs", "resume", "--explain"]).exits(0).out;
    assert!(explained.contains("FERRY said 1234"), "{explained}");
    corner.run(&["runs", "resume"]).exits(0);
    assert_eq!(asked(&lab, before).len(), 2);
    assert_eq!(uids(&corner), known(1234, 1235));
}

#[test]
fn a_resumed_run_shows_ferry_what_the_run_began_with() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "method");
    lab.fault("ferry", "status 404");
    corner.run(&[DUNE_ONLY, &["--authmethod", "jwt", "--no-notify"]].concat()).exits(11);
    lab.fault("ferry", "ok");
    let before = asked(&lab, 0).len();
    corner.run(&["runs", "resume"]).exits(0);
    let asked = asked(&lab, before);
    assert!(asked.len() == 1 && asked[0]["bearer"] == true && asked[0]["subject"].is_null(), "{asked:?}");
}

#[test]
fn an_account_that_another_run_works_on_is_left_to_it() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "held");
    lab.fault("ferry", "hang 3600");
    let before = asked(&lab, 0).len();
    let first = corner.start(DUNE_ONLY);
    wait_for("the first question", || asked(&lab, before).len() == 1);
    corner.run(&[DUNE_ONLY, &["--new"]].concat()).exits(22);
    // A service is nobody's account: tokens are pushed meanwhile.
    corner.run(&["run", "token-push", "--test", "-s", "dune_production"]).exits(0);
    first.signal(nix::sys::signal::Signal::SIGTERM);
    first.end().exits(143);
}

#[test]
fn without_a_place_for_locks_accounts_are_worked_on_all_the_same_and_the_log_says_so() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "no-locks");
    let leases = corner.state().join("leases");
    std::fs::create_dir(&leases).expect("nothing is there yet");
    std::fs::set_permissions(&leases, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("it is ours");
    corner.give(&leases);
    std::fs::write(leases.join("accounts.d"), "in the way").expect("it can be written");
    let ended = corner.run(&["run", "ferry-refresh"]).exits(0);
    assert!(ended.err.contains("MT0014") && ended.err.contains("accounts.d"), "{ended:?}");
    assert_eq!(corner.show("latest")["status"], "succeeded");
}

#[test]
fn without_a_usable_store_the_uids_are_kept_beside_it() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "no-store");
    // Where the store should be lies a file.
    fs::write(corner.state().join("store"), "").unwrap();
    corner.give(&corner.state().join("store"));
    let ended = corner.run(REFRESH).exits(21);
    assert!(ended.err.contains("2 accounts succeeded"), "{ended:?}");
    let uid_of = |account| beside(&corner)[account]["uid"].clone();
    assert_eq!([uid_of("dunepro"), uid_of("mu2epro")], [1234, 1235], "{}", beside(&corner));
    corner.run(&["run", "token-push", "-s", "dune_production"]).exits(21);
}

#[test]
fn a_push_without_a_uid_fails_for_that_service_alone_and_says_what_to_do() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "unknown");
    corner.configure(|config| {
        let role = &mut config["experiments"]["dune"]["roles"]["production"];
        role.as_object_mut().unwrap().remove("desiredUIDOverride");
    });
    corner.run(&["run", "token-push", "--no-notify"]).exits(10);
    let run = corner.show("latest");
    assert_eq!(machine(&run, "mu2e_production")["status"], "succeeded");
    let failed = attempt(machine(&run, "dune_production"), "push");
    assert_eq!((&failed["code"], &failed["class"]), (&json!("MT0049"), &json!("permanent")), "{failed}");
    assert!(failed["next"].as_str().unwrap().contains("ask FERRY for it:  mt run ferry-refresh"), "{failed}");
    corner.run(DUNE_ONLY).is_quiet();
    corner.run(&["runs", "resume"]).exits(0);
    assert!(lab.path("nodes/node1/tmp/vt_u1234-dune_production").exists());
}

#[test]
fn arguments_that_mean_nothing_to_a_workflow_are_refused() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "arguments");
    let refused = corner.run(&["run", "token-push", "--authmethod", "jwt"]).exits(2);
    assert!(refused.err.contains("--authmethod"), "{refused:?}");
    let refused = corner.run(&[DUNE_ONLY, &["--onboard"]].concat()).exits(2);
    assert!(refused.err.contains("--onboard"), "{refused:?}");
    corner.run(&[REFRESH, &["--authmethod", "password"]].concat()).exits(2);
    let planned = corner.run(&[REFRESH, &["--dry-run"]].concat()).exits(0);
    assert!(planned.out.contains("dunepro  fetch-uid") && planned.out.contains("2 accounts"), "{planned:?}");
}

/// The shipped workflow, in which somebody puts another number into the store before it is read back.
fn overwritten(lab: &Lab, corner: &Corner) -> String {
    let (mt, config, state) = (lab.path("bin/mt"), corner.path("managedTokens.json"), corner.state());
    let (mt, config, state) = (mt.display(), config.display(), state.display());
    let script = format!("[ $MT_ACCOUNT = mu2epro ] || {mt} -c {config} --state-dir {state} uids set dunepro 77");
    let exec = format!("Exec(command: [\"/bin/sh\", \"-c\", {script:?}])");
    let step = format!(
        "    Step(name: \"meddle\", action: {exec}, timeout: \"10s\", on_failure: Stop),\n    ],\n    finally: ["
    );
    let text = SHIPPED.replacen("],\n    finally: [", &step, 1);
    assert_ne!(text, SHIPPED);
    text
}

#[test]
fn a_uid_that_is_read_back_as_another_is_told_to_the_admins_with_or_without_other_news() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "read-back");
    corner.workflow("ferry-refresh", &overwritten(&lab, &corner));
    let (before, posts) = (lab.mails().len(), lab.slack().len());
    let ended = corner.run(REFRESH).exits(0);
    assert!(ended.err.contains("MT0181"), "{ended:?}");
    let told =
        "verify-uids: the UIDs that were read back are not those that were stored: dunepro has 77, and 1234 was stored";
    let arrived = mails(&lab, before);
    let [mail] = &arrived[..] else { panic!("one mail: {arrived:?}") };
    assert_eq!(mail.to, ["admin@lab.test"]);
    assert!(mail.text.contains(told) && mail.text.contains("MT0181"), "{}", mail.text);
    assert!(mail.text.contains("an error outside any service"), "{}", mail.text);
    assert_eq!(lab.slack().len(), posts + 1);
    assert!(lab.slack()[posts].to_string().contains("dunepro has 77"), "{:?}", lab.slack()[posts]);

    // Now there is other news, too: dunepro's UID has changed back, and FERRY has forgotten mu2epro. One mail tells it all.
    ferry_says(&lab, json!({"dunepro": {"uid": 1234}}));
    corner.run(REFRESH).exits(10);
    let arrived = mails(&lab, before + 1);
    let [mail] = &arrived[..] else { panic!("one mail: {arrived:?}") };
    for part in [told, "MT0181", "77 before, 1234 now", "mu2epro", "an error outside them"] {
        assert!(mail.text.contains(part), "{part}: {}", mail.text);
    }
    assert!(lab.slack()[posts + 1].to_string().contains("dunepro has 77"));

    // Nobody is told twice, and nobody who is not to be told.
    let count = lab.mails().len();
    corner.run(&[REFRESH, &["--no-notify"]].concat());
    assert_eq!(lab.mails().len(), count);
}
