//! What comes from outside: the variables that win over the configuration, what children see of them, and the collectors.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::LazyLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use support::corner::{Corner, Ended, step, target};
use support::lab::Lab;

mod support;

const DUNE: &str = "dune_production";
const PUSH: [&str; 4] = ["run", "token-push", "-s", DUNE];
/// Answers.
const GOOD: &str = "collector.lab.test";
/// Nobody is there.
const DOWN: &str = "collector2.lab.test";
/// Takes the question and says nothing.
const MUTE: &str = "collector3.lab.test";
const ASKED: &str = "-constraint IsJobsubLite==true -schedd -af Name";
const COLLECTOR: &str = "_condor_COLLECTOR_HOST";
const OPTIONS: &str = "_condor_SEC_CREDENTIAL_GETTOKEN_OPTS";
const HTGETTOKEN: &str = "HTGETTOKENOPTS";
const CREDKEY: &str = "--credkey=dunepro/managedtokens/lab.test";

/// The shared laboratory. It goes down with the test process, which a watcher outside sees to.
static LAB: LazyLock<Option<Lab>> = LazyLock::new(|| {
    let lab = Lab::up()?;
    fs::copy(lab.path("condor/pool/collector.lab.test.json"), lab.path(format!("condor/pool/{MUTE}.json"))).unwrap();
    fs::write(lab.path("faults/collector3"), "hang 3600").unwrap();
    Some(lab)
});

/// A corner whose services have credds, of these collectors.
fn corner<'a>(lab: &'a Lab, name: &str, collectors: &str) -> Corner<'a> {
    let corner = Corner::new(lab, name);
    configure(&corner, collectors, |_| {});
    corner.spy("condor_status", "");
    corner
}

fn configure(corner: &Corner<'_>, collectors: &str, change: impl FnOnce(&mut Value)) {
    corner.configure(|config| {
        config["condorCollectorHost"] = collectors.into();
        for experiment in config["experiments"].as_object_mut().unwrap().values_mut() {
            experiment["roles"]["production"].as_object_mut().unwrap().remove("tokenGetterOverride");
        }
        change(config);
    });
}

/// `mt` with these variables beside the laboratory's.
fn with(corner: &Corner<'_>, words: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command: Command = corner.mt(words);
    let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
    command.env("LAB_RUN_ENV_PASS", names.join(" ")).envs(variables.iter().copied());
    command.output().unwrap().into()
}

/// Writes down what each call of the program finds in a variable.
fn look(program: &str, variables: &[&str]) -> String {
    let values: Vec<String> = variables.iter().map(|name| format!("${{{name}-none}}")).collect();
    format!("printf '%s\\n' \"{}\" >>\"$(dirname \"$0\")/../calls/{program}.env\"", values.join("|"))
}

fn seen(corner: &Corner<'_>, program: &str) -> BTreeSet<String> {
    let all = fs::read_to_string(corner.path(format!("calls/{program}.env"))).unwrap_or_default();
    all.lines().map(str::to_owned).collect()
}

#[track_caller]
fn stored(corner: &Corner<'_>) {
    let run = corner.show("latest");
    for credd in ["schedd1.lab.test", "schedd2.lab.test"] {
        assert_eq!(target(&run, DUNE, "store-in-credd", credd)["status"], "succeeded", "{run}");
    }
}

fn asked(collector: &str) -> String {
    format!("-pool {collector} {ASKED}")
}

#[test]
fn where_the_first_collector_is_down_or_mute_the_second_is_used_for_question_and_storage() {
    let Some(lab) = &*LAB else { return };
    for (name, first) in [("first-down", DOWN), ("first-mute", MUTE)] {
        let corner = corner(lab, name, &format!("{first},{GOOD}"));
        corner.spy("condor_vault_storer", &look("condor_vault_storer", &[COLLECTOR]));
        let ended = corner.run(&PUSH).exits(0);
        assert!(ended.err.contains("MT0050") && ended.err.contains(first), "the log names it: {ended:?}");
        assert_eq!(corner.calls("condor_status"), [asked(first), asked(GOOD)]);
        assert_eq!(seen(&corner, "condor_vault_storer"), [GOOD.to_owned()].into());
        stored(&corner);
    }
}

