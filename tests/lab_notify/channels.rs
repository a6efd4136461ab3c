//! To whom, and over which kind of connection.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::{DUNE, LAB, NODE2, Scene, body, header};

fn at_once(config: &mut Value) {
    config["errorCountToSendMessage"] = 1.into();
}

#[test]
fn mail_goes_over_starttls_with_a_login_and_never_with_a_certificate_that_nobody_vouches_for() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "starttls");
    let password = scene.corner.path("password");
    std::fs::write(&password, "labpass\n").unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    scene.corner.give(&password);
    let secure = |config: &mut Value, ca: &str| {
        at_once(config);
        config["email"] = serde_json::json!({
            "from": "managed-tokens@lab.test", "smtpHost": "smtp.lab.test", "tls": "starttls",
            "username": "labuser", "passwordFile": password, "caFile": lab.path(ca),
        });
    };
    scene.breaks(NODE2);
    // Any certificate, but not the one that signed the server's.
    scene.configure(|config| secure(config, "ca/client.pem"));
    scene.fails(1);
    let (status, why) = scene.notify("latest");
    assert!(status == "failed" && why.contains("cannot be made safe"), "{status}: {why}");
    assert_eq!(scene.told(), [0, 0, 1], "Slack does not wait for mail");

    scene.configure(|config| secure(config, "ca/ca.pem"));
    scene.fails(1);
    assert_eq!(scene.told(), [1, 1, 2], "the ones that waited stand for the new ones");
    let envelopes = std::fs::read_dir(lab.path("out/mail")).unwrap().flatten().map(|entry| entry.path());
    let envelopes = envelopes.filter(|path| path.extension().is_some_and(|end| end == "json"));
    let mine = envelopes.map(|path| serde_json::from_str::<Value>(&std::fs::read_to_string(path).unwrap()).unwrap());
    let mine: Vec<Value> = mine.filter(|e| e["to"][0] == scene.address("admin").as_str()).collect();
    assert_eq!(mine.len(), 1);
    for envelope in &mine {
        assert_eq!(
            (&envelope["port"], &envelope["tls"], &envelope["login"]),
            (&587.into(), &true.into(), &true.into())
        );
    }
    std::fs::write(&password, "wrong\n").unwrap();
    scene.fails(1);
    let (_, why) = scene.notify("latest");
    assert!(why.contains("does not let labuser in") && !why.contains("wrong"), "{why}");
}

#[test]
fn a_recipient_whom_the_server_refuses_costs_the_others_nothing() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "refused");
    scene.configure(|config| {
        at_once(config);
        config["notifications"]["admin_email"] =
            vec![Value::from("bounce@lab.test"), scene.address("admin").into()].into();
        config["experiments"]["dune"]["emails"] = "bounce@lab.test".into();
    });
    scene.breaks(NODE2);
    scene.fails(1);
    assert_eq!(scene.mails("admin").len(), 1);
    assert_eq!(scene.counter(Some(NODE2)), Some(0));
    let (status, why) = scene.notify("latest");
    assert_eq!(status, "failed", "the stakeholders have no address that works");
    assert!(why.contains("550 5.1.1 no such user") || why.contains("no such user"), "{why}");
    assert!(why.contains("mail sent to admins, but not to bounce@lab.test"), "{why}");
    // The address is mended: what waits goes to the new one.
    scene.configure(at_once);
    scene.works();
    scene.run(&[]).exits(0);
    assert_eq!(scene.mails("dune").len(), 1);
    assert!(body(&scene.mails("dune")[0]).contains("(works again since: "));
}

#[test]
fn a_test_tells_every_error_at_once_to_the_test_recipients_and_slack_that_it_went_well() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "test-mode");
    scene.run(&["--test"]).exits(0);
    assert_eq!((scene.mails("test").len(), scene.told()), (0, [0, 0, 0]));
    let slack = scene.slack("test");
    assert!(slack.len() == 1 && slack[0].ends_with(": the test went well: 1 service"), "{slack:?}");
    scene.configure(|config| config["keytabPath"] = "/nowhere".into());
    scene.run(&["--test"]).exits(11);
    assert_eq!((scene.mails("test").len(), scene.slack("test").len()), (1, 2));
    assert_eq!((scene.told(), scene.counter(None)), ([0, 0, 0], None));
}

