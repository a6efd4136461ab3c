//! The log files and Loki, after real runs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::LazyLock;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::corner::{Corner, wait_for};
use support::lab::Lab;

mod support;

const DUNE: &str = "dune_production";
const MU2E: &str = "mu2e_production";

/// The shared laboratory. It goes down with the test process, which a watcher outside sees to.
static LAB: LazyLock<Option<Lab>> = LazyLock::new(Lab::up);

/// A corner that logs into a directory of its own.
fn corner<'a>(lab: &'a Lab, name: &str) -> Corner<'a> {
    let corner = Corner::new(lab, name);
    let logs = corner.path("logs");
    fs::create_dir(&logs).unwrap();
    corner.give(&logs);
    configure(&corner, |_| {});
    corner
}

fn configure(corner: &Corner<'_>, change: impl FnOnce(&mut Value)) {
    corner.configure(|config| {
        let file = |name: &str| corner.path("logs").join(name).to_str().map(str::to_owned);
        config["prometheus"] = Value::Null;
        config["logs"] = json!({
            "format": "json",
            "token-push": { "logfile": file("info"), "debugfile": file("debug") },
            "refresh-uids-from-ferry": { "logfile": file("ferry.info"), "debugfile": file("ferry.debug") },
        });
        change(config);
    });
}

fn text(corner: &Corner<'_>, file: &str) -> String {
    fs::read_to_string(corner.path("logs").join(file)).unwrap_or_default()
}

/// The lines of a file in JSON.
fn lines(corner: &Corner<'_>, file: &str) -> Vec<Value> {
    let text = text(corner, file);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Every token that the client has kept.
fn tokens(corner: &Corner<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for kept in fs::read_dir(corner.path("tokens")).unwrap().flatten() {
        found.push(fs::read_to_string(kept.path()).unwrap().trim().to_owned());
    }
    // The locks beside them are empty.
    found.retain(|text| !text.is_empty());
    assert_eq!(found.len(), 2);
    found
}

fn mode(path: PathBuf) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn the_files_of_a_run_say_of_every_line_what_it_is_about_and_nothing_secret() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "lines");
    // Programs that say what they must not, to the log and to us.
    let leak = "cat \"$KRB5CCNAME\" 2>/dev/null; echo authorization: bearer opaque-0123456789abcdef; \
                echo hvs.CAESIJlongEnoughToBeOne0123456789; echo eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2ln; exit 3";
    corner.program("leak", &format!("#!/bin/sh\n{leak}\n"));
    corner.workflow(
        "leak",
        r#"Workflow(name: "leak", for_each: Service, deadline: "5m", steps: [
            Step(name: "leak", action: Exec(command: ["leak", "--password", "hunter2"]), timeout: "20s"),
        ])"#,
    );
    // It goes by its own name, into the same files.
    configure(&corner, |config| config["logs"]["leak"] = config["logs"]["token-push"].clone());
    corner.run(&["run", "token-push"]).is_quiet();
    let said = corner.run(&["run", "token-push", "-vv", "-s", DUNE]).exits(0).err;
    assert!(said.contains("htgettoken"), "{said}");
    let leaked = corner.run(&["run", "leak", "-vv"]).exits(11).err;

    for file in ["info", "debug"] {
        assert_eq!(mode(corner.path("logs").join(file)), 0o640, "{file}");
        let text = text(&corner, file);
        let (mut secrets, shown) = (tokens(&corner), format!("{text}{said}{leaked}"));
        secrets.extend(["hvs.CAES", "eyJ", "hunter2", "opaque-"].map(str::to_owned));
        let found: Vec<_> = secrets.iter().filter(|secret| shown.contains(*secret)).collect();
        assert_eq!(found, [""; 0], "{file}");
    }

    let (info, debug) = (lines(&corner, "info"), lines(&corner, "debug"));
    assert!(info.iter().all(|line| line["level"] != "debug"));
    assert!(info.iter().all(|line| debug.contains(line)), "the debug file has everything");
    let runs: BTreeSet<String> = corner.runs().iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect();
    let of_run = |line: &&Value| line["run"].as_str().is_some_and(|id| runs.contains(id));
    let about_a_run = debug.iter().filter(of_run).count();
    let before = debug.iter().filter(|line| line["run"].is_null()).count();
    assert!(about_a_run > 60 && before <= 3, "{about_a_run} of a run, {before} of none");

    // What a child is started for is known from the line alone.
    let started: Vec<_> = debug.iter().filter(|line| line["message"] == "started a child").collect();
    for (step, program) in
        [("kinit", "kinit -k"), ("get-vault-token", "htgettoken "), ("push", "rsync "), ("leak", "leak ")]
    {
        let is_it = |line: &&&Value| line["command"].as_str().is_some_and(|command| command.starts_with(program));
        let found: Vec<_> = started.iter().filter(is_it).collect();
        assert!(!found.is_empty(), "{program}");
        for line in found {
            assert_eq!(line["step"], step);
            assert!(line["service"] == DUNE || line["service"] == MU2E, "{line}");
            let fans_out = step == "push";
            assert_eq!(line["target"].is_string(), fans_out, "{line}");
        }
    }
    let pushed = |line: &&Value| line["step"] == "push" && line["message"] == "succeeded" && line["ms"].is_u64();
    assert_eq!(debug.iter().filter(pushed).count(), 6, "every attempt says how long it took");
    let failed = |line: &&Value| line["step"] == "leak" && line["message"] == "failed" && line["code"].is_string();
    assert_eq!(info.iter().filter(failed).count(), 2);
}