#[test]
fn without_any_collector_every_service_says_so_and_is_pushed_all_the_same() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "none", GOOD);
    // Half of it, divided by two, is what one collector may take.
    configure(&corner, &format!("{DOWN}, {MUTE}"), |config| config["timeouts"]["vaultStorerTimeout"] = "24s".into());
    let ended = corner.run(&["run", "token-push"]).exits(11);
    assert!(ended.err.contains("MT0050"), "{ended:?}");
    assert_eq!(corner.calls("condor_status"), [asked(DOWN), asked(MUTE)], "once for both services");
    let run = corner.show("latest");
    for service in [DUNE, "mu2e_production"] {
        let store = &step(&run, service, "store-in-credd").to_string();
        assert!(store.contains("MT0050") && store.contains(DOWN) && store.contains(MUTE), "{store}");
        assert_eq!(step(&run, service, "push")["status"], "succeeded");
    }
}

#[test]
fn each_collector_is_asked_once_a_run_for_all_services_with_the_same_constraint() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "once", GOOD);
    configure(&corner, GOOD, |config| {
        let dune = config["experiments"]["dune"].clone();
        let all = config["experiments"].as_object_mut().unwrap();
        all.clear();
        for number in 0..8 {
            let mut one = dune.clone();
            one["experimentOverride"] = "dune".into();
            if number >= 5 {
                one["roles"]["production"]["condorScheddConstraintOverride"] = "InDownTime==true".into();
            }
            all.insert(format!("dune-{number}"), one);
        }
        config["experiments"]["dune-7"]["roles"]["production"]["condorCreddHostOverride"] = "schedd2.lab.test".into();
    });
    corner.program("condor_vault_storer", "#!/bin/sh\n# CONDOR_VAULT_STORER_ID\nexit 1\n");
    corner.run(&["run", "token-push", "--no-notify"]);
    let calls: BTreeSet<String> = corner.calls("condor_status").into_iter().collect();
    let other = format!("-pool {GOOD} -constraint InDownTime==true -schedd -af Name");
    assert_eq!((corner.calls("condor_status").len(), calls), (2, [asked(GOOD), other].into()));
    let run = corner.show("latest");
    let credds = |service: &str| -> Vec<String> {
        let targets = step(&run, service, "store-in-credd")["targets"].as_array().unwrap().clone();
        targets.iter().map(|target| target["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(credds("dune-0_production"), ["schedd1.lab.test", "schedd2.lab.test"]);
    assert_eq!(credds("dune-6_production"), ["oldschedd.lab.test"]);
    assert_eq!(credds("dune-7_production"), ["schedd2.lab.test"], "the one credd; nobody is asked");
    // Nothing of it is kept: the next run asks anew.
    corner.forget_calls();
    corner.run(&["run", "token-push", "--no-notify", "--new", "-s", "dune-0_production"]);
    assert_eq!(corner.calls("condor_status"), [asked(GOOD)]);
}

#[test]
fn the_collectors_of_the_environment_win_over_the_file_and_an_override() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "collector", DOWN);
    configure(&corner, DOWN, |config| {
        config["experiments"]["dune"]["roles"]["production"]["condorCollectorHostOverride"] = DOWN.into();
    });
    corner.spy("condor_vault_storer", &look("condor_vault_storer", &[COLLECTOR]));
    with(&corner, &PUSH, &[(COLLECTOR, GOOD)]).is_quiet();
    assert_eq!(corner.calls("condor_status"), [asked(GOOD)]);
    assert_eq!(seen(&corner, "condor_vault_storer"), [GOOD.to_owned()].into());
    stored(&corner);
    // Without any in the file HTCondor's own configuration has one, which the variable is a part of.
    corner.forget_calls();
    configure(&corner, GOOD, |config| drop(config.as_object_mut().unwrap().remove("condorCollectorHost")));
    corner.run(&PUSH).is_quiet();
    assert_eq!(corner.calls("condor_status"), [ASKED]);
    assert_eq!(seen(&corner, "condor_vault_storer"), ["none".to_owned()].into());
    stored(&corner);
    let refused = with(&corner, &PUSH, &[(COLLECTOR, "a;b")]).exits(20);
    assert!(refused.err.contains("MT0164") && refused.err.contains(COLLECTOR), "{refused:?}");
}

