//! Each fault strikes one service of a run. The others are well, and do not notice.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Child;

use serde_json::{Value, json};

use super::row::{CREDDS, GOOD_NODE, NODES, Place, Row, TICKETS, VAULTS};
use super::support::corner::{Corner, Ended, step, target};
use super::support::lab::Lab;
use super::{HEALTHY, LAB, TIMES, page};

/// Accepts connections and says nothing, until its stdin ends.
const SILENCE: &str = "import socket, sys
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])), backlog=100)
print('ready', flush=True)
sys.stdin.read()";

/// A port that accepts connections and says nothing: what a paused server looks like.
struct Silence(Child);

impl Silence {
    fn begin(lab: &Lab, port: u16) -> Self {
        let mut command = lab.command(&["python3", "-c", SILENCE, &port.to_string()]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().expect("lab/lab can be started");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut ready).expect("it can be read");
        assert_eq!(ready, "ready\n");
        Self(child)
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A corner whose services are the rows' and healthy ones.
struct Scene<'a> {
    corner: Corner<'a>,
    rows: &'static [Row],
    place: Place,
    /// How the healthy services, and what the rows leave open, are configured.
    usual: Value,
}

/// One finished run.
struct Seen {
    run: Value,
    events: Vec<Value>,
}

impl<'a> Scene<'a> {
    fn new(lab: &'a Lab, name: &str, rows: &'static [Row], usual: Value) -> Self {
        let corner = Corner::new(lab, name);
        let empty = corner.path("empty");
        fs::create_dir(&empty).unwrap();
        corner.give(&empty);
        let place = Place {
            corner: corner.path("").to_str().unwrap().trim_end_matches('/').to_owned(),
            silent: "vault.lab.test:7001",
            dead: "vault.lab.test:7002",
        };
        Self { corner, rows, place, usual }
    }

    /// With these seconds for every step that can hang.
    fn configure(&self, seconds: u32) {
        self.corner.configure(|config| {
            let time = format!("{seconds}s");
            config["timeouts"] = json!({
                "globalTimeout": "300s", "kerberosTimeout": time, "vaultStorerTimeout": time, "pingTimeout": time, "pushTimeout": time,
            });
            let retries = |times: u32, pause: u32| json!({ "numRetries": times, "retrySleep": format!("{pause}s") });
            // htgettoken by itself gives up a paused vault after 2 s; with the pause the step hangs as long as others.
            config["workerType"] = json!({
                "getKerberosTickets": retries(0, 0), "getToken": retries(1, seconds), "pushTokens": retries(1, 0),
                "storeAndGetToken": retries(0, 0), "pingAggregator": retries(0, 0),
            });
            // Nobody is told here.
            config["errorCountToSendMessage"] = 100.into();
            config["pingOptions"] = "-W 1 -c 1".into();
            config["sshOptions"] = format!("-o ConnectTimeout={}", seconds / 2).into();
            let experiments = self.rows.iter().map(|row| {
                let role = merged(self.usual.clone(), (row.role)(&self.place));
                let issuer = match role["account"].as_str() {
                    Some("fermiadm") => "fermilab",
                    Some("mu2epro") => "mu2e",
                    _ => "dune",
                };
                let experiment = json!({ "experimentOverride": issuer, "roles": { row.role_name(): role } });
                (row.experiment.to_owned(), experiment)
            });
            let healthy = merged(self.usual.clone(), json!({ "condorCreddHostOverride": "schedd2.lab.test" }));
            let healthy = json!({ "experimentOverride": "dune", "roles": { "production": healthy } });
            config["experiments"] = experiments.chain([("well".to_owned(), healthy)]).collect();
        });
    }

    fn show(&self) -> Seen {
        let show =
            |more: &[&str]| self.corner.run(&[&["runs", "show", "--output", "json"], more].concat()).exits(0).json();
        let events = show(&["--events"])["events"].as_array().expect("events").clone();
        Seen { run: show(&[])["run"].clone(), events }
    }

    /// All rows beside healthy services: 10. Then the rows alone: 11.
    fn play(&self, page_name: &str) {
        let mut why = String::new();
        for seconds in TIMES {
            self.configure(*seconds);
            let ended = self.corner.run(&["run", "token-push"]);
            let seen = self.show();
            match self.check(&seen, &ended) {
                Ok(()) => {
                    let shown = self.corner.run(&["runs", "show"]).exits(0).out;
                    page::check(page_name, &shown, self.corner.lab);
                    return self.alone();
                }
                Err(wrong) => {
                    eprintln!("with {seconds} s for each step: {wrong}");
                    why = wrong;
                }
            }
        }
        panic!("{why}");
    }

