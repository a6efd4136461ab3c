//! The steps against real services: KDC, vault, sshd, ping, mail server.
//!
//! Each test raises a laboratory and runs this very test binary inside it, as the client account, with `MT_PLAN` saying
//! which steps to try; `inside` prints how each try ended, and the test outside judges.

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use managed_tokens::config::{self, Environment};
use managed_tokens::notify::mail;
use managed_tokens::notify::smtp::Smtp;
use managed_tokens::notify::{Channel, Group, OutboxEntry, OutboxStatus};
use managed_tokens::private_dir;
use managed_tokens::steps::environment::Snapshot;
use managed_tokens::steps::{Setup, World, build};
use managed_tokens::workflow::action::{Action, Attempt, AttemptResult, Class, Failure, Success};
use managed_tokens::workflow::definition::{ActionSpec, CountsAs, Mode, OnFailure, Per, Retry, Step};
use managed_tokens::workflow::id::{ProcessId, RunId, StepName, Subject, TargetName};
use serde::{Deserialize, Serialize};
use support::lab::Lab;

const MARK: &str = "TRIED ";

/// One try, as printed inside and judged outside.
#[derive(Debug, Serialize, Deserialize)]
struct Tried {
    step: String,
    target: String,
    result: AttemptResult,
}

/// Everything that was tried, in order.
struct Trial(Vec<Tried>);

impl Trial {
    /// Runs the steps for a service of the lab's configuration; a failed step does not stop the next.
    fn of(lab: &Lab, config: &str, service: &str, plan: &str) -> Self {
        let program = lab.path("bin/steps_lab");
        if !program.exists() {
            std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        }
        let program = program.to_str().unwrap().to_owned();
        let inside = [program.as_str(), "--ignored", "--exact", "inside", "--nocapture", "--test-threads=1"];
        let mut command = lab.command(&inside);
        command.env("MT_PLAN", plan).env("MT_SERVICE", service).env("MT_CONFIG", lab.path(config));
        let output = command.output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        let told = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{told}");
        for kept in std::fs::read_dir(lab.path("tokens")).into_iter().flatten().flatten() {
            let token = std::fs::read_to_string(kept.path()).unwrap_or_default();
            assert!(token.trim().is_empty() || !told.contains(token.trim()), "a token was shown: {told}");
        }
        assert!(!told.contains("eyJ"), "a bearer token was shown: {told}");
        let tried: Vec<_> = stdout.lines().filter_map(|line| line.split_once(MARK)).collect();
        Self(tried.iter().map(|(_, json)| serde_json::from_str(json).unwrap()).collect())
    }

    fn result(&self, step: &str, target: &str) -> &AttemptResult {
        let found = self.0.iter().rev().find(|tried| tried.step == step && tried.target == target);
        &found.unwrap_or_else(|| panic!("{step} was not tried on {target}: {:?}", self.0)).result
    }

    #[track_caller]
    fn success(&self, step: &str, target: &str) -> &Success {
        self.result(step, target).as_ref().unwrap_or_else(|failure| panic!("{step} on {target}: {failure:?}"))
    }

    #[track_caller]
    fn failure(&self, step: &str, target: &str) -> &Failure {
        self.result(step, target).as_ref().expect_err("a failure")
    }

    #[track_caller]
    fn all_succeeded(&self) {
        let failed: Vec<_> = self.0.iter().filter(|tried| tried.result.is_err()).collect();
        assert!(failed.is_empty() && !self.0.is_empty(), "{failed:#?}");
    }
}

fn step(name: &str) -> Step {
    Step {
        name: StepName::new(name),
        action: ActionSpec { name: name.to_owned(), arguments: None },
        per: Per::Subject,
        timeout: Duration::from_secs(30),
        parallel: 8,
        retry: Retry { times: 0, backoff: (Duration::ZERO, Duration::ZERO) },
        on_failure: OnFailure::Continue,
        counts_as: CountsAs::Setup,
        when: Mode::ALL.to_vec(),
    }
}