#[test]
fn the_vault_server_of_the_environment_wins_over_the_file_and_that_over_htcondors() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "vault", GOOD);
    let server = |name: Option<&str>| {
        configure(&corner, GOOD, |config| {
            let config = config.as_object_mut().unwrap();
            match name {
                Some(name) => config.insert("vaultServer".to_owned(), name.into()),
                None => config.remove("vaultServer"),
            };
        });
    };
    corner.spy("htgettoken", "");
    corner.spy("condor_vault_storer", &look("condor_vault_storer", &[OPTIONS]));
    server(Some("nowhere.lab.test"));
    with(&corner, &PUSH, &[(OPTIONS, "--nossh --vaultserver=vault.lab.test")]).is_quiet();
    let own = &corner.calls("htgettoken")[0];
    assert!(own.starts_with("--nossh --vaultserver=vault.lab.test -a vault.lab.test -i dune"), "{own}");
    let both = "--nossh --vaultserver=vault.lab.test -a vault.lab.test".to_owned();
    assert_eq!(seen(&corner, "condor_vault_storer"), [both].into());
    stored(&corner);

    // Options that name no server leave it to the file; the file wins over HTCondor's; and without both it is HTCondor's.
    corner.forget_calls();
    server(Some("vault.lab.test:8200"));
    with(&corner, &PUSH, &[(OPTIONS, "--nossh")]).is_quiet();
    corner.run(&PUSH).is_quiet();
    server(None);
    corner.run(&PUSH).is_quiet();
    let expected = [
        "--nossh -a vault.lab.test:8200",
        "-a vault.lab.test -a vault.lab.test:8200",
        "-a vault.lab.test -a vault.lab.test",
    ];
    assert_eq!(seen(&corner, "condor_vault_storer"), expected.map(str::to_owned).into());
    stored(&corner);
}

#[test]
fn inherited_htgettoken_options_are_kept_for_htgettoken_and_the_storer_and_only_a_credkey_is_added() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "htgettoken", GOOD);
    let programs = ["htgettoken", "condor_vault_storer", "kinit", "condor_status", "rsync"];
    for program in programs {
        corner.spy(program, &look(program, &[HTGETTOKEN]));
    }
    let own = format!("{CREDKEY} --vaulttokenminttl=1h");
    let cases = [
        (None, format!("--vaulttokenminttl=3d {CREDKEY}")),
        (Some("--vaulttokenminttl=1h"), format!("--vaulttokenminttl=1h {CREDKEY}")),
        (Some(own.as_str()), own.clone()),
    ];
    for (inherited, expected) in cases {
        corner.forget_calls();
        let variables: Vec<_> = inherited.map(|value| (HTGETTOKEN, value)).into_iter().collect();
        with(&corner, &PUSH, &variables).is_quiet();
        for program in programs {
            // The storer calls htgettoken, too, with what it was given.
            let is_told = ["htgettoken", "condor_vault_storer"].contains(&program);
            let expected = if is_told { expected.clone() } else { "none".to_owned() };
            assert_eq!(seen(&corner, program), [expected].into(), "{program} with {inherited:?}");
        }
    }
}

