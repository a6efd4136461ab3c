//! Workflows as users edit them.

use serde_json::{Value, json};

use crate::support::corner::{Corner, step, target, wait_for};
use crate::{DUNE, LAB, NODE1, NODE2};

const KINIT: &str = r#"Step(name: "kinit", action: Kinit, timeout: "20s", on_failure: Stop, counts_as: Setup),"#;
const GET: &str =
    r#"Step(name: "get-vault-token", action: GetVaultToken, timeout: "60s", on_failure: Stop, counts_as: Setup),"#;
const STORE: &str = r#"Step(name: "store-in-credd", action: StoreInCredd, per: Credd, timeout: "60s", on_failure: Continue, counts_as: Setup),"#;
const PUSH: &str = r#"Step(name: "push", action: Push, per: Node, timeout: "30s", on_failure: Continue, counts_as: Push,
    retry: Retry(times: 1, backoff: ("10ms", "10ms"))),"#;

/// A step with a program of the site's own.
fn own(corner: &Corner, name: &str, program: &str, more: &str) -> String {
    let program = corner.path("bin").join(program);
    let program = program.display();
    format!(
        r#"Step(name: "{name}", action: Exec(command: ["{program}", "a word"], {more}), per: Node, timeout: "20s",
    on_failure: Continue, counts_as: Setup),"#
    )
}

fn workflow(steps: &[&str]) -> String {
    let steps = steps.join("\n");
    format!(
        r#"Workflow(
    name: "token-push", for_each: Service, deadline: "5m", overlap: Skip, interrupted: ResumeWithin("30m"),
    steps: [
{steps}
    ],
    finally: [Step(name: "notify", action: Notify, timeout: "15s")],
)"#
    )
}

fn step_names(run: &Value) -> Vec<&str> {
    let steps = run["machines"][0]["steps"].as_array().expect("steps");
    steps.iter().map(|step| step["name"].as_str().expect("a name")).collect()
}

fn moment<'v>(run: &'v Value, step: &str, name: &str, what: &str) -> &'v str {
    let attempts = target(run, DUNE, step, name)["attempts"].as_array().expect("attempts");
    attempts.last().expect("an attempt")[what].as_str().expect("a time")
}

#[test]
fn steps_can_be_moved_removed_and_added_and_a_sites_own_program_gets_what_it_needs_to_know() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "edited");
    corner.configure(|config| {
        let role = &mut config["experiments"]["dune"]["roles"]["production"];
        role["tokenGetterOverride"] = "storeAndGetToken".into();
        role["condorCreddHostOverride"] = "schedd1.lab.test".into();
    });
    // Push before store-in-credd, no ping, other retries, and a program of the site's own for every node.
    let own_step = own(&corner, "tell", "tell", "needs: [Ticket, VaultToken]");
    corner.workflow("token-push", &workflow(&[KINIT, GET, PUSH, &own_step, STORE]));
    let told = corner.path("calls");
    corner.program(
        "tell",
        &format!(
            "#!/bin/sh\ncd {}\nenv >env-$MT_TARGET\nprintf %s \"$*\" >words-$MT_TARGET\ncp \"$MT_TOKEN_FILE\" token-$MT_TARGET\nklist -s\n",
            told.display()
        ),
    );
    corner.spy("ping", "");
    let first = corner.path("calls/first");
    corner.spy(
        "rsync",
        &format!(
            "case \"$*\" in *{NODE1}*) if mkdir {} 2>/dev/null; then \
             echo 'ssh: connect to host {NODE1} port 22: Connection refused' >&2; exit 255; fi;; esac",
            first.display()
        ),
    );

    corner.run(&["workflow", "check", "token-push"]).exits(0);
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    let run = corner.show("latest");
    assert_eq!(step_names(&run), ["kinit", "get-vault-token", "push", "tell", "store-in-credd"]);
    assert_eq!(corner.calls("ping"), [""; 0]);
    let tries = target(&run, DUNE, "push", NODE1)["attempts"].as_array().expect("attempts");
    assert_eq!(tries.iter().map(|a| &a["outcome"]).collect::<Vec<_>>(), ["failed", "succeeded"]);
    assert_eq!((&tries[0]["class"], corner.calls("rsync").len()), (&json!("transient"), 3));
    let order = [("push", NODE1), ("tell", NODE1), ("store-in-credd", "schedd1.lab.test")];
    for pair in order.windows(2) {
        let ended = moment(&run, pair[0].0, pair[0].1, "ended_at");
        assert!(ended <= moment(&run, pair[1].0, pair[1].1, "started_at"), "{pair:?}");
    }

    let kept = corner.path(format!("tokens/vt_u{}-{DUNE}", corner.own_uid()));
    let kept = std::fs::read_to_string(kept).expect("it is kept");
    let id = run["id"].as_str().expect("an id");
    for node in [NODE1, NODE2] {
        let read =
            |what: &str| std::fs::read_to_string(told.join(format!("{what}-{node}"))).expect("the program wrote it");
        assert_eq!((read("words"), read("token")), ("a word".to_owned(), kept.clone()));
        let environment = read("env");
        let variables: Vec<(&str, &str)> = environment.lines().filter_map(|line| line.split_once('=')).collect();
        let value = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        for (name, expected) in [
            ("MT_RUN", id),
            ("MT_SERVICE", DUNE),
            ("MT_EXPERIMENT", "dune"),
            ("MT_ROLE", "production"),
            ("MT_ACCOUNT", "dunepro"),
            ("MT_UID", "1234"),
            ("MT_TARGET", node),
        ] {
            assert_eq!(value(name), Some(expected), "{name}");
        }
        assert!(value("KRB5CCNAME").is_some_and(|cache| cache.starts_with("FILE:")));
        assert_eq!((value("MT_CONFIG"), value("MT_STATE_DIR")), (None, None), "ours stay ours");
        assert!(!variables.iter().any(|(_, value)| value.contains(kept.trim())), "no token in the environment");
    }
}