#[test]
fn a_start_after_a_rotation_writes_a_new_file_and_every_job_has_its_own() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "rotation");
    configure(&corner, |config| config["logs"]["format"] = "logfmt".into());
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    let first = text(&corner, "info");
    let id = |text: &str| text.split("run=").nth(1).unwrap()[..26].to_owned();
    assert!(
        first.contains(&format!("level=info run={} service={DUNE} msg=ended status=succeeded", id(&first))),
        "{first}"
    );
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    assert!(text(&corner, "info").starts_with(&first), "lines are added");

    let logs = corner.path("logs");
    fs::rename(logs.join("info"), logs.join("info.1")).unwrap();
    corner.run(&["run", "ferry-refresh"]).exits(0);
    assert!(!logs.join("info").exists(), "the daily job writes into its own files");
    let ferry = text(&corner, "ferry.debug");
    assert!(ferry.contains("account=dunepro step=fetch-uid") && !ferry.contains("service="), "{ferry}");
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    let rotated = text(&corner, "info");
    assert!(!rotated.is_empty() && !rotated.contains(&id(&first)), "{rotated}");
    assert_eq!(mode(logs.join("info")), 0o640);
}

#[test]
fn files_that_cannot_be_written_cost_one_warning_and_a_link_is_not_followed() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "unwritable");
    let victim = corner.path("logs/victim");
    fs::write(&victim, "").unwrap();
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o666)).unwrap();
    symlink(&victim, corner.path("logs/debug")).unwrap();
    configure(&corner, |config| config["logs"]["token-push"]["logfile"] = "/no/such/directory/log".into());
    let ended = corner.run(&["run", "token-push", "-s", DUNE]).exits(0);
    let [warning] = ended.err.lines().collect::<Vec<_>>()[..] else { panic!("one line: {ended:?}") };
    assert!(warning.starts_with("warning[MT0200]: the log cannot be written; the work goes on: "), "{warning}");
    assert!(warning.contains("/no/such/directory/log: No such file") && warning.contains("logs/debug: it is a link"));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "");

    // Without an entry: the default place, which the laboratory does not have.
    configure(&corner, |config| config["logs"] = Value::Null);
    let ended = corner.run(&["run", "token-push", "-s", DUNE]).exits(0);
    assert!(ended.err.contains("/var/log/managed-tokens/token-push.debug.log"), "{ended:?}");
    assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
    // Who wants none says so.
    let none = json!({ "token-push": { "logfile": "/dev/null", "debugfile": "/dev/null" } });
    configure(&corner, |config| config["logs"] = none);
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
}

#[test]
fn what_was_said_up_to_a_signal_or_an_error_is_in_the_file() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "stopped");
    let gate = corner.hold("rsync");
    let run = corner.start(&["run", "token-push", "-s", DUNE]);
    wait_for("both pushes", || corner.calls("rsync").len() == 2);
    wait_for("the line of the push", || text(&corner, "debug").contains("rsync"));
    run.signal(Signal::SIGTERM);
    run.end().exits(143);
    drop(gate);
    let last = lines(&corner, "info").pop().unwrap();
    assert_eq!((&last["message"], &last["how"]), (&json!("session ended"), &json!("Interrupted")));
    assert!(lines(&corner, "info").iter().any(|line| line["level"] == "warn" && line["signal"] == "Terminate"));
    corner.run(&["runs", "resume"]).exits(0);
    let again = lines(&corner, "info");
    assert!(again.iter().any(|line| line["message"] == "session began" && line["session"] == 2), "{again:?}");
    // An error that ends the command is in the file, too, with what was said before there was a file.
    configure(&corner, |config| {
        config["nonsense"] = 1.into();
    });
    fs::remove_file(corner.path("logs/info")).unwrap();
    corner.run(&["run", "token-push", "-s", DUNE]).exits(0);
    let first = lines(&corner, "info").remove(0);
    assert!(first["message"].as_str().unwrap().contains("nonsense"), "{first}");
}