    /// Class and message are known; it may be quick.
    fn alone(&self) {
        self.configure(3);
        let services: Vec<String> = self.rows.iter().map(Row::service).collect();
        let selected = services.iter().flat_map(|service| ["-s", service]);
        self.corner.run(&["run", "token-push"].into_iter().chain(selected).collect::<Vec<_>>()).exits(11);
    }

    fn check(&self, seen: &Seen, ended: &Ended) -> Result<(), String> {
        seen.healthy_first(self.rows)?;
        seen.nothing_else(self.rows)?;
        for row in self.rows {
            self.check_row(row, seen, &ended.err)?;
        }
        expect("exit code", &ended.code, &Some(10))
    }

    fn check_row(&self, row: &Row, seen: &Seen, told: &str) -> Result<(), String> {
        let service = row.service();
        let place = target(&seen.run, &service, row.step, row.target);
        let tries = place["attempts"].as_array().expect("attempts");
        let last = tries.last().ok_or_else(|| format!("{service} was not tried: {place:#}"))?;
        let word = |value: &Value| value.as_str().unwrap_or("null").to_owned();
        let found = [&place["status"], &last["class"], &last["code"], &last["next"]].map(word);
        let next = self.place.fill(row.next, row).replace("{lab}", self.corner.lab.dir().to_str().unwrap());
        expect(&format!("{service}: {place:#}"), &found, &[row.status, row.class, row.code, &next].map(str::to_owned))?;
        expect(&format!("{service}: {place:#}"), &tries.len(), &row.tries)?;

        let fits = |message: &str| row.says.iter().any(|says| message.contains(&self.place.fill(says, row)));
        if let Some(other) = tries.iter().find(|one| !fits(&word(&one["message"]))) {
            return Err(format!("{service}: {other:#}"));
        }
        let message = word(&last["message"]);
        // What cron mails says the same.
        let in_mail =
            |line: &str| [service.as_str(), row.step, row.code, &message].iter().all(|part| line.contains(part));
        if !told.lines().any(in_mail) {
            return Err(format!("{service}: {told}"));
        }

        let push = step(&seen.run, &service, "push");
        let to_good = push["targets"].as_array().and_then(|all| all.iter().find(|target| target["name"] == GOOD_NODE));
        expect(&format!("{service}: {push:#}"), &word(&to_good.unwrap_or(push)["status"]), &row.push.to_owned())
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, right: &T) -> Result<(), String> {
    if found == right { Ok(()) } else { Err(format!("{found:?}, not {right:?}; {what}")) }
}

impl Seen {
    /// Nothing but what the rows tell of went wrong, nor what goes with it: the same node does not answer a ping, or the
    /// storer meets the same vault.
    fn nothing_else(&self, rows: &[Row]) -> Result<(), String> {
        for machine in self.run["machines"].as_array().expect("machines") {
            let row = rows.iter().find(|row| machine["subject"] == row.service().as_str());
            for step in machine["steps"].as_array().expect("steps") {
                for target in step["targets"].as_array().expect("targets") {
                    let fine = ["succeeded", "not-attempted", "skipped"].iter().any(|fine| target["status"] == *fine);
                    let known = row.is_some_and(|row| {
                        (step["name"] == row.step || step["name"] == "ping") && target["name"] == row.target
                    });
                    if !fine && !known {
                        return Err(format!("{} failed, too: {step:#}", machine["subject"]));
                    }
                }
            }
        }
        Ok(())
    }