#[test]
fn a_start_that_goes_on_with_a_cut_off_run_does_so_with_its_definition_and_the_next_one_has_the_present_one() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "in-place");
    corner.program("late", &format!("#!/bin/sh\necho \"$MT_TARGET\" >>{}/late\n", corner.path("calls").display()));
    corner.workflow("token-push", &workflow(&[KINIT, GET, PUSH, &own(&corner, "late", "late", "")]));
    let gate = corner.hold("rsync");
    let run = corner.start(&["run", "token-push", "-s", DUNE]);
    wait_for("both pushes", || corner.calls("rsync").len() == 2);
    run.signal(nix::sys::signal::Signal::SIGTERM);
    run.end().exits(143);
    gate.open();
    corner.workflow("token-push", &workflow(&[KINIT, GET, PUSH]));
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    assert_eq!((corner.runs().len(), corner.calls("late").len()), (1, 2));
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    assert_eq!((corner.runs().len(), corner.calls("late").len()), (2, 2));
}

#[test]
fn a_run_is_resumed_with_the_definition_it_was_made_with_unless_the_present_one_is_asked_for() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "pinned");
    let ready = corner.path("calls/ready");
    let late = |name: &str| {
        let script = format!(
            "#!/bin/sh\necho \"$MT_TARGET\" >>{}/{name}\ntest -e {}\n",
            corner.path("calls").display(),
            ready.display()
        );
        corner.program(name, &script);
        own(&corner, "late", name, "")
    };
    let first = workflow(&[KINIT, GET, PUSH, &late("late-1")]);
    corner.workflow("token-push", &first);
    corner.run(&["run", "token-push", "-s", DUNE]).exits(11);
    let id = corner.show("latest")["id"].as_str().expect("an id").to_owned();
    assert_eq!(step(&corner.show(&id), DUNE, "late")["status"], "failed");
    assert_eq!(corner.calls("late-1").len(), 2);

    // The step is removed from the file: the present definition cannot finish this run, and says what can.
    corner.workflow("token-push", &workflow(&[KINIT, GET, PUSH]));
    let refused = corner.run(&["runs", "resume", &id, "--definition", "latest"]).exits(20);
    for word in ["late", "--definition pinned", "mt run token-push"] {
        assert!(refused.err.contains(word), "{word}: {refused:?}");
    }
    assert_eq!(corner.show(&id)["sessions"].as_array().map(Vec::len), Some(1), "it was not touched");
    // So is one that works over something else: its outcomes would stand beside those of the nodes.
    let whole = late("late-1").replace("per: Node", "per: Subject");
    corner.workflow("token-push", &workflow(&[KINIT, GET, PUSH, &whole]));
    for more in [&["--explain"][..], &[]] {
        let refused = corner.run(&[&["runs", "resume", &id, "--definition", "latest"], more].concat()).exits(20);
        for word in ["step late", "per: Node", "per: Subject", "--definition pinned"] {
            assert!(refused.err.contains(word), "{word}: {refused:?}");
        }
    }
    assert_eq!(corner.show(&id)["sessions"].as_array().map(Vec::len), Some(1), "it was not touched");
    corner.run(&["runs", "resume", &id]).exits(11);
    assert_eq!(corner.calls("late-1").len(), 4, "the pinned one still has it");

    // Not even a file that cannot be read is in the way of a pinned run; a new one does not start.
    corner.workflow("token-push", "Workflow(\n    name: ");
    let broken = corner.run(&["run", "token-push", "-s", DUNE]).exits(20);
    assert!(broken.err.contains("token-push.ron:2"), "{broken:?}");
    corner.run(&["runs", "resume", &id]).exits(11);
    assert_eq!(corner.calls("late-1").len(), 6);

    // The present one, with all the steps under the names they had, is taken if asked for.
    corner.workflow("token-push", &workflow(&[KINIT, GET, PUSH, &late("late-2")]));
    std::fs::write(&ready, "").expect("it can be written");
    corner.run(&["runs", "resume", &id, "--definition", "latest"]).is_quiet();
    assert_eq!((corner.calls("late-1").len(), corner.calls("late-2").len()), (6, 2));
    assert_eq!(corner.show(&id)["status"], "succeeded");
}