/// Not a test: what runs inside the laboratory. `Step` tries it on all targets, `Step?` asks for a stand-in after it failed.
#[test]
#[ignore = "runs inside a laboratory, started by the others"]
fn inside() {
    let (Ok(plan), Ok(service)) = (std::env::var("MT_PLAN"), std::env::var("MT_SERVICE")) else { return };
    let environment = Environment::of_process();
    let config = config::load(None, &environment).unwrap();
    let state = config.state_dir(None, &environment);
    let process = ProcessId::generate();
    let private = state.join("run").join(process.to_string());
    for directory in [state.clone(), state.join("run"), private.clone()] {
        if !directory.exists() {
            private_dir::create(&directory).unwrap();
        }
    }
    let uid = |service: &config::Service| service.uid_override;
    let services = config.services.iter().map(|service| (service.clone(), uid(service))).collect();
    let world = Arc::new(World::new(Setup {
        process,
        private: private.clone(),
        locks: state.clone(),
        state,
        environment: Snapshot::of_process(),
        own_uid: nix::unistd::geteuid().as_raw(),
        services,
        issuer_services: config.services.iter().map(|service| service.issuer_service.clone()).collect(),
        expiries: BTreeMap::new(),
        email: config.email.clone(),
        outbox: None,
        accounts: None,
    }));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for word in plan.split_whitespace() {
            let name = word.trim_end_matches('?');
            let action = build(&step(name), &world).unwrap();
            try_all(name, &service, &action, word.ends_with('?')).await;
        }
    });
    std::fs::remove_dir_all(&private).unwrap();
}

async fn try_all(name: &str, service: &str, action: &Arc<dyn Action>, stand_in: bool) {
    let attempt = |target| Attempt {
        run: RunId::generate(),
        session: 1,
        subject: Some(Subject::new(service)),
        step: StepName::new(name),
        target,
        mode: Mode::Normal,
        number: 1,
        timeout: Duration::from_secs(30),
        cancel: tokio_util::sync::CancellationToken::new(),
    };
    let targets = match action.targets(&attempt(TargetName::only()), &[]).await {
        Ok(targets) => targets,
        Err(failure) => return tell(name, &TargetName::only(), Err(failure)),
    };
    let tries = targets.into_iter().map(|target| async {
        let attempt = attempt(target);
        let mut result = action.attempt(&attempt).await;
        if stand_in {
            let failure = result.clone().expect_err("a failure to stand in for");
            result = action.stand_in(&attempt, &failure).await.ok_or(failure);
        }
        tell(name, &attempt.target, result);
    });
    futures::future::join_all(tries).await;
}

fn tell(step: &str, target: &TargetName, result: AttemptResult) {
    let tried = Tried { step: step.to_owned(), target: target.to_string(), result };
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "\n{MARK}{}", serde_json::to_string(&tried).unwrap()).unwrap();
}

const CONFIG: &str = "managedTokens.json";
const FAULTS: &str = "managedTokens-faults.json";
const SERVICE: &str = "dune_production";
const ALL: &str = "Kinit GetVaultToken StoreInCredd Ping Push";

/// What lies under these names in a client's or node's /tmp.
fn ls(lab: &Lab, node: &str, pattern: &str) -> String {
    let script = format!("cd /tmp; stat -c '%a %U %F %n' {pattern} 2>/dev/null | sort");
    String::from_utf8(lab.node(node, &["sh", "-c", &script]).stdout).unwrap()
}

#[test]
fn the_whole_chain_delivers_a_token_and_leaves_nothing_else() {
    let Some(lab) = Lab::up() else { return };
    let trial = Trial::of(&lab, CONFIG, SERVICE, ALL);
    trial.all_succeeded();
    let detail = trial.success("GetVaultToken", "-").detail.clone().unwrap();
    let expires: Timestamp = detail["expires_at"].as_str().expect("the vault was asked").parse().unwrap();
    let days = expires.duration_since(Timestamp::now()).as_secs() / 86_400;
    assert_eq!(days, 6, "htgettoken's tokens live for seven days");
    for credd in ["schedd1.lab.test", "schedd2.lab.test"] {
        assert!(trial.success("StoreInCredd", credd).detail.is_some());
    }
    assert_eq!(trial.success("Push", "node1.lab.test").note, None);
    let arrived = ls(&lab, "node1", "vt_* default_role_* .vt_*");
    let owner = if lab.has_own_accounts() { "dunepro".to_owned() } else { whoami(&lab) };
    let expected = format!(
        "400 {owner} regular file default_role_dune_1234\n400 {owner} regular file vt_u1234\n\
         400 {owner} regular file vt_u1234-dune_production\n"
    );
    assert_eq!(arrived, expected);
    assert_eq!(arrived, ls(&lab, "node2", "vt_* default_role_* .vt_*"));
    let role = lab.node("node1", &["cat", "/tmp/default_role_dune_1234"]).stdout;
    assert_eq!(role, b"production\n");

    let left = lab.run(&["sh", "-c", "ls -d /tmp/* $LAB/state/run/*; ls -l $LAB/tokens"]);
    let left = String::from_utf8(left.stdout).unwrap();
    assert!(!left.contains("/tmp/vt_") && !left.contains("/tmp/bt_") && !left.contains("state/run/"), "{left}");
    assert_eq!(left.matches("-rw-------").count(), left.matches("vt_u").count(), "{left}");
}

