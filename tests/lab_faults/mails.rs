//! Who is told, and when; and a mail server that does not work.

use std::fs;

use serde_json::json;

use super::page;
use super::support::corner::{Corner, step};
use super::support::lab::{Lab, Mail};

const ADMIN: &str = "admin@lab.test";

/// `ill` has no keytab; `full` has one full node and one good. Both fail at once.
fn configure(corner: &Corner, threshold: u32) {
    corner.configure(|config| {
        let role = |keytab: &str, nodes: &[&str]| {
            json!({ "production": {
                "account": "dunepro", "desiredUIDOverride": 1234, "destinationNodes": nodes, "tokenGetterOverride": "getToken",
                "keytabPathOverride": corner.path(keytab).to_str().unwrap(),
            }})
        };
        config["errorCountToSendMessage"] = threshold.into();
        // A report that Slack has taken would not wait for the mail server.
        config["notifications"]["slack_alerts_url"] = "".into();
        config["experiments"] = json!({
            "ill": { "experimentOverride": "dune", "roles": role("ill.keytab", &["node2.lab.test"]) },
            "full": { "experimentOverride": "dune", "roles": role("good.keytab", &["node2.lab.test", "node3.lab.test"]) },
        });
    });
    give_keytab(corner, "good.keytab");
    // The shipped one, with less patience for the mail server.
    let shipped = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/workflows/token-push.ron")).unwrap();
    let quick = shipped.replace("action: Notify, timeout: \"15s\"", "action: Notify, timeout: \"3s\"");
    assert_ne!(quick, shipped);
    corner.workflow("token-push", &quick);
}

fn give_keytab(corner: &Corner, name: &str) {
    let keytab = corner.path(name);
    fs::copy(corner.lab.path("keytabs/dunepro.keytab"), &keytab).unwrap();
    corner.give(&keytab);
}

fn to_admins(lab: &Lab) -> Vec<Mail> {
    lab.mails().into_iter().filter(|mail| mail.to == [ADMIN]).collect()
}

fn subject(mail: &Mail) -> String {
    unfolded(mail).lines().find_map(|line| line.strip_prefix("Subject: ")).expect("a subject").to_owned()
}

/// The message with its lines whole again.
fn unfolded(mail: &Mail) -> String {
    let text = mail.text.replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").expect("a header and a body");
    format!("{}\n\n{}", head.replace("\n ", " "), body.replace("=\n", "").replace("=3D", "="))
}

#[test]
fn admins_get_one_mail_when_a_row_of_failures_reaches_the_limit_and_a_success_begins_a_new_row() {
    let Some(lab) = Lab::up() else { return };
    let corner = Corner::new(&lab, "rows");
    configure(&corner, 3);
    let all = ["run", "token-push"];
    for run in 1..=4 {
        corner.run(&all).exits(11);
        assert_eq!(to_admins(&lab).len(), usize::from(run >= 3), "after run {run}");
        if run == 3 {
            let shown = corner.run(&["runs", "show"]).exits(0).out;
            assert!(shown.contains("mail sent (3rd failure in a row)"), "{shown}");
        }
    }
    let mail = unfolded(&to_admins(&lab)[0]);
    let told = |words: &[&str]| mail.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(told(&["Subject: [managed tokens] ", "full_production", "ill_production"]), "{mail}");
    assert!(told(&["kinit", "there is no keytab"]) && told(&["put the keytab", "there"]), "{mail}");
    assert!(told(&["Node", "Error"]) && told(&["node3.lab.test", " 3 ", "No space left on device"]), "{mail}");
    assert!(!mail.contains("node2.lab.test"), "it works: {mail}");

    // Fails (that was the fourth), works, fails, fails: never three in a row.
    let ill = ["run", "token-push", "-s", "ill_production"];
    give_keytab(&corner, "ill.keytab");
    corner.run(&ill).exits(0);
    assert_eq!(subject(&to_admins(&lab)[1]), "[managed tokens] ill_production works again");
    fs::remove_file(corner.path("ill.keytab")).unwrap();
    corner.run(&ill).exits(11);
    corner.run(&ill).exits(11);
    assert_eq!(to_admins(&lab).len(), 2);
    corner.run(&ill).exits(11);
    let mails = to_admins(&lab);
    assert_eq!(mails.len(), 3);
    assert!(
        subject(&mails[2]).contains("ill_production") && !mails[2].text.contains("full_production"),
        "{}",
        mails[2].text
    );
}

