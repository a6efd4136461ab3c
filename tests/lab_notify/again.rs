//! Runs that do not get to their messages: killed before, or struck by the deadline.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::corner::wait_for;
use crate::support::lab::Lab;
use crate::{DUNE, LAB, NODE2, Scene, body, header};

/// Some seconds for the machines, the rest for `finally`.
const WORKFLOW: &str = r#"Workflow(
    name: "token-push", for_each: Service, deadline: "24s", reserve: "18s",
    steps: [
        Step(name: "kinit", action: Kinit, timeout: "5s", counts_as: Setup),
        Step(name: "get-vault-token", action: GetVaultToken, timeout: "5s", counts_as: Setup),
        Step(name: "push", action: Push, per: Node, timeout: "5s", on_failure: Continue, counts_as: Push),
    ],
    finally: [Step(name: "notify", action: Notify, timeout: "10s")],
)"#;

#[test]
fn the_messages_of_a_run_that_was_killed_after_its_failures_go_out_after_the_resume() {
    // Of its own, because of the faults.
    let Some(lab) = &Lab::up() else { return };
    let scene = Scene::new(lab, "killed");
    scene.configure(|config| config["errorCountToSendMessage"] = 1.into());
    scene.breaks(NODE2);
    lab.fault("smtp", "hang");
    lab.fault("slack", "hang");
    let run = scene.corner.start(&["run", "token-push", "-s", DUNE]);
    wait_for("the first message", || !scene.slack("usual").is_empty());
    let shown = scene.corner.show("latest");
    let worker = shown["sessions"][0]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid");
    kill(Pid::from_raw(worker), Signal::SIGKILL).expect("it is there");
    run.end();
    assert_eq!((scene.told(), scene.counter(Some(NODE2))), ([0, 0, 1], Some(1)));
    lab.fault("smtp", "ok");
    lab.fault("slack", "ok");
    scene.corner.run(&["runs", "resume"]).exits(11);
    assert_eq!((scene.told(), scene.counter(Some(NODE2))), ([1, 1, 2], Some(0)));
    let id = shown["id"].as_str().unwrap();
    let mail = &scene.mails("admin")[0];
    assert_eq!(header(mail, "Message-ID"), format!("<{id}.1.admins@lab.test>"), "it was prepared before the kill");
    assert!(!body(mail).contains("late"), "{}", body(mail));
    assert!(scene.slack("usual")[1].starts_with("(possibly a repeat)\n"), "{:?}", scene.slack("usual"));
    scene.corner.run(&["runs", "resume"]).exits(11);
    assert_eq!(scene.told(), [1, 1, 2], "what the run has told it does not tell again");
}

#[test]
fn a_run_that_is_told_to_stop_while_it_tells_people_ends_and_a_resume_tells_them() {
    // Of its own, because of the faults.
    let Some(lab) = &Lab::up() else { return };
    let shots = [("interrupted", Signal::SIGINT, 130), ("terminated", Signal::SIGTERM, 143)];
    for (name, signal, code) in shots {
        let scene = Scene::new(lab, name);
        scene.configure(|config| config["errorCountToSendMessage"] = 1.into());
        scene.breaks(NODE2);
        lab.fault("smtp", "hang");
        lab.fault("slack", "hang");
        let run = scene.corner.start(&["run", "token-push", "-s", DUNE]);
        wait_for("the first message", || !scene.slack("usual").is_empty());
        run.signal(signal);
        let ended = run.end();
        assert_eq!(ended.code, Some(code), "{}", ended.err);
        assert_eq!(scene.corner.processes(), [""; 0]);
        let shown = scene.corner.show("latest");
        assert_eq!((shown["status"].as_str(), scene.told()), (Some("interrupted"), [0, 0, 1]), "{signal}");
        lab.fault("smtp", "ok");
        lab.fault("slack", "ok");
        scene.corner.run(&["runs", "resume"]).exits(11);
        assert_eq!((scene.told(), scene.counter(Some(NODE2))), ([1, 1, 2], Some(0)), "{signal}");
        let last = scene.slack("usual").pop().expect("two messages");
        assert!(last.starts_with("(possibly a repeat)\n"), "nobody knows whether Slack took the first: {last}");
    }
}

#[test]
fn messages_go_out_when_the_deadline_has_struck() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "deadline");
    scene.configure(|config| {
        config["errorCountToSendMessage"] = 1.into();
        config["timeouts"]["globalTimeout"] = "24s".into();
        config["timeouts"]["pushTimeout"] = "60s".into();
    });
    let gate = scene.corner.hold("rsync");
    scene.corner.workflow("token-push", WORKFLOW);
    scene.run(&[]).exits(11);
    drop(gate);
    assert_eq!(scene.corner.show("latest")["status"], "timed-out");
    assert_eq!(scene.told(), [1, 1, 1]);
    let body = body(&scene.mails("admin")[0]);
    assert!(body.contains("deadline struck"), "{body}");
}