fn whoami(lab: &Lab) -> String {
    String::from_utf8(lab.run(&["id", "-un"]).stdout).unwrap().trim().to_owned()
}

#[test]
fn the_second_run_reuses_the_kept_token() {
    let Some(lab) = Lab::up() else { return };
    let get = "Kinit GetVaultToken";
    let detail = |trial: &Trial| trial.success("GetVaultToken", "-").detail.clone().unwrap()["fingerprint"].clone();
    let first = detail(&Trial::of(&lab, CONFIG, SERVICE, get));
    assert_eq!(detail(&Trial::of(&lab, CONFIG, SERVICE, get)), first);
}

#[test]
fn a_vault_outage_pushes_the_kept_token_and_asks_for_nobody() {
    let Some(lab) = Lab::up() else { return };
    Trial::of(&lab, CONFIG, SERVICE, "Kinit GetVaultToken").all_succeeded();
    lab.pause("vault");
    let failed = Trial::of(&lab, CONFIG, SERVICE, "Kinit GetVaultToken StoreInCredd");
    assert_eq!(
        failed.failure("GetVaultToken", "-").class,
        Class::Transient,
        "{:?}",
        failed.failure("GetVaultToken", "-")
    );
    for credd in ["schedd1.lab.test", "schedd2.lab.test"] {
        let failure = failed.failure("StoreInCredd", credd);
        assert_eq!((failure.class, failure.code.to_string().as_str()), (Class::Transient, "MT0030"), "{failure:?}");
    }
    let stale = Trial::of(&lab, CONFIG, SERVICE, "Kinit GetVaultToken? Push");
    stale.all_succeeded();
    assert!(ls(&lab, "node1", "vt_*").contains("vt_u1234-dune_production"));
}

#[test]
fn what_the_vault_refuses_needs_a_person() {
    let Some(lab) = Lab::up() else { return };
    for fault in ["403", "norefresh"] {
        lab.fault("vault", fault);
        let trial = Trial::of(&lab, CONFIG, SERVICE, "Kinit GetVaultToken StoreInCredd");
        let failures = [trial.failure("GetVaultToken", "-"), trial.failure("StoreInCredd", "schedd1.lab.test")];
        for failure in failures {
            assert_eq!(failure.class, Class::NeedsHuman, "{fault}: {failure:?}");
            assert_eq!(failure.next.as_deref(), Some("mt run token-push --onboard --push -s dune_production"));
        }
        lab.fault("vault", "ok");
    }
}

#[test]
fn one_bad_credd_leaves_the_other_alone() {
    let Some(lab) = Lab::up() else { return };
    lab.fault("schedd1", "denied");
    let trial = Trial::of(&lab, CONFIG, SERVICE, "Kinit GetVaultToken StoreInCredd");
    let failure = trial.failure("StoreInCredd", "schedd1.lab.test");
    assert_eq!((failure.class, failure.code.to_string().as_str()), (Class::Permanent, "MT0054"), "{failure:?}");
    trial.success("StoreInCredd", "schedd2.lab.test");
    lab.fault("collector", "down");
    let trial = Trial::of(&lab, CONFIG, SERVICE, "StoreInCredd");
    assert_eq!(trial.failure("StoreInCredd", "-").code.to_string(), "MT0050");
}

#[test]
fn each_bad_keytab_is_named() {
    let Some(lab) = Lab::up() else { return };
    for (fault, code) in [("missing", "MT0020"), ("corrupt", "MT0021"), ("wrong", "MT0022"), ("stale", "MT0023")] {
        lab.fault("keytab-dunepro", fault);
        let trial = Trial::of(&lab, CONFIG, SERVICE, "Kinit");
        let failure = trial.failure("Kinit", "-");
        assert_eq!((failure.class, failure.code.to_string().as_str()), (Class::Permanent, code), "{failure:?}");
    }
}