/// The mail server does not work, in one of these ways.
pub struct MailFault {
    pub what: &'static str,
    pub does: &'static str,
    fault: &'static str,
    pub status: &'static str,
    pub class: &'static str,
    pub code: &'static str,
    says: &'static str,
    pub next: &'static str,
    /// How many mails have arrived all the same.
    arrives: usize,
}

const STAYS: &str = "the mail stays in the outbox; the next run sends it";

/// The last is for good.
pub const SERVER: &[MailFault] = &[
    MailFault {
        what: "the mail server refuses",
        does: STAYS,
        fault: "refuse",
        status: "failed",
        class: "permanent",
        code: "MT0060",
        says: "the mail server smtp.lab.test:25: permanent error (550): 5.7.1 this server takes no mail from you",
        next: "correct email.from or the addresses",
        arrives: 0,
    },
    MailFault {
        what: "the mail server says: later",
        does: STAYS,
        fault: "tempfail",
        status: "failed",
        class: "transient",
        code: "MT0062",
        says: "the mail server smtp.lab.test:25: transient error (451): 4.3.0 try again later",
        next: "look at the mail server",
        arrives: 0,
    },
    MailFault {
        what: "the mail server hangs",
        does: STAYS,
        fault: "hang",
        status: "timed-out",
        class: "timeout",
        code: "MT0065",
        says: "the mail server smtp.lab.test:25 did not answer in time",
        next: "look at the mail server",
        arrives: 0,
    },
    MailFault {
        what: "the mail server takes the mail and does not say so",
        does: "it may come twice",
        fault: "lost",
        status: "timed-out",
        class: "timeout",
        code: "MT0065",
        says: "the mail server smtp.lab.test:25 did not answer in time",
        next: "look at the mail server",
        arrives: 1,
    },
    MailFault {
        what: "no mail server",
        does: STAYS,
        fault: "killed",
        status: "failed",
        class: "transient",
        code: "MT0061",
        says: "the mail server smtp.lab.test:25: Connection error: Connection refused",
        next: "look at the mail server",
        arrives: 0,
    },
];

#[test]
fn a_mail_server_that_does_not_work_costs_neither_the_exit_code_nor_the_mail() {
    let Some(lab) = Lab::up() else { return };
    let corner = Corner::new(&lab, "server");
    configure(&corner, 1);
    let ill = ["run", "token-push", "-s", "ill_production"];
    for MailFault { fault, status, class, code, says, next, arrives, .. } in SERVER {
        let before = to_admins(&lab).len();
        match *fault {
            "killed" => lab.kill("smtp"),
            fault => lab.fault("smtp", fault),
        }
        corner.run(&ill).exits(11);
        let run = corner.show("latest");
        let notify = &run["steps"][0];
        let last = &notify["targets"][0]["attempts"][0];
        let found = [&notify["status"], &last["class"], &last["code"], &last["next"]];
        assert_eq!(
            found.map(|value| value.as_str().unwrap_or("null")),
            [*status, class, code, next],
            "{fault}: {notify:#}"
        );
        assert!(last["message"].as_str().unwrap().contains(says), "{fault}: {last:#}");
        assert_eq!(to_admins(&lab).len(), before + arrives, "{fault}");
        page::check(&format!("smtp_{fault}"), &corner.run(&["runs", "show"]).exits(0).out, &lab);
        if *fault == "killed" {
            break;
        }
        lab.fault("smtp", "ok");
        corner.run(&ill).exits(11);
        let mails = to_admins(&lab);
        assert_eq!(mails.len(), before + arrives + 1, "{fault}: it goes out with the next run, once");
        assert!(subject(mails.last().unwrap()).contains("ill_production"));
        assert_eq!(step_of_run(&corner), "succeeded");
        // Nothing is left to be told but that it works again, and that once.
        give_keytab(&corner, "ill.keytab");
        corner.run(&ill).exits(0);
        corner.run(&ill).exits(0);
        fs::remove_file(corner.path("ill.keytab")).unwrap();
        let more: Vec<String> = to_admins(&lab).iter().skip(mails.len()).map(subject).collect();
        assert_eq!(more, ["[managed tokens] ill_production works again"], "{fault}");
    }
}

fn step_of_run(corner: &Corner) -> String {
    let run = corner.show("latest");
    assert_eq!(step(&run, "ill_production", "kinit")["status"], "failed");
    run["steps"][0]["status"].as_str().unwrap().to_owned()
}
