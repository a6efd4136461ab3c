//! Real services paused and killed: every service of the run meets the fault, and the exit code is 11.

use std::fs;

use serde_json::{Value, json};

use super::TIMES;
use super::page;
use super::support::corner::{Corner, step, target};
use super::support::lab::Lab;

const SERVICES: [&str; 2] = ["dune_production", "mu2e_production"];

/// What every service's step comes to.
struct Outage {
    name: &'static str,
    set: fn(&Lab),
    /// What takes it back; a killed service stays dead.
    back: Option<fn(&Lab)>,
    step: &'static str,
    target: &'static str,
    /// Status, class, code.
    outcome: [&'static str; 3],
    says: &'static str,
    next: &'static str,
    /// Of the push to the good node.
    push: &'static str,
}

const OUTAGE: Outage = Outage {
    name: "",
    set: |_| {},
    back: None,
    step: "get-vault-token",
    target: "-",
    outcome: ["failed", "transient", "MT0030"],
    says: "the vault server vault.lab.test cannot be reached: ",
    next: "look at the vault server and at the network",
    push: "not-attempted",
};

/// While no token is kept.
const FIRST: &[Outage] = &[
    Outage {
        name: "vault_refusing",
        set: |lab| lab.fault("vault", "403"),
        back: Some(|lab| lab.fault("vault", "ok")),
        outcome: ["needs-human", "needs-human", "MT0031"],
        says: "the vault server vault.lab.test refuses this service (403, permission denied)",
        next: "mt run token-push --onboard -s ",
        ..OUTAGE
    },
    Outage {
        name: "vault_login_refused",
        set: |lab| lab.fault("vault", "nologin"),
        back: Some(|lab| lab.fault("vault", "ok")),
        outcome: ["needs-human", "needs-human", "MT0031"],
        says: "the vault server vault.lab.test refuses this service (403, permission denied)",
        next: "mt run token-push --onboard -s ",
        ..OUTAGE
    },
    Outage {
        name: "no_refresh_token",
        set: |lab| lab.fault("vault", "norefresh"),
        back: Some(|lab| lab.fault("vault", "ok")),
        outcome: ["needs-human", "needs-human", "MT0031"],
        says: "the vault holds no usable refresh token for this service",
        next: "mt run token-push --onboard -s ",
        ..OUTAGE
    },
    Outage {
        name: "vault_sealed",
        set: |lab| lab.fault("vault", "sealed"),
        back: Some(|lab| lab.fault("vault", "ok")),
        outcome: ["failed", "transient", "MT0032"],
        says: "the vault server vault.lab.test answers with an error: ",
        next: "look at the vault server",
        ..OUTAGE
    },
    Outage {
        name: "vault_paused",
        set: |lab| lab.pause("vault"),
        back: Some(|lab| lab.resume("vault")),
        says: "the vault server vault.lab.test cannot be reached: Read timed out",
        ..OUTAGE
    },
    Outage {
        name: "kdc_paused",
        set: |lab| lab.pause("kdc"),
        back: Some(|lab| lab.resume("kdc")),
        step: "kinit",
        outcome: ["timed-out", "timeout", "MT0026"],
        says: "no KDC answers: kinit did not end within ",
        next: "look at the KDC and at krb5.conf",
        ..OUTAGE
    },
];

/// After a run that went well.
const THEN: &[Outage] = &[
    Outage {
        name: "vault_paused_with_kept_tokens",
        set: |lab| lab.pause("vault"),
        back: Some(|lab| lab.resume("vault")),
        outcome: ["stale", "transient", "MT0030"],
        push: "succeeded",
        ..OUTAGE
    },
    Outage {
        name: "sshd_paused",
        set: |lab| lab.pause("node1"),
        back: Some(|lab| lab.resume("node1")),
        step: "push",
        target: "node1.lab.test",
        outcome: ["failed", "transient", "MT0043"],
        says: "node1.lab.test accepts ssh connections and says nothing",
        next: "look at the node",
        push: "succeeded",
    },
    Outage {
        name: "sshd_killed",
        set: |lab| lab.kill("node1"),
        step: "push",
        target: "node1.lab.test",
        outcome: ["failed", "transient", "MT0042"],
        says: "ssh: connect to host node1.lab.test port 22: Connection refused",
        next: "look at the node",
        push: "succeeded",
        ..OUTAGE
    },
];

/// With node1 out of the configuration.
const LAST: &[Outage] = &[
    Outage {
        name: "vault_killed_with_kept_tokens",
        set: |lab| lab.kill("vault"),
        outcome: ["stale", "transient", "MT0030"],
        push: "succeeded",
        ..OUTAGE
    },
    Outage {
        name: "vault_killed",
        set: |lab| {
            for kept in fs::read_dir(lab.path("corner-outage/tokens")).unwrap() {
                fs::remove_file(kept.unwrap().path()).unwrap();
            }
        },
        says: "the vault server vault.lab.test cannot be reached: Connection refused",
        ..OUTAGE
    },
    Outage {
        name: "kdc_killed",
        set: |lab| lab.kill("kdc"),
        step: "kinit",
        outcome: ["failed", "transient", "MT0026"],
        says: "no KDC answers: kinit: Cannot contact any KDC for realm 'LAB.TEST'",
        next: "look at the KDC and at krb5.conf",
        ..OUTAGE
    },
];

fn configure(corner: &Corner, seconds: u32, nodes: &[&str]) {
    corner.configure(|config| {
        let time = format!("{seconds}s");
        config["timeouts"] = json!({
            "globalTimeout": "300s", "kerberosTimeout": time, "vaultStorerTimeout": time, "pingTimeout": time, "pushTimeout": time,
        });
        let once = json!({ "numRetries": 0 });
        config["workerType"] = json!({ "getKerberosTickets": once, "getToken": once, "pushTokens": once });
        config["sshOptions"] = format!("-o ConnectTimeout={}", seconds / 2).into();
        config["errorCountToSendMessage"] = 100.into();
        for experiment in config["experiments"].as_object_mut().unwrap().values_mut() {
            experiment["roles"]["production"]["destinationNodes"] = json!(nodes);
        }
    });
}

fn check(outage: &Outage, run: &Value, code: Option<i32>) -> Result<(), String> {
    let word = |value: &Value| value.as_str().unwrap_or("null").to_owned();
    for service in SERVICES {
        let place = target(run, service, outage.step, outage.target);
        let last = place["attempts"].as_array().and_then(|all| all.last()).ok_or_else(|| format!("{place:#}"))?;
        let push = step(run, service, "push");
        let good =
            push["targets"].as_array().and_then(|all| all.iter().find(|target| target["name"] == "node2.lab.test"));
        let found = [&place["status"], &last["class"], &last["code"], &good.unwrap_or(push)["status"]].map(word);
        let [status, class, code] = outage.outcome;
        let next =
            if outage.next.ends_with("-s ") { format!("{}{service}", outage.next) } else { outage.next.to_owned() };
        let right = found == [status, class, code, outage.push] && word(&last["message"]).contains(outage.says);
        if !right || word(&last["next"]) != next {
            return Err(format!("{}: {found:?}, {last:#}", outage.name));
        }
    }
    if code == Some(11) { Ok(()) } else { Err(format!("{}: exit code {code:?}", outage.name)) }
}

fn play(corner: &Corner, outages: &[Outage], nodes: &[&str]) {
    for outage in outages {
        (outage.set)(corner.lab);
        let mut outcome = Ok(());
        for seconds in TIMES {
            configure(corner, *seconds, nodes);
            let ended = corner.run(&["run", "token-push"]);
            outcome = check(outage, &corner.show("latest"), ended.code);
            if outcome.is_ok() {
                break;
            }
        }
        outcome.unwrap_or_else(|wrong| panic!("{wrong}"));
        page::check(outage.name, &corner.run(&["runs", "show"]).exits(0).out, corner.lab);
        if let Some(back) = outage.back {
            back(corner.lab);
        }
    }
}

#[test]
fn an_outage_is_named_once_asks_for_nobody_in_vain_and_stops_no_push_of_a_kept_token() {
    let Some(lab) = Lab::up() else { return };
    let corner = Corner::new(&lab, "outage");
    let both = ["node1.lab.test", "node2.lab.test"];
    play(&corner, FIRST, &both);
    configure(&corner, 60, &both);
    corner.run(&["run", "token-push"]).is_quiet();
    play(&corner, THEN, &both);
    play(&corner, LAST, &["node2.lab.test"]);
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
