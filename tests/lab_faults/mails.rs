//! Who is told, and when; and a mail server that does not work.

use std::fs;

use serde_json::json;

use super::judge::{self, unfolded};
use super::page;
use super::support::corner::{Corner, step, target};
use super::support::lab::{Lab, Mail};
use super::table::{Play, Who, played};

const ADMIN: &str = "admin@lab.test";
/// Seconds for telling people, as in the shipped workflow.
const NOTIFY: u32 = 15;

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
    assert!(told(&["kinit", "there is no keytab"]) && told(&["put the keytab", " at "]), "{mail}");
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

#[test]
fn a_mail_server_that_does_not_work_costs_neither_the_exit_code_nor_the_mail() {
    let Some(lab) = Lab::up() else { return };
    let corner = Corner::new(&lab, "server");
    configure(&corner, 1);
    let ill = ["run", "token-push", "-s", "ill_production"];
    for cell in played(Play::Mail) {
        let (name, arrives) = (cell.name, usize::from(cell.told.contains(&Who::Admins)));
        // No say in it: the exit code is that of the service.
        assert_eq!(cell.exit, [0; 0], "{name}");
        let before = to_admins(&lab).len();
        (cell.set)(&lab);
        corner.run(&ill).exits(11);
        let run = corner.show("latest");
        judge::target(cell, &run["steps"][0]["targets"][0], NOTIFY, str::to_owned).unwrap();
        let mails: Vec<String> = to_admins(&lab).iter().skip(before).map(unfolded).collect();
        assert_eq!(mails.len(), arrives, "{name}");
        let failed = target(&run, "ill_production", "kinit", "-");
        let told = judge::Told { who: cell.told, ..judge::Told::of_failure("ill_production", failed) };
        judge::told(&mails, &[], &[told]).unwrap();
        page::check(name, &corner.run(&["runs", "show"]).exits(0).out, &lab);
        if name == "smtp_killed" {
            break;
        }
        (cell.back)(&lab);
        corner.run(&ill).exits(11);
        let mails = to_admins(&lab);
        assert_eq!(mails.len(), before + arrives + 1, "{name}: it goes out with the next run, once");
        assert!(subject(mails.last().unwrap()).contains("ill_production"));
        assert_eq!(step_of_run(&corner), "succeeded");
        // Nothing is left to be told but that it works again, and that once.
        give_keytab(&corner, "ill.keytab");
        corner.run(&ill).exits(0);
        corner.run(&ill).exits(0);
        fs::remove_file(corner.path("ill.keytab")).unwrap();
        let more: Vec<String> = to_admins(&lab).iter().skip(mails.len()).map(subject).collect();
        assert_eq!(more, ["[managed tokens] ill_production works again"], "{name}");
    }
}

fn step_of_run(corner: &Corner) -> String {
    let run = corner.show("latest");
    assert_eq!(step(&run, "ill_production", "kinit")["status"], "failed");
    run["steps"][0]["status"].as_str().unwrap().to_owned()
}
