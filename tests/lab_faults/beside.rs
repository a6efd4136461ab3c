//! Each fault strikes one service of a run. The others are well, and do not notice.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::judge::{self, Told, expect, mails_to, word};
use super::support::corner::{Corner, Ended, step, target};
use super::support::lab::Lab;
use super::table::{Also, Cell, GOOD_NODE, Peer, Place, Play, played};
use super::{HEALTHY, LAB, LONG_TIMES, TIMES, page};

/// A corner whose services are the rows' and healthy ones.
struct Scene<'a> {
    corner: Corner<'a>,
    play: Play,
    /// Those of this play.
    rows: Vec<&'static Cell>,
    place: Place,
    /// How the healthy services, and what the rows leave open, are configured.
    usual: Value,
    /// The mails of other scenes go elsewhere.
    admin: String,
}

/// What people have been told, oldest first.
struct Heard {
    admins: Vec<String>,
    slack: Vec<String>,
    /// By row.
    stakeholders: Vec<Vec<String>>,
}

/// The address of the people behind a row's service.
fn stakeholder(row: &Cell) -> String {
    format!("{}@lab.test", row.name)
}

/// One finished run.
struct Seen {
    run: Value,
    events: Vec<Value>,
}

impl<'a> Scene<'a> {
    fn new(lab: &'a Lab, name: &str, play: Play, usual: Value) -> Self {
        let corner = Corner::new(lab, name);
        // Of kept tokens; a run leaves one in the second.
        for name in ["empty", "slow"] {
            let tokens = corner.path(name);
            fs::create_dir(&tokens).unwrap();
            corner.give(&tokens);
        }
        let place = Place { corner: corner.path("").to_str().unwrap().trim_end_matches('/').to_owned() };
        Self { corner, play, rows: played(play), place, usual, admin: format!("admin-{name}@lab.test") }
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
            config["errorCountToSendMessage"] = 1.into();
            config["notifications"]["admin_email"] = self.admin.as_str().into();
            config["pingOptions"] = "-W 1 -c 1".into();
            let experiments = self.rows.iter().map(|row| {
                let role = merged(self.usual.clone(), (row.role)(&self.place));
                let issuer = match role["account"].as_str() {
                    Some("fermiadm") => "fermilab",
                    Some("mu2epro") => "mu2e",
                    _ => "dune",
                };
                let roles = json!({ row.role_name(): role });
                let experiment = json!({ "experimentOverride": issuer, "roles": roles, "emails": [stakeholder(row)] });
                (row.name.to_owned(), experiment)
            });
            // A collector is waited for 10 s at most, however long the step's time: on a busy machine the healthy one must not
            // have more to do meanwhile.
            let of_healthy = if self.play == Play::Collectors {
                json!({ "tokenGetterOverride": "getToken" })
            } else {
                json!({ "condorCreddHostOverride": "schedd2.lab.test" })
            };
            let healthy = merged(self.usual.clone(), of_healthy);
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

    fn times(&self) -> &'static [u32] {
        if matches!(self.play, Play::Tickets | Play::Nodes) { TIMES } else { LONG_TIMES }
    }