#[test]
fn each_bad_node_is_named() {
    let Some(lab) = Lab::up() else { return };
    let push = |service: &str, node: &str, plan: &str| {
        let trial = Trial::of(&lab, FAULTS, service, &format!("Kinit GetVaultToken {plan} Push"));
        trial.failure("Push", node).clone()
    };
    let cases = [
        ("full_production", "node3.lab.test", Class::Permanent, "MT0046"),
        ("refuse_production", "node4.lab.test", Class::Permanent, "MT0044"),
        ("hang_production", "node5.lab.test", Class::Transient, "MT0043"),
        ("blackhole_production", "node6.lab.test", Class::Transient, "MT0043"),
    ];
    for (service, node, class, code) in cases {
        let mut failure = push(service, node, "");
        if failure.output.is_none() {
            // rsync lost what the node said, as it does now and then on a busy machine.
            failure = push(service, node, "");
        }
        assert_eq!((failure.class, failure.code.to_string().as_str()), (class, code), "{service}: {failure:?}");
        assert!(!failure.last, "{service}");
    }
    let failure = push("down_production", "node7.lab.test", "Ping");
    assert!(failure.last && failure.code.to_string() == "MT0043", "{failure:?}");

    lab.fault("node1", "hostkey");
    let failure = push(SERVICE, "node1.lab.test", "");
    assert_eq!((failure.class, failure.code.to_string().as_str()), (Class::NeedsHuman, "MT0045"), "{failure:?}");
    assert!(failure.next.as_ref().unwrap().contains("ssh-keygen"), "{failure:?}");
}

#[test]
fn what_is_planted_on_a_node_is_replaced_and_not_followed() {
    let Some(lab) = Lab::up() else { return };
    // The account's own link, its own hard link, and a half-written file of an earlier try.
    let plant = "cd /tmp; echo victim >victim; chmod 666 victim; ln -s victim vt_u1234; ln victim vt_u1234-dune_production; \
                 echo x >.vt_u1234.ABCDEF; chown -h dunepro vt_u1234 victim .vt_u1234.ABCDEF 2>/dev/null; true";
    lab.node("node1", &["sh", "-c", plant]);
    let trial = Trial::of(&lab, CONFIG, SERVICE, "Kinit GetVaultToken Push");
    trial.all_succeeded();
    assert_eq!(lab.node("node1", &["cat", "/tmp/victim"]).stdout, b"victim\n");
    let arrived = ls(&lab, "node1", "vt_u1234*");
    assert_eq!(arrived.matches("400").count(), 2, "{arrived}");
    assert_eq!(arrived.matches("regular file").count(), 2, "{arrived}");
    assert_eq!(lab.node("node1", &["stat", "-c", "%a", "/tmp"]).stdout, b"1777\n");
}

#[test]
fn a_link_of_somebody_else_on_a_node_is_not_followed_and_is_named() {
    let Some(lab) = Lab::up() else { return };
    if !lab.has_own_accounts() {
        return;
    }
    let plant =
        "cd /tmp; echo victim >victim; chmod 666 victim; ln -s victim vt_u1234; chown -h mu2epro vt_u1234 victim";
    lab.node("node1", &["sh", "-c", plant]);
    let trial = Trial::of(&lab, CONFIG, SERVICE, "Kinit GetVaultToken Push");
    let failure = trial.failure("Push", "node1.lab.test");
    assert_eq!((failure.class, failure.code.to_string().as_str()), (Class::Permanent, "MT0047"), "{failure:?}");
    assert_eq!(lab.node("node1", &["cat", "/tmp/victim"]).stdout, b"victim\n");
    trial.success("Push", "node2.lab.test");
}

#[test]
fn a_default_role_file_that_cannot_be_written_does_not_keep_the_token_back() {
    let Some(lab) = Lab::up() else { return };
    let text = std::fs::read_to_string(lab.path(CONFIG)).unwrap();
    for template in ["/nowhere/at/all/role_{{.DesiredUID}}", "/etc/role_{{.DesiredUID}}"] {
        let odd = text.replace("/tmp/default_role_{{.Experiment}}_{{.DesiredUID}}", template);
        assert_ne!(odd, text);
        std::fs::write(lab.path("odd.json"), odd).unwrap();
        lab.node("node1", &["sh", "-c", "rm -f /tmp/vt_*"]);
        let trial = Trial::of(&lab, "odd.json", SERVICE, "Kinit GetVaultToken Push");
        let note = trial.success("Push", "node1.lab.test").note.clone().unwrap_or_default();
        assert!(note.contains("default role file was not pushed"), "{template}: {note}");
        assert_eq!(ls(&lab, "node1", "vt_*").matches("400").count(), 2);
        assert_eq!(
            lab.node("node1", &["stat", "-c", "%a %U", "/tmp"]).stdout,
            lab.node("node2", &["stat", "-c", "%a %U", "/tmp"]).stdout
        );
    }
    // One that can: outside /tmp, with the same rsync.
    let odd = text.replace("/tmp/default_role_{{.Experiment}}_{{.DesiredUID}}", "/var/tmp/role_{{.DesiredUID}}");
    std::fs::write(lab.path("odd.json"), odd).unwrap();
    let trial = Trial::of(&lab, "odd.json", SERVICE, "Kinit GetVaultToken Push");
    assert_eq!(trial.success("Push", "node1.lab.test").note, None);
    let role = lab.node("node1", &["sh", "-c", "cat /var/tmp/role_1234; rm -f /var/tmp/role_1234"]).stdout;
    assert_eq!(role, b"production\n");
}

