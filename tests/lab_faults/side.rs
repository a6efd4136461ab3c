//! Plays pushgateway, Slack, Loki and trace collector: all of them meet a fault in one run, which nobody but its readers notices.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::judge::{self, Told, expect, mails_to};
use super::support::corner::{Corner, Ended, target};
use super::support::lab::Lab;
use super::table::{Cell, Ends, Fault, Peer, Play, played};
use super::{TIMES, page};

const ADMIN: &str = "admin@lab.test";
/// Seconds for telling people, as in the shipped workflow.
const NOTIFY: u32 = 15;
/// A gremlin in front of the gateway and one in front of the web server, at these ports; nobody is at 7002.
const GREMLINS: (u16, u16) = (7031, 7032);
const NOBODY: (u16, u16) = (7002, 7002);

/// One service is well, one has no keytab: there is something to tell.
fn configure(corner: &Corner, (gateway, web): (u16, u16)) {
    corner.configure(|config| {
        let role = |keytab: &str| {
            json!({ "production": {
                "account": "dunepro", "desiredUIDOverride": 1234, "destinationNodes": ["node2.lab.test"],
                "tokenGetterOverride": "getToken",
                "keytabPathOverride": corner.lab.path(format!("keytabs/{keytab}.keytab")).to_str().unwrap(),
            }})
        };
        config["errorCountToSendMessage"] = 1.into();
        config["notifications"]["slack_alerts_url"] = format!("https://web.lab.test:{web}/services/T0/B0/x").into();
        let host = format!("http://pushgateway.lab.test:{gateway}");
        config["prometheus"] = json!({ "host": host, "jobname": "side" });
        config["loki"] = json!({ "host": format!("https://web.lab.test:{web}"), "response_header_timeout": "2s" });
        config["tracing"] = json!({ "url": format!("https://web.lab.test:{web}/v1/traces") });
        config["experiments"] = json!({
            "ill": { "experimentOverride": "dune", "roles": role("missing") },
            "well": { "experimentOverride": "dune", "roles": role("dunepro") },
        });
    });
}

/// The run is what it would be without them: everything but what is said of Slack.
fn check(corner: &Corner, cells: &[&Cell], ended: &Ended, over: Timestamp, before: [usize; 2]) -> Result<(), String> {
    let run = corner.show("latest");
    expect("exit code", &ended.code, &Some(10))?;
    let mails = &mails_to(corner.lab, ADMIN)[before[0]..];
    // What Slack did not get earlier comes late, and says so.
    let posts: Vec<String> = judge::posts(corner.lab).split_off(before[1]);
    let posts: Vec<String> = posts.into_iter().filter(|post| !post.contains("(late: ")).collect();
    expect("the well one", &target(&run, "well_production", "push", "node2.lab.test")["status"], &json!("succeeded"))?;
    expect("the ill one", &target(&run, "ill_production", "kinit", "-")["attempts"][0]["code"], &json!("MT0020"))?;
    let told = |cell: &Cell| {
        let ill = Told::of(cell, "ill_production", target(&run, "ill_production", "kinit", "-"));
        [ill, Told { service: "well_production".to_owned(), who: &[], words: Vec::new() }]
    };
    for cell in cells {
        judge::told(mails, &posts, &told(cell))?;
        expect("no say in the exit code", &cell.exit, &[0; 0].as_slice())?;
        if cell.step == "notify" {
            judge::target(cell, &run["steps"][0]["targets"][0], NOTIFY, str::to_owned)?;
        } else {
            let says = |line: &&str| line.contains("WARN") && cell.says.iter().all(|says| line.contains(says));
            let warnings = ended.err.lines().filter(says).filter(|line| line.contains(cell.code));
            expect(&ended.err, &warnings.count(), &usize::from(cell.fails()))?;
            expect(cell.what, &cell.ends, &Ends::AfterTheRun)?;
        }
    }
    let most = SignedDuration::try_from(judge::AFTER_THE_RUN).expect("seconds");
    let least = cells.iter().filter(|cell| cell.fault == Fault::Slow).map(|cell| cell.least).max().unwrap_or_default();
    let took = over.duration_since(judge::session_ended(&run));
    let in_time = (SignedDuration::from_secs(least.into())..=most).contains(&took);
    if in_time { Ok(()) } else { Err(format!("{took:#} from the end of the session to that of mt")) }
}

fn play(lab: &Lab, corner: &Corner, name: &str, cells: &[&Cell]) {
    let kind = match name.strip_prefix("side_").expect("they are called so") {
        "down" => None,
        "slow" => Some("slow 1"),
        kind => Some(kind),
    };
    if let Some(kind) = kind {
        lab.gremlin(&format!("pushgateway:{}", GREMLINS.0), kind);
        lab.gremlin(&format!("web:{}", GREMLINS.1), kind);
    }
    configure(corner, if kind.is_some() { GREMLINS } else { NOBODY });
    let mut outcome = Ok(());
    // Their times are fixed: a machine that was too busy may be less so the next time.
    for _ in TIMES {
        let before = [mails_to(lab, ADMIN).len(), judge::posts(lab).len()];
        let ended = corner.run(&["run", "token-push"]);
        let over = Timestamp::now();
        outcome = check(corner, cells, &ended, over, before);
        match &outcome {
            Ok(()) => break,
            Err(wrong) => eprintln!("{name}: {wrong}"),
        }
    }
    outcome.unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
    page::check(name, &corner.run(&["runs", "show"]).exits(0).out, lab);
}

#[test]
fn what_a_run_is_told_to_changes_neither_its_exit_code_nor_its_mail_and_costs_no_more_than_its_budget() {
    let Some(lab) = Lab::up() else { return };
    let corner = Corner::new(&lab, "side");
    let cells = played(Play::Side);
    let names: BTreeSet<&str> = cells.iter().map(|cell| cell.name).collect();
    for name in names {
        let together: Vec<&Cell> = cells.iter().copied().filter(|cell| cell.name == name).collect();
        for peer in [Peer::Pushgateway, Peer::Slack, Peer::Loki, Peer::Traces] {
            assert!(together.iter().any(|cell| cell.peer == peer), "{name} without {peer:?}");
        }
        play(&lab, &corner, name, &together);
    }
}