    /// All rows beside healthy services: 10. Then the rows alone: 11.
    fn play(&self, page_name: &str) {
        let mut why = String::new();
        for seconds in self.times() {
            self.configure(*seconds);
            let before = self.heard();
            let ended = self.corner.run(&["run", "token-push"]);
            let seen = self.show();
            match self.check(&seen, &ended, *seconds, &before) {
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

    /// What the admins, Slack and the rows' stakeholders have heard so far.
    fn heard(&self) -> Heard {
        let lab = self.corner.lab;
        Heard {
            admins: mails_to(lab, &self.admin),
            slack: judge::posts(lab),
            stakeholders: self.rows.iter().map(|row| mails_to(lab, &stakeholder(row))).collect(),
        }
    }

    /// Without a service that is well, and what is only slow without one that fails. Class and message are known; what
    /// fails may be quick.
    fn alone(&self) {
        let slowest = *self.times().last().expect("several");
        for (fails, seconds) in [(true, 3), (false, slowest)] {
            let rows: Vec<&Cell> = self.rows.iter().copied().filter(|row| row.fails() == fails).collect();
            let Some(code) = rows.iter().filter_map(|row| row.exit.last()).next() else { continue };
            self.configure(seconds);
            let services: Vec<String> = rows.iter().map(|row| row.service()).collect();
            let selected = services.iter().flat_map(|service| ["-s", service]);
            self.corner.run(&["run", "token-push"].into_iter().chain(selected).collect::<Vec<_>>()).exits(*code);
        }
    }

    fn check(&self, seen: &Seen, ended: &Ended, seconds: u32, before: &Heard) -> Result<(), String> {
        seen.healthy_first(&self.rows)?;
        seen.nothing_else(&self.rows)?;
        for row in &self.rows {
            self.check_row(row, seen, &ended.err, seconds)?;
        }
        let now = self.heard();
        // Scenes share the laboratory: posts of others name the healthy service, too, if it had no time there.
        let names_ours = |post: &&String| self.rows.iter().any(|row| post.contains(&row.service()));
        let posts: Vec<String> = now.slack[before.slack.len()..].iter().filter(names_ours).cloned().collect();
        let told = self.rows.iter().map(|row| {
            let service = row.service();
            Told::of(row, &service, target(&seen.run, &service, row.step, row.target))
        });
        let well = Told { service: HEALTHY.to_owned(), who: &[], words: Vec::new() };
        let told: Vec<Told> = told.chain([well]).collect();
        judge::told(&now.admins[before.admins.len()..], &posts, &told)?;
        for (at, row) in self.rows.iter().enumerate() {
            judge::stakeholders(row, &now.stakeholders[at][before.stakeholders[at].len()..])?;
        }
        let code = self.rows.iter().filter(|row| row.fails()).filter_map(|row| row.exit.first()).next();
        expect("exit code", &ended.code, &code.copied())
    }

    fn check_row(&self, row: &Cell, seen: &Seen, told: &str, seconds: u32) -> Result<(), String> {
        let service = row.service();
        let place = target(&seen.run, &service, row.step, row.target);
        let lab = self.corner.lab.dir().to_str().unwrap();
        let fill = |text: &str| self.place.fill(text, row).replace("{lab}", lab).replace("{target}", row.target);
        judge::target(row, place, seconds, fill)?;
        if row.peer == Peer::Collector {
            seen.targets_took(&service, row)?;
        }

        // What cron mails says the same.
        let message = place["attempts"].as_array().and_then(|tries| Some(word(&tries.last()?["message"])));
        let message = message.unwrap_or_default();
        let in_mail =
            |line: &str| [service.as_str(), row.step, row.code, &message].iter().all(|part| line.contains(part));
        if row.fails() != told.lines().any(in_mail) {
            return Err(format!("{service}: {told}"));
        }

        let push = step(&seen.run, &service, "push");
        let to_good = push["targets"].as_array().and_then(|all| all.iter().find(|target| target["name"] == GOOD_NODE));
        expect(&format!("{service}: {push:#}"), &word(&to_good.unwrap_or(push)["status"]), &row.push.to_owned())
    }
}

impl Seen {
    /// The step's targets were asked for so long, from the end of the step before it to the first try.
    fn targets_took(&self, service: &str, row: &Cell) -> Result<(), String> {
        let time = |value: &Value| word(value).parse::<Timestamp>().expect("a time");
        let before = time(&target(&self.run, service, "get-vault-token", "-")["attempts"][0]["ended_at"]);
        let began = time(&target(&self.run, service, row.step, row.target)["attempts"][0]["started_at"]);
        let took = began.duration_since(before);
        if took >= SignedDuration::from_secs(row.least.into()) { Ok(()) } else { Err(format!("{service}: {took:#}")) }
    }

    /// Nothing but what the rows tell of went wrong, and what they say goes with it.
    fn nothing_else(&self, rows: &[&Cell]) -> Result<(), String> {
        for row in rows {
            for also in row.also {
                let step = step(&self.run, &row.service(), also.step);
                let targets = step["targets"].as_array().expect("targets");
                let place = targets.iter().find(|target| target["name"] == also.target).unwrap_or(step);
                expect(&format!("{}: {place:#}", row.service()), &word(&place["status"]), &also.status.to_owned())?;
                let last = place["attempts"].as_array().and_then(|all| all.last());
                let code = last.map(|last| word(&last["code"]));
                expect(&format!("{}: {place:#}", row.service()), &code.unwrap_or_default(), &also.code.to_owned())?;
            }
        }
        for machine in self.run["machines"].as_array().expect("machines") {
            let row = rows.iter().find(|row| machine["subject"] == row.service().as_str());
            for step in machine["steps"].as_array().expect("steps") {
                for target in step["targets"].as_array().expect("targets") {
                    let fine = ["succeeded", "not-attempted", "skipped"].iter().any(|fine| target["status"] == *fine);
                    let is = |name: &str, of: &str| step["name"] == name && target["name"] == of;
                    let also = |row: &Cell| row.also.iter().any(|also: &Also| is(also.step, also.target));
                    let known = row.is_some_and(|row| is(row.step, row.target) || also(row));
                    if !fine && !known {
                        return Err(format!("{} failed, too: {step:#}", machine["subject"]));
                    }
                }
            }
        }
        Ok(())
    }

    /// The healthy service succeeded, and before any attempt that hangs was over.
    fn healthy_first(&self, rows: &[&Cell]) -> Result<(), String> {
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
    let scene = Scene::new(lab, "tickets", Play::Tickets, with_token_only());
    lab.gremlin("kdc:7003", "hang");
    lab.gremlin("kdc:7007", "garbage");
    let keytab = |name: &str| scene.corner.path(format!("{name}.keytab"));
    for (name, made_from) in [("stale", "dunepro.stale"), ("wrong", "stranger.good")] {
        fs::copy(lab.path("kdc").join(made_from), keytab(name)).unwrap();
    }
    fs::write(keytab("corrupt"), "no keytab at all").unwrap();
    // Realms of their own, so that the others' KDC stays as it is.
    let realms = [("DEAD.TEST", 7002), ("MUTE.TEST", 7003), ("NOISE.TEST", 7007)];
    let texts = realms.map(|(realm, port)| format!(" {realm} = {{\n  kdc = 127.0.0.1:{port}\n }}\n"));
    let realms = format!("\n[realms]\n{}", texts.concat());
    fs::OpenOptions::new().append(true).open(lab.path("krb5.conf")).unwrap().write_all(realms.as_bytes()).unwrap();
    let keys: String = ["dunepro@DEAD.TEST", "dunepro@MUTE.TEST", "dunepro@NOISE.TEST", "nobody@LAB.TEST"]
        .map(|principal| format!("addent -password -p {principal} -k 1 -e aes256-cts-hmac-sha1-96\nany password\n"))
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
    let scene = Scene::new(lab, "vault", Play::Vaults, with_token_only());
    for (place, kind) in
        [("vault:7001", "hang"), ("vault:7004", "garbage"), ("vault:7005", "page"), ("vault:7006", "slow 1")]
    {
        lab.gremlin(place, kind);
    }
    lab.fault("vault", "403 fermiadm");
    lab.fault("vault", "norefresh mu2epro");
    // An earlier run, in which all was well, has left a token.
    scene.configure(TIMES[0]);
    scene.corner.run(&["run", "token-push", "-s", HEALTHY]).exits(0);
    scene.play("vault");
}

fn with_credds() -> Value {
    let mut usual = with_token_only();
    usual.as_object_mut().unwrap().remove("tokenGetterOverride");
    usual
}

#[test]
fn a_bad_credd_is_named_and_delays_nobody_else() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "credds", Play::Credds, with_credds());
    // Beyond the laboratory's own: hosts that only the services know that ask for them.
    for (number, fault) in [(3, "denied"), (4, "hang 3600"), (5, "garbage"), (6, "hang 3"), (7, "down")] {
        let holds = lab.path(format!("condor/credd/schedd{number}.lab.test"));
        fs::create_dir(&holds).unwrap();
        scene.corner.give(&holds);
        fs::write(lab.path(format!("faults/schedd{number}")), fault).unwrap();
    }
    // One of the two that the second collector names is down.
    let ads = fs::read_to_string(lab.path("condor/pool/collector.lab.test.json")).unwrap();
    fs::write(lab.path("condor/pool/collector7.lab.test.json"), ads.replace("schedd1.", "schedd7.")).unwrap();
    scene.play("credds");
}

#[test]
fn a_bad_collector_is_named_and_delays_nobody_else() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "collectors", Play::Collectors, with_credds());
    for (number, fault) in [(3, "hang 3600"), (4, "denied"), (5, "garbage"), (6, "hang 1")] {
        let ads = lab.path(format!("condor/pool/collector{number}.lab.test.json"));
        fs::copy(lab.path("condor/pool/collector.lab.test.json"), ads).unwrap();
        fs::write(lab.path(format!("faults/collector{number}")), fault).unwrap();
    }
    scene.play("collectors");
}

#[test]
fn a_bad_node_is_named_and_delays_nobody_else() {
    let Some(lab) = &*LAB else { return };
    let scene = Scene::new(lab, "nodes", Play::Nodes, with_token_only());
    lab.gremlin("node9", "garbage");
    lab.gremlin("node10", "slow 1");
    lab.fault("node1", "hostkey");
    scene.play("nodes");
    lab.fault("node1", "ok");
}
