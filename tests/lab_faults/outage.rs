//! Real services paused and killed: every service of the run meets the fault, and the exit code is 11.

use serde_json::{Value, json};

use super::judge::{self, expect, mails_to, word};
use super::support::corner::{Corner, step, target};
use super::support::lab::Lab;
use super::table::{Cell, GOOD_NODE, Play, played};
use super::{TIMES, page};

const SERVICES: [&str; 2] = ["dune_production", "mu2e_production"];

const ADMIN: &str = "admin@lab.test";

fn configure(corner: &Corner, seconds: u32, nodes: &[&str]) {
    corner.configure(|config| {
        let time = format!("{seconds}s");
        config["timeouts"] = json!({
            "globalTimeout": "300s", "kerberosTimeout": time, "vaultStorerTimeout": time, "pingTimeout": time, "pushTimeout": time,
        });
        let once = json!({ "numRetries": 0 });
        config["workerType"] = json!({ "getKerberosTickets": once, "getToken": once, "pushTokens": once });
        config["sshOptions"] = format!("-o ConnectTimeout={}", seconds / 2).into();
        config["errorCountToSendMessage"] = 1.into();
        config["notifications"]["slack_alerts_url"] = "".into();
        for experiment in config["experiments"].as_object_mut().unwrap().values_mut() {
            experiment["roles"]["production"]["destinationNodes"] = json!(nodes);
            // The admins are told.
            experiment["emails"] = json!([]);
        }
    });
}

fn check(cell: &Cell, run: &Value, code: Option<i32>, seconds: u32, mails: &[String]) -> Result<(), String> {
    for service in SERVICES {
        let place = target(run, service, cell.step, cell.target);
        judge::target(cell, place, seconds, |text| text.replace("{service}", service))?;
        let push = step(run, service, "push");
        let good = push["targets"].as_array().and_then(|all| all.iter().find(|target| target["name"] == GOOD_NODE));
        expect(&format!("{}: {push:#}", cell.name), &word(&good.unwrap_or(push)["status"]), &cell.push.to_owned())?;
    }
    judge::told(mails, &SERVICES.map(|service| (service.to_owned(), cell.mail)))?;
    expect(cell.name, &code, &Some(if cell.fails() { 11 } else { 0 }))
}

fn play(corner: &Corner, play: Play, nodes: &[&str]) {
    for cell in played(play) {
        (cell.set)(corner.lab);
        let mut outcome = Ok(());
        for seconds in TIMES {
            configure(corner, *seconds, nodes);
            let before = mails_to(corner.lab, ADMIN).len();
            let ended = corner.run(&["run", "token-push"]);
            let mails = mails_to(corner.lab, ADMIN);
            outcome = check(cell, &corner.show("latest"), ended.code, *seconds, &mails[before..]);
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
    configure(&corner, 60, &both);
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
