//! Real services paused and killed: every service of the run meets the fault, and the exit code is 11.

use serde_json::{Value, json};

use super::judge::{self, Told, expect, mails_to, word};
use super::support::corner::{Corner, step, target};
use super::support::lab::Lab;
use super::table::{Cell, GOOD_NODE, Play, played};
use super::{TIMES, page};

const SERVICES: [(&str, &str); 2] = [("dune_production", "dunepro"), ("mu2e_production", "mu2epro")];

const ADMIN: &str = "admin@lab.test";

/// As shipped: the vault's time must be longer than the time after which htgettoken gives up by itself.
const VAULT: u32 = 60;

fn configure(corner: &Corner, seconds: u32, nodes: &[&str], change: fn(&mut Value)) {
    corner.configure(|config| {
        let time = format!("{seconds}s");
        config["timeouts"] = json!({
            "globalTimeout": "300s", "kerberosTimeout": time, "vaultStorerTimeout": format!("{VAULT}s"), "pingTimeout": time, "pushTimeout": time,
        });
        let once = json!({ "numRetries": 0 });
        config["workerType"] = json!({ "getKerberosTickets": once, "getToken": once, "pushTokens": once });
        config["errorCountToSendMessage"] = 1.into();
        for (experiment, given) in config["experiments"].as_object_mut().unwrap() {
            given["roles"]["production"]["destinationNodes"] = json!(nodes);
            given["emails"] = json!([stakeholder(experiment)]);
        }
        change(config);
    });
}

fn stakeholder(experiment: &str) -> String {
    format!("people-of-{experiment}@lab.test")
}

/// What the admins, Slack and the stakeholders of each service have heard so far.
type Heard = (Vec<String>, Vec<String>, Vec<Vec<String>>);

fn heard(lab: &Lab) -> Heard {
    let people = SERVICES.map(|(service, _)| stakeholder(service.split('_').next().expect("an experiment")));
    (mails_to(lab, ADMIN), judge::posts(lab), people.iter().map(|address| mails_to(lab, address)).collect())
}

fn check(cell: &Cell, corner: &Corner, code: Option<i32>, seconds: u32, before: &Heard) -> Result<(), String> {
    let (run, lab) = (&corner.show("latest"), corner.lab.dir().to_str().unwrap());
    let seconds = if cell.step == "get-vault-token" { VAULT } else { seconds };
    let mut told = Vec::new();
    for (service, account) in SERVICES {
        let place = target(run, service, cell.step, cell.target);
        let fill = |text: &str| text.replace("{service}", service).replace("{account}", account).replace("{lab}", lab);
        judge::target(cell, place, seconds, fill)?;
        told.push(Told::of(cell, service, place));
        let push = step(run, service, "push");
        let good = push["targets"].as_array().and_then(|all| all.iter().find(|target| target["name"] == GOOD_NODE));
        expect(&format!("{}: {push:#}", cell.name), &word(&good.unwrap_or(push)["status"]), &cell.push.to_owned())?;
    }
    let (admins, slack, people) = heard(corner.lab);
    judge::told(&admins[before.0.len()..], &slack[before.1.len()..], &told)?;
    for (now, before) in people.iter().zip(&before.2) {
        judge::stakeholders(cell, &now[before.len()..])?;
    }
    expect(cell.name, &code, &cell.exit.last().copied())
}

fn play(corner: &Corner, play: Play, nodes: &[&str]) {
    for cell in played(play) {
        (cell.set)(corner.lab);
        let mut outcome = Ok(());
        for seconds in TIMES {
            configure(corner, *seconds, nodes, cell.change);
            let before = heard(corner.lab);
            let ended = corner.run(&["run", "token-push"]);
            outcome = check(cell, corner, ended.code, *seconds, &before);
            match &outcome {
                Ok(()) => break,
                Err(wrong) => eprintln!("with {seconds} s for each step: {wrong}"),
            }
        }
        outcome.unwrap_or_else(|wrong| panic!("{wrong}"));
        page::check(cell.name, &corner.run(&["runs", "show"]).exits(0).out, corner.lab);
        (cell.back)(corner.lab);
    }
}

#[test]
fn an_outage_is_named_once_asks_for_nobody_in_vain_and_stops_no_push_of_a_kept_token() {
    let Some(lab) = Lab::up() else { return };
    let corner = Corner::new(&lab, "outage");
    let both = ["node1.lab.test", "node2.lab.test"];
    play(&corner, Play::EverybodyFirst, &both);
    configure(&corner, 60, &both, |_| {});
    corner.run(&["run", "token-push"]).is_quiet();
    play(&corner, Play::EverybodyThen, &both);
    play(&corner, Play::EverybodyLast, &[GOOD_NODE]);
}

#[test]
fn without_a_collector_a_resumed_run_stores_in_the_credds_it_has_recorded() {
    let Some(lab) = Lab::up() else { return };
    let corner = Corner::new(&lab, "collector");
    corner.configure(|config| {
        for experiment in config["experiments"].as_object_mut().unwrap().values_mut() {
            experiment["roles"]["production"]["tokenGetterOverride"] = "storeAndGetToken".into();
        }
    });
    let run = ["run", "token-push", "-s", "dune_production"];
    lab.fault("schedd1", "down");
    corner.run(&run).exits(11);
    lab.fault("schedd1", "ok");
    lab.fault("collector", "down");
    corner.run(&["runs", "resume"]).exits(0);
    let shown = corner.show("latest");
    for credd in ["schedd1.lab.test", "schedd2.lab.test"] {
        assert_eq!(target(&shown, "dune_production", "store-in-credd", credd)["status"], "succeeded");
    }
    // A run that has no list yet fails there, and pushes.
    corner.run(&run).exits(11);
    let shown = corner.show("latest");
    assert_eq!(target(&shown, "dune_production", "store-in-credd", "-")["attempts"][0]["code"], "MT0050");
    assert_eq!(target(&shown, "dune_production", "push", "node1.lab.test")["status"], "succeeded");
}