#[test]
fn one_run_that_cannot_be_resumed_keeps_no_other_from_it() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "several");
    let ready = corner.path("ready");
    corner.program("work", &format!("#!/bin/sh\ntest -e {}\n", ready.display()));
    let define = |name: &str, per: &str| {
        let step = format!(r#"Step(name: "work", action: Exec(command: ["work"]), per: {per}, timeout: "20s")"#);
        let text = format!(r#"Workflow(name: "{name}", for_each: Service, deadline: "5m", steps: [{step}])"#);
        corner.workflow(name, &text);
    };
    let ids = ["older", "newer"].map(|name| {
        define(name, "Subject");
        corner.run(&["run", name, "-s", DUNE]).exits(11);
        corner.show("latest")["id"].as_str().expect("an id").to_owned()
    });
    define("older", "Node");
    std::fs::write(&ready, "").expect("it can be written");
    let ended = corner.run(&["runs", "resume", "--failed", "--definition", "latest"]).exits(20);
    assert!(ended.err.contains(&ids[0]) && ended.err.contains("per: Node"), "{ended:?}");
    assert_eq!(ids.map(|id| corner.show(&id)["status"].clone()), ["failed", "succeeded"]);
}

#[test]
fn a_resume_of_several_that_is_asked_to_stop_leaves_the_others_as_they_are() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "several-stopped");
    corner.program("work", "#!/bin/sh\nexit 1\n");
    let ids = ["older", "newer"].map(|name| {
        let step = r#"Step(name: "work", action: Exec(command: ["work"]), timeout: "60s")"#;
        let text = format!(r#"Workflow(name: "{name}", for_each: Service, deadline: "5m", steps: [{step}])"#);
        corner.workflow(name, &text);
        corner.run(&["run", name, "-s", DUNE]).exits(11);
        corner.show("latest")["id"].as_str().expect("an id").to_owned()
    });
    let called = corner.path("calls").join("work");
    let script = format!("#!/bin/sh\necho called >>{}\nexec sleep 1000\n", called.display());
    corner.program("work", &script);
    let resume = corner.start(&["runs", "resume", "--failed"]);
    wait_for("the older run's work", || !corner.calls("work").is_empty());
    // A person ends that run for good; the process hears of it by SIGTERM.
    corner.run(&["runs", "cancel", &ids[0]]).exits(0);
    let ended = resume.end().exits(143);
    assert!(ended.err.contains(&format!("run {} is left as it is", ids[1])), "{ended:?}");
    let found = ids.map(|id| corner.show(&id));
    assert_eq!(found.each_ref().map(|run| run["status"].clone()), ["cancelled", "failed"]);
    assert_eq!(found[1]["sessions"].as_array().expect("its sessions").len(), 1);
}