#[test]
fn children_see_what_they_need_of_the_environment_and_nothing_else() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "children", GOOD);
    let names = ["_condor_SITE", "CONDOR_CONFIG", "KRB5_CONFIG", "LC_ALL", "AWS_SECRET", "SSH_AUTH_SOCK", "GCONV_PATH"];
    let names = [&names[..], &["MANAGED_TOKENS_DEV_ENVIRONMENT_LABEL", "MT_CONFIG"]].concat();
    let programs = ["kinit", "htgettoken", "condor_status", "condor_vault_storer", "ping", "rsync"];
    for program in programs {
        corner.spy(program, &look(program, &names));
    }
    let given = [
        ("_condor_SITE", "here"),
        ("LC_ALL", "C"),
        ("AWS_SECRET", "no"),
        ("SSH_AUTH_SOCK", "/no"),
        ("GCONV_PATH", "/no"),
        ("MANAGED_TOKENS_DEV_ENVIRONMENT_LABEL", "no"),
    ];
    with(&corner, &PUSH, &given).is_quiet();
    let (condor, krb5) = (lab.path("condor/condor_config"), lab.path("krb5.conf"));
    let expected = format!("here|{}|{}|C|none|none|none|none|none", condor.display(), krb5.display());
    for program in programs {
        assert_eq!(seen(&corner, program), [expected.clone()].into(), "{program}");
    }
}

#[test]
fn the_label_of_the_environment_wins_for_metrics_and_loki() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "label", GOOD);
    configure(&corner, GOOD, |config| {
        config["devEnvironmentLabel"] = "of-the-file".into();
        config["prometheus"]["jobname"] = "label".into();
        config["loki"] = json!({ "host": "https://web.lab.test" });
    });
    let pages = || {
        let gateway = lab.run(&["curl", "-sS", "-m", "20", "http://pushgateway.lab.test:9091/metrics"]);
        let loki = fs::read_to_string(lab.path("out/loki.jsonl")).unwrap_or_default();
        (String::from_utf8(gateway.stdout).unwrap(), loki)
    };
    let label = "MANAGED_TOKENS_DEV_ENVIRONMENT_LABEL";
    with(&corner, &PUSH, &[(label, "laptop")]).is_quiet();
    let (gateway, loki) = pages();
    assert!(gateway.contains("job=\"label_laptop\"") && !gateway.contains("label_of-the-file"), "{gateway}");
    assert!(loki.contains("laptop") && !loki.contains("of-the-file"), "{loki}");
    // Set to nothing is not set; and `production` is no suffix.
    with(&corner, &PUSH, &[(label, "")]).is_quiet();
    let (gateway, loki) = pages();
    assert!(gateway.contains("job=\"label_of-the-file\"") && loki.contains("of-the-file"), "{gateway}");
    with(&corner, &PUSH, &[(label, "production")]).is_quiet();
    assert!(pages().0.contains("job=\"label\""));
}

#[test]
fn a_crash_of_mt_or_of_a_child_leaves_no_core_with_tokens_in_it() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "core");
    let found = corner.path("calls/limits");
    // The child, the worker and the guardian.
    let look = format!(
        "#!/bin/sh\nguardian=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$PPID/status)\nfor pid in $$ $PPID $guardian; do\n\
         echo $(grep -h 'core file' /proc/$pid/limits) $(cat /proc/$pid/coredump_filter) $(cat /proc/$pid/comm)\ndone >{}\n",
        found.display()
    );
    corner.program("look", &look);
    let step = r#"Step(name: "look", action: Exec(command: ["look"]), timeout: "1m")"#;
    corner.workflow("own", &format!(r#"Workflow(name: "own", for_each: Service, deadline: "5m", steps: [{step}])"#));
    let (_, most) = getrlimit(Resource::RLIMIT_CORE).unwrap();
    let mut command = corner.mt(&["run", "own", "-s", DUNE]);
    // SAFETY: setrlimit may be called between fork and exec.
    unsafe { command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_CORE, most, most)?)) };
    Ended::from(command.output().unwrap()).exits(0);
    let found = fs::read_to_string(found).unwrap();
    // With 0 a program in `core_pattern` would get it all the same; where it is 0 already, there is no memory in it.
    let limit = most.min(1);
    let expected = format!("Max core file size {limit} {limit} bytes 00000000");
    let expected = ["look", "mt", "mt-guardian"].map(|who| format!("{expected} {who}"));
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
}