#[test]
fn a_push_overwrites_an_older_token_of_the_same_size_at_once() {
    let Some(lab) = Lab::up() else { return };
    // With this window all times are the same to rsync: what it does within one second, made certain.
    let text = std::fs::read_to_string(lab.path(CONFIG)).unwrap();
    let options = "{ \"fileCopierOptions\": \"--perms --chmod=u=r,go= --modify-window=1000000000\",";
    std::fs::write(lab.path("window.json"), text.replacen('{', options, 1)).unwrap();
    Trial::of(&lab, "window.json", SERVICE, "Kinit GetVaultToken Push").all_succeeded();
    let spoil = "cd /tmp; n=$(stat -c %s vt_u1234); head -c $n /dev/zero | tr '\\0' x >y; cat y >vt_u1234; rm y; head -c1 vt_u1234";
    assert_eq!(lab.node("node1", &["sh", "-c", spoil]).stdout, b"x");
    Trial::of(&lab, "window.json", SERVICE, "Kinit GetVaultToken Push").all_succeeded();
    assert_ne!(lab.node("node1", &["head", "-c1", "/tmp/vt_u1234"]).stdout, b"x");
}

/// Not a test: sends one mail from inside.
#[test]
#[ignore = "runs inside a laboratory, started by `a_mail_arrives`"]
fn inside_mail() {
    let Ok(recipients) = std::env::var("MT_RECIPIENTS") else { return };
    let config = config::load(None, &Environment::of_process()).unwrap();
    let entry = OutboxEntry {
        run: RunId::generate(),
        started: Timestamp::now(),
        session: 1,
        group: Group::Admins.name(),
        channel: Channel::Mail,
        test: false,
        message_id: "<one@lab.test>".to_owned(),
        subject: "[managed tokens] dune_production: é".to_owned(),
        body: "dune_production\n.\n  a line with a dot alone above\n".to_owned(),
        from: "managed-tokens@lab.test".to_owned(),
        recipients: recipients.split(' ').map(str::to_owned).collect(),
        reports: vec![],
        since_then: vec![],
        status: OutboxStatus::Prepared,
        sender: None,
        sent_at: None,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sent = runtime.block_on(async {
        let letter = mail::letter(&entry, false)?;
        Smtp::connect(&config.email.unwrap(), &[]).await?.send(&letter).await
    });
    tell("Notify", &TargetName::only(), sent.map(|refused| Success { detail: None, note: Some(refused.join("; ")) }));
}

#[test]
fn a_mail_arrives() {
    let Some(lab) = Lab::up() else { return };
    let program = lab.path("bin/steps_lab");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let send = |recipients: &str| {
        let inside = [program.to_str().unwrap(), "--ignored", "--exact", "inside_mail", "--nocapture"];
        let output = lab.command(&inside).env("MT_RECIPIENTS", recipients).output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let tried = stdout.lines().find_map(|line| line.split_once(MARK));
        let tried: Tried = serde_json::from_str(tried.unwrap_or_else(|| panic!("{stdout}")).1).unwrap();
        tried.result
    };
    send("admin@lab.test second@lab.test").unwrap();
    let mails = lab.mails();
    assert_eq!((mails.len(), mails[0].to.len()), (1, 2));
    assert!(mails[0].text.contains("Message-ID: <one@lab.test>"), "{}", mails[0].text);
    let note = send("admin@lab.test bounce@lab.test").unwrap().note.unwrap();
    assert!(note.contains("bounce@lab.test"), "{note}");
    lab.fault("smtp", "tempfail");
    assert_eq!(send("admin@lab.test").unwrap_err().code.to_string(), "MT0062");
    lab.fault("smtp", "refuse");
    assert_eq!(send("admin@lab.test").unwrap_err().code.to_string(), "MT0060");
    lab.kill("smtp");
    assert_eq!(send("admin@lab.test").unwrap_err().code.to_string(), "MT0061");
}
