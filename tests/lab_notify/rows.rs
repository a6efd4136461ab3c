//! Rows of errors over several runs: who is told, how often, and what the counters say.

use crate::{DUNE, LAB, NODE1, NODE2, Scene, body, header, settled};

#[test]
fn three_failures_in_a_row_are_told_once_to_each_group_and_the_counter_is_zero() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "thrice");
    scene.breaks(NODE2);
    scene.fails(2);
    assert_eq!((scene.told(), scene.counter(Some(NODE2))), ([0, 0, 0], Some(2)));
    scene.fails(1);
    assert_eq!((scene.told(), scene.counter(Some(NODE2))), ([1, 1, 1], Some(0)));
    scene.fails(1);
    assert_eq!((scene.told(), scene.counter(Some(NODE2))), ([1, 1, 1], Some(1)));
    assert_eq!((scene.counter(Some(NODE1)), scene.counter(None)), (None, None), "what worked is not counted");

    let (admin, stakeholder) = (&scene.mails("admin")[0], &scene.mails("dune")[0]);
    let show = |mail| settled(&format!("Subject: {}\n\n{}", header(mail, "Subject"), body(mail)));
    insta::assert_snapshot!("admins", show(admin));
    insta::assert_snapshot!("stakeholders", show(stakeholder));
    insta::assert_snapshot!("slack", settled(&scene.slack("usual")[0]));
    let run = scene.corner.runs()[1]["id"].as_str().unwrap().to_owned();
    assert_eq!(header(admin, "Message-ID"), format!("<{run}.1.admins@lab.test>"));
    assert_eq!(header(stakeholder, "Message-ID"), format!("<{run}.1.stakeholders-{DUNE}@lab.test>"));
    let shown = scene.corner.run(&["runs", "show", &run]).exits(0).out;
    assert!(shown.contains("mail and slack sent (3rd failure in a row)"), "{shown}");
}

#[test]
fn a_failure_that_is_mended_before_the_threshold_reaches_nobody() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "mended");
    scene.breaks(NODE2);
    scene.fails(2);
    scene.works();
    scene.run(&[]).is_quiet();
    assert_eq!((scene.told(), scene.counter(Some(NODE2))), ([0, 0, 0], None));
}

#[test]
fn a_counter_of_what_was_not_tried_stays_as_it_is() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "not-tried");
    scene.breaks(NODE2);
    scene.fails(2);
    // Without a ticket nothing is pushed.
    scene.configure(|config| config["keytabPath"] = "/nowhere".into());
    scene.fails(1);
    assert_eq!((scene.counter(Some(NODE2)), scene.counter(None)), (Some(2), Some(1)));
    assert_eq!(scene.told(), [0, 0, 0]);
}

#[test]
fn what_could_not_be_sent_is_sent_once_by_the_next_run_and_says_that_it_is_late() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "late");
    let only_mail = |config: &mut serde_json::Value| config["notifications"]["slack_alerts_url"] = "".into();
    scene.configure(|config| {
        only_mail(config);
        Scene::without_mail_server(config);
    });
    scene.breaks(NODE2);
    scene.fails(3);
    let (status, why) = scene.notify("latest");
    assert_eq!(status, "failed");
    assert!(why.contains("Connection refused"), "{why}");
    assert_eq!((scene.told(), scene.counter(Some(NODE2))), ([0, 0, 0], Some(3)), "the counter stays");
    // Nor does a channel that is new tell what waits in another.
    scene.configure(Scene::without_mail_server);
    scene.fails(1);
    assert_eq!((scene.told(), scene.counter(Some(NODE2))), ([0, 0, 0], Some(4)));
    scene.configure(only_mail);
    scene.fails(1);
    assert_eq!((scene.told(), scene.counter(Some(NODE2))), ([1, 1, 0], Some(2)), "five failures, three of them told");
    let mail = &scene.mails("admin")[0];
    assert!(header(mail, "Subject").ends_with("for 3 runs (late)"), "{}", header(mail, "Subject"));
    assert!(body(mail).starts_with("(late: from the run of "), "{}", body(mail));
    let third = scene.corner.runs()[2]["id"].as_str().unwrap().to_owned();
    assert_eq!(header(mail, "Message-ID"), format!("<{third}.1.admins@lab.test>"));
    scene.fails(1);
    assert_eq!((scene.told(), scene.counter(Some(NODE2))), ([2, 2, 0], Some(0)), "three more are told in their time");
}

#[test]
fn a_counter_that_two_channels_report_is_subtracted_once() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "twice");
    scene.configure(Scene::without_mail_server);
    scene.breaks(NODE2);
    scene.fails(3);
    assert_eq!((scene.told(), scene.counter(Some(NODE2))), ([0, 0, 1], Some(0)), "Slack has it");
    scene.configure(|_| {});
    scene.fails(1);
    assert_eq!((scene.told(), scene.counter(Some(NODE2))), ([1, 1, 1], Some(1)), "the mails come late");
}

#[test]
fn what_works_again_is_told_once_to_those_who_were_told() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "again");
    scene.breaks(NODE2);
    scene.fails(3);
    scene.works();
    scene.run(&[]).exits(0);
    scene.run(&[]).exits(0);
    assert_eq!(scene.told(), [2, 2, 2]);
    let again = format!("{DUNE} {NODE2} works again");
    for who in ["admin", "dune"] {
        let mail = &scene.mails(who)[1];
        assert_eq!(header(mail, "Subject"), format!("[managed tokens] {again}"));
    }
    assert!(scene.slack("usual")[1].contains(&again));
}

#[test]
fn what_works_again_before_its_report_could_be_sent_is_one_mail() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "overtaken");
    scene.configure(|config| {
        config["notifications"]["slack_alerts_url"] = "".into();
        Scene::without_mail_server(config);
    });
    scene.breaks(NODE2);
    scene.fails(3);
    scene.works();
    scene.configure(|config| config["notifications"]["slack_alerts_url"] = "".into());
    scene.run(&[]).exits(0);
    scene.run(&[]).exits(0);
    assert_eq!((scene.told(), scene.counter(Some(NODE2))), ([1, 1, 0], None));
    let body = body(&scene.mails("admin")[0]);
    assert!(body.contains(&format!("(works again since: {DUNE} {NODE2})")), "{body}");
}

#[test]
fn a_counter_can_be_set_back() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "reset");
    scene.breaks("lab.test");
    scene.fails(1);
    let list = scene.corner.run(&["counters", "list"]).exits(0).out;
    assert!(list.lines().any(|line| line.contains(NODE2) && line.contains("1 of 3")), "{list}");
    let reset = scene.corner.run(&["counters", "reset", DUNE, NODE2]).exits(0);
    assert_eq!(reset.err, format!("{DUNE} {NODE2}: 0 (was 1)\n"));
    assert_eq!((scene.counter(Some(NODE1)), scene.counter(Some(NODE2))), (Some(1), None));
    scene.corner.run(&["counters", "reset", DUNE]).exits(0);
    assert_eq!(scene.corner.run(&["counters", "list"]).exits(0).out, "no service has errors in a row\n");
    scene.corner.run(&["counters", "reset", "dune_nobody"]).exits(2);
}