    /// The healthy service succeeded, and before any attempt that hangs was over.
    fn healthy_first(&self, rows: &[Row]) -> Result<(), String> {
        let machines = self.run["machines"].as_array().expect("machines");
        let healthy = machines.iter().find(|machine| machine["subject"] == HEALTHY).expect("it was selected");
        if healthy["status"] != "succeeded" {
            return Err(format!("{healthy:#}"));
        }
        let last = |fits: &dyn Fn(&Value) -> bool| {
            self.events.iter().filter(|event| fits(event)).filter_map(|event| event["seq"].as_u64()).max()
        };
        let through = last(&|event| event["subject"] == HEALTHY).expect("it has events");
        for row in rows.iter().filter(|row| row.hangs) {
            let service = row.service();
            let over = last(&|event| {
                event["subject"] == service.as_str() && event["step"] == row.step && event["kind"] == "attempt-ended"
            });
            let over = over.ok_or_else(|| format!("{service} was not tried: {:#?}", self.events))?;
            if through > over {
                return Err(format!("{HEALTHY} came to its end with event {through}, {service} hung until {over}"));
            }
        }
        Ok(())
    }
}

fn merged(mut base: Value, more: Value) -> Value {
    let (Some(into), Value::Object(more)) = (base.as_object_mut(), more) else { panic!("maps") };
    into.extend(more);
    base
}

fn with_token_only() -> Value {
    json!({
        "account": "dunepro", "desiredUIDOverride": 1234, "destinationNodes": [GOOD_NODE], "tokenGetterOverride": "getToken",
    })
}

#[test]
fn a_bad_keytab_or_kdc_is_named_and_delays_nobody_else() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "tickets", TICKETS, with_token_only());
    let _silence = Silence::begin(lab, 7003);
    let keytab = |name: &str| scene.corner.path(format!("{name}.keytab"));
    for (name, made_from) in [("stale", "dunepro.stale"), ("wrong", "stranger.good")] {
        fs::copy(lab.path("kdc").join(made_from), keytab(name)).unwrap();
    }
    fs::write(keytab("corrupt"), "no keytab at all").unwrap();
    // Realms of their own, so that the others' KDC stays as it is.
    let realms = "\n[realms]\n DEAD.TEST = {\n  kdc = 127.0.0.1:7002\n }\n MUTE.TEST = {\n  kdc = 127.0.0.1:7003\n }\n";
    fs::OpenOptions::new().append(true).open(lab.path("krb5.conf")).unwrap().write_all(realms.as_bytes()).unwrap();
    let keys: String = ["DEAD.TEST", "MUTE.TEST"]
        .map(|realm| format!("addent -password -p dunepro@{realm} -k 1 -e aes256-cts-hmac-sha1-96\nany password\n"))
        .concat();
    let ktutil = format!("printf '%s' '{keys}' | (cat; echo wkt {}) | ktutil", keytab("elsewhere").display());
    assert!(lab.run(&["sh", "-c", &ktutil]).status.success());
    for name in ["stale", "wrong", "corrupt"] {
        fs::set_permissions(keytab(name), fs::Permissions::from_mode(0o600)).unwrap();
        scene.corner.give(&keytab(name));
    }
    scene.play("keytabs_and_kdc");
}

#[test]
fn a_bad_vault_is_named_and_delays_nobody_else() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "vault", VAULTS, with_token_only());
    let _silence = Silence::begin(lab, 7001);
    lab.fault("vault", "403 fermiadm");
    lab.fault("vault", "norefresh mu2epro");
    // An earlier run, in which all was well, has left a token.
    scene.configure(TIMES[0]);
    scene.corner.run(&["run", "token-push", "-s", HEALTHY]).exits(0);
    scene.play("vault");
}

#[test]
fn a_bad_credd_or_collector_is_named_and_delays_nobody_else() {
    let Some(lab) = &*LAB else { return };
    let mut usual = with_token_only();
    usual.as_object_mut().unwrap().remove("tokenGetterOverride");
    let scene = Scene::new(lab, "credds", CREDDS, usual);
    lab.fault("schedd1", "down");
    // Beyond the laboratory's own: hosts that only the services know that ask for them.
    for (credd, fault) in [("schedd3", "denied"), ("schedd4", "hang 3600")] {
        let holds = lab.path(format!("condor/credd/{credd}.lab.test"));
        fs::create_dir(&holds).unwrap();
        scene.corner.give(&holds);
        fs::write(lab.path("faults").join(credd), fault).unwrap();
    }
    fs::copy(lab.path("condor/pool/collector.lab.test.json"), lab.path("condor/pool/collector3.lab.test.json"))
        .unwrap();
    fs::write(lab.path("faults/collector3"), "hang 3600").unwrap();
    scene.play("credds_and_collector");
}

#[test]
fn a_bad_node_is_named_and_delays_nobody_else() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "nodes", NODES, with_token_only());
    lab.fault("node1", "hostkey");
    scene.play("nodes");
    lab.fault("node1", "ok");
}