#[test]
fn the_debug_file_of_fifty_services_on_three_nodes_stays_below_a_megabyte() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "fifty");
    configure(&corner, |config| {
        config["logs"]["format"] = "text".into();
        let role = json!({
            "account": "dunepro", "desiredUIDOverride": 1234,
            "destinationNodes": ["node1.lab.test", "node2.lab.test", "node3.lab.test"],
        });
        let of = |n: u32| (format!("experiment{n}"), json!({ "emails": [], "roles": { "production": role } }));
        config["experiments"] = (0..50).map(of).collect::<serde_json::Map<_, _>>().into();
    });
    // As many steps, targets and children as in a real run, with command lines as long as the real ones, and the last
    // two fail on every node with a lot to say.
    let long = r#""--an-option-as-long-as-those-of-rsync", "-o ConnectTimeout=30 -o ServerAliveInterval=30 -o ServerAliveCountMax=1 -o BatchMode=yes", "tmp/vt_u1234-experiment_production""#;
    let step = |name: &str, command: &str, per: &str| {
        format!(
            r#"Step(name: "{name}", action: Exec(command: [{command}, {long}]), per: {per}, timeout: "60s", on_failure: Continue),"#
        )
    };
    let steps = [
        step("kinit", r#""true""#, "Subject"),
        step("klist", r#""true""#, "Subject"),
        step("get-vault-token", r#""true""#, "Subject"),
        step("lookup", r#""true""#, "Subject"),
        step("ping", r#""fails""#, "Node"),
        step("push", r#""fails""#, "Node"),
    ];
    corner.program("fails", "#!/bin/sh\nhead -c 3000 /dev/zero | tr '\\0' x >&2\nexit 1\n");
    let text_of =
        format!(r#"Workflow(name: "token-push", for_each: Service, deadline: "10m", steps: [{}])"#, steps.concat());
    corner.workflow("token-push", &text_of);
    corner.run(&["run", "token-push"]).exits(11);
    let (debug, info) = (text(&corner, "debug"), text(&corner, "info"));
    assert!(!debug.contains("were lost"));
    assert_eq!(debug.matches("started a child").count(), 50 * (4 + 6));
    assert_eq!(info.matches(" failed number=1").count(), 50 * 6);
    let size = debug.len();
    eprintln!("the debug file of 50 services: {size} bytes, the info file: {}", info.len());
    assert!(size < 1_000_000, "{size}");
}

#[test]
fn loki_gets_the_lines_of_every_session_and_when_it_does_not_that_is_a_warning() {
    let Some(lab) = &*LAB else { return };
    let corner = corner(lab, "loki");
    let loki = |host: &str| {
        configure(&corner, |config| {
            config["loki"] = json!({ "host": host, "response_header_timeout": "1s" });
            config["devEnvironmentLabel"] = "loki-test".into();
        });
    };
    let got = || -> Vec<Value> {
        let lines = fs::read_to_string(lab.path("out/loki.jsonl")).unwrap_or_default();
        let bodies = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["body"].clone());
        bodies.map(|body| serde_json::from_str(body.as_str().unwrap()).unwrap()).collect()
    };
    loki("https://web.lab.test");
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    let [pushed] = &got()[..] else { panic!("one push: {:?}", got()) };
    let stream = &pushed["streams"][0];
    let labels = json!({ "app": "managed-tokens", "command": "token-push", "environment": "loki-test" });
    assert_eq!(stream["stream"], labels);
    let values = stream["values"].as_array().unwrap();
    assert!(values.iter().all(|pair| pair[0].as_str().unwrap().len() == 19), "nanoseconds");
    let sent: Vec<Value> = values.iter().map(|pair| serde_json::from_str(pair[1].as_str().unwrap()).unwrap()).collect();
    let written = lines(&corner, "info");
    assert_eq!(sent, written[..sent.len()], "what the info file has");
    assert!(sent.iter().any(|line| line["message"] == "session ended" && line["run"].is_string()));

    corner.run(&["run", "token-push", "-s", DUNE, "--no-loki"]).is_quiet();
    assert_eq!(got().len(), 1);

    let warns = |host: &str, why: &str| {
        loki(host);
        let ended = corner.run(&["run", "token-push", "-s", DUNE]).exits(0);
        assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
        assert!(ended.err.contains("WARN") && ended.err.contains("MT0201") && ended.err.contains(why), "{ended:?}");
    };
    warns("http://nowhere.lab.test", "Loki did not get this run's lines");
    warns("http://node1.lab.test:22", "Loki did not get this run's lines");
    warns("ftp://web.lab.test", "http");
    lab.fault("loki", "status 429");
    warns("https://web.lab.test", "429 Too Many Requests a fault was set");
    lab.fault("loki", "hang 30");
    warns("https://web.lab.test", "no answer within 1s");
    lab.fault("loki", "ok");
}
