//! Plays FERRY: a run of ferry-refresh for each fault, and the UIDs that stay.

use super::judge::{self, Told, expect, mails_to};
use super::support::corner::{Corner, target};
use super::support::lab::Lab;
use super::table::{Cell, Play, played};
use super::{LAB, TIMES, page};

const ADMIN: &str = "admin-ferry@lab.test";
const ACCOUNTS: [&str; 2] = ["dunepro", "mu2epro"];

/// Which gremlin is asked, and at which port it is. `None`: nobody is there.
fn gremlin(cell: &Cell) -> (u16, Option<&'static str>) {
    match cell.name {
        "ferry_down" => (7002, None),
        "ferry_hang" => (7041, Some("hang")),
        "ferry_refuse" => (7042, Some("refuse")),
        "ferry_garbage" => (7043, Some("garbage")),
        "ferry_page" => (7044, Some("page")),
        "ferry_slow" => (7045, Some("slow 1")),
        other => panic!("{other} has no port"),
    }
}

/// Only FERRY knows the UIDs.
fn configure(corner: &Corner, port: u16, seconds: u32) {
    corner.configure(|config| {
        config["ferry"]["port"] = port.into();
        config["timeouts"]["ferryRequestTimeout"] = format!("{seconds}s").into();
        config["notifications"]["admin_email"] = ADMIN.into();
        config["errorCountToSendMessage"] = 1.into();
        for experiment in config["experiments"].as_object_mut().unwrap().values_mut() {
            experiment["roles"]["production"].as_object_mut().unwrap().remove("desiredUIDOverride");
            experiment["emails"] = serde_json::json!([]);
        }
    });
}

fn uids(corner: &Corner) -> Vec<Option<u64>> {
    let listed = corner.run(&["uids", "list", "--output", "json"]).exits(0).json();
    listed["uids"].as_array().unwrap().iter().map(|row| row["uid"].as_u64()).collect()
}

/// What Slack has been sent of FERRY, and not of the services that others play meanwhile.
fn posts(lab: &Lab) -> Vec<String> {
    judge::posts(lab).into_iter().filter(|post| post.contains("ferry-refresh on ")).collect()
}

fn check(cell: &Cell, corner: &Corner, code: Option<i32>, seconds: u32, before: [usize; 2]) -> Result<(), String> {
    let (run, lab) = (corner.show("latest"), corner.lab.dir().to_str().unwrap());
    let place = format!("https://ferry.lab.test:{}", gremlin(cell).0);
    let mut told = Vec::new();
    for account in ACCOUNTS {
        let fill = |text: &str| text.replace("{lab}", lab).replace("{account}", account).replace("{place}", &place);
        let fetched = target(&run, account, "fetch-uid", "-");
        judge::target(cell, fetched, seconds, fill)?;
        told.push(Told::of(cell, account, fetched));
    }
    judge::told(&mails_to(corner.lab, ADMIN)[before[0]..], &posts(corner.lab)[before[1]..], &told)?;
    expect(cell.name, &code, &cell.exit.last().copied())
}

fn play(lab: &Lab, corner: &Corner, cell: &Cell) {
    let (port, kind) = gremlin(cell);
    if let Some(kind) = kind {
        lab.gremlin(&format!("ferry:{port}"), kind);
    }
    let mut outcome = Ok(());
    for seconds in TIMES {
        // As with the shipped 30 s the connection, which has 10 s, is given up first.
        let seconds = if cell.hangs { 30 } else { *seconds };
        configure(corner, port, seconds);
        let before = [mails_to(lab, ADMIN).len(), posts(lab).len()];
        let ended = corner.run(&["run", "ferry-refresh"]);
        outcome = check(cell, corner, ended.code, seconds, before);
        match &outcome {
            Ok(()) => break,
            Err(wrong) => eprintln!("with {seconds} s: {wrong}"),
        }
    }
    outcome.unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(uids(corner), [Some(1234), Some(1235)], "{}: what is stored stays", cell.name);
    page::check(cell.name, &corner.run(&["runs", "show"]).exits(0).out, lab);
}

#[test]
fn a_bad_ferry_is_named_told_at_once_and_costs_no_stored_uid() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "ferry");
    // One try is enough where the answer stays the same.
    let shipped = include_str!("../../workflows/ferry-refresh.ron");
    let once = shipped.replace("retry: Retry(times: 1, backoff: (\"2s\", \"2s\")),", "");
    assert_ne!(once, shipped);
    corner.workflow("ferry-refresh", &once);
    configure(&corner, 8445, 20);
    corner.run(&["run", "ferry-refresh"]).is_quiet();
    for cell in played(Play::Ferry) {
        play(lab, &corner, cell);
    }
}
