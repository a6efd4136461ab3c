//! Channels that hang, refuse, or take a message and do not say so. In a laboratory of its own, because of the faults.

use crate::support::lab::Lab;
use crate::{NODE2, Scene, body, header};

#[test]
fn a_channel_in_trouble_keeps_its_messages_and_disturbs_no_other() {
    let Some(lab) = Lab::up() else { return };
    let scene = Scene::new(&lab, "faults");
    scene.configure(|config| config["errorCountToSendMessage"] = 1.into());
    scene.breaks(NODE2);

    // A mail server that says nothing: certainly nothing was sent, and Slack has it long since.
    lab.fault("smtp", "hang");
    scene.fails(1);
    assert_eq!((scene.told(), scene.counter(Some(NODE2))), ([0, 0, 1], Some(0)));
    let (status, why) = scene.notify("latest");
    assert!(status == "timed-out" && why.contains("says nothing") && why.contains("sent to Slack"), "{status}: {why}");

    // One that takes the mail and does not confirm it: it may have arrived.
    lab.fault("smtp", "lost 60");
    scene.fails(1);
    let arrived = scene.mails("admin");
    assert_eq!(arrived.len(), 1, "the late one; the server is not tried with another");
    let subject = header(&arrived[0], "Subject");
    assert!(subject.ends_with("(late)"), "{subject}");

    lab.fault("smtp", "ok");
    lab.fault("slack", "status 404");
    scene.fails(1);
    let repeated = &scene.mails("admin")[1];
    assert_eq!(header(repeated, "Message-ID"), header(&arrived[0], "Message-ID"), "mail programs show it once");
    assert!(body(repeated).contains("(possibly a repeat)"), "{}", body(repeated));
    let (_, why) = scene.notify("latest");
    assert!(why.contains("Slack answers 404") && !why.contains("web.lab.test"), "the webhook is a secret: {why}");

    lab.fault("slack", "ok");
    scene.fails(1);
    let late = scene.slack("usual").into_iter().filter(|text| text.starts_with("(late: from the run of ")).count();
    assert_eq!(late, 1);
    assert_eq!(scene.counter(Some(NODE2)), Some(1), "told of the run before; the present one waited for that");
}