#[test]
fn switches_and_the_command_line_decide_who_is_told() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "switches");
    scene.configure(at_once);
    scene.breaks(NODE2);
    scene.run(&["--no-notify"]).exits(11);
    assert_eq!((scene.told(), scene.counter(Some(NODE2))), ([0, 0, 0], Some(1)), "it counts on");
    let other = scene.address("other");
    scene.run(&["--admin", &other]).exits(11);
    assert_eq!((scene.mails("other").len(), scene.told()), (1, [0, 1, 1]));
    let switch = |global: bool, own: Option<bool>| {
        scene.configure(|config| {
            at_once(config);
            config["disableNotifications"] = global.into();
            if let Some(own) = own {
                config["experiments"]["dune"]["roles"]["production"]["disableNotificationsOverride"] = own.into();
            }
        });
        scene.fails(1);
        scene.told()
    };
    assert_eq!(switch(true, None), [0, 1, 1]);
    assert_eq!(switch(false, Some(true)), [0, 1, 1]);
    assert_eq!(switch(true, Some(false)), [1, 2, 2]);
}

#[test]
fn a_configuration_that_cannot_be_used_is_told_to_the_admins_at_once() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "broken");
    scene.configure(|config| config["timeouts"]["pushTimeout"] = "soon".into());
    scene.run(&["--no-notify"]).exits(20);
    assert_eq!(scene.told(), [0, 0, 0]);
    scene.run(&[]).exits(20);
    assert_eq!(scene.told(), [1, 0, 1]);
    let mail = &scene.mails("admin")[0];
    assert_eq!(header(mail, "Subject"), "[managed tokens] token-push could not begin");
    assert!(body(mail).contains("timeouts.pushTimeout: \"soon\" is not a duration"), "{}", body(mail));
    // And a workflow.
    scene.configure(|_| {});
    scene.corner.workflow(
        "token-push",
        "Workflow(name: \"token-push\", for_each: Service, deadline: \"5m\", steps: [Step(nam: 1)])",
    );
    scene.run(&[]).exits(20);
    assert_eq!(scene.told(), [2, 0, 2]);
}

#[test]
fn a_store_that_cannot_be_used_is_told_with_every_error_of_the_run() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "no-store");
    scene.breaks(NODE2);
    std::fs::write(scene.corner.state().join("store"), "not a directory").unwrap();
    scene.run(&[]).exits(21);
    assert_eq!(scene.told(), [1, 0, 1], "the stakeholders are not told: nobody knows the counters");
    let body = body(&scene.mails("admin")[0]);
    assert!(body.contains("the store cannot be used; the work was done and is not recorded"), "{body}");
    assert!(body.contains(DUNE) && body.contains(NODE2), "{body}");
}

#[test]
fn a_sites_own_words_go_out_and_a_broken_template_costs_no_mail() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "words");
    let template = scene.corner.path("admin.txt");
    let write = |text: &str| {
        std::fs::write(&template, text).unwrap();
        std::fs::set_permissions(&template, std::fs::Permissions::from_mode(0o644)).unwrap();
    };
    scene.configure(|config| {
        at_once(config);
        config["templates"]["adminMail"] = template.to_str().into();
    });
    scene.breaks(NODE2);
    write("Subject: our words: {{ summary }}\n\n{% for s in services %}{{ s.name }}{% endfor %}\n");
    scene.fails(1);
    assert_eq!(body(&scene.mails("admin")[0]).trim(), DUNE);
    write("Subject: x\n\n{{ nonsense }}\n");
    let said = scene.run(&[]).exits(11).err;
    assert!(said.contains("admin.txt:3: undefined value"), "{said}");
    assert!(body(&scene.mails("admin")[1]).contains("the site's own text cannot be used"));
    let check = scene.corner.run(&["config", "check"]).exits(20);
    assert!(check.out.contains("admin.txt:3:1"), "{check:?}");
}
