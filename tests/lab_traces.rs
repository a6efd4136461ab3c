//! The traces of real runs, as a collector gets them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::corner::{Corner, Ended, files_below, wait_for};
use support::lab::Lab;
use support::spans::{self, Span};

mod support;

const DUNE: &str = "dune_production";
const JAEGER: &str = "https://web.lab.test/api/traces";
const OTLP: &str = "https://web.lab.test/v1/traces";
/// A collector that hangs keeps a session for two seconds; a busy machine for longer, but not for as long as the collector hangs.
const SOON: Duration = Duration::from_secs(60);

/// The shared laboratory. It goes down with the test process, which a watcher outside sees to.
static LAB: LazyLock<Option<Lab>> = LazyLock::new(Lab::up);

fn trace_to(corner: &Corner<'_>, tracing: Value) {
    trace_to_with(corner, tracing, |_| {});
}

fn trace_to_with(corner: &Corner<'_>, tracing: Value, change: impl FnOnce(&mut Value)) {
    corner.configure(|config| {
        config["prometheus"] = Value::Null;
        config["devEnvironmentLabel"] = "traces-test".into();
        config["tracing"] = tracing;
        change(config);
    });
}

/// A workflow that takes no time.
fn quick(corner: &Corner<'_>) {
    let step = r#"Step(name: "only", action: Exec(command: ["true"]), timeout: "60s")"#;
    let text = format!(r#"Workflow(name: "token-push", for_each: Service, deadline: "5m", steps: [{step}])"#);
    corner.workflow("token-push", &text);
}

/// Who was asked, and with what.
fn requests(lab: &Lab) -> Vec<(Value, Vec<u8>)> {
    let lines = fs::read_to_string(lab.path("out/traces.jsonl")).unwrap_or_default();
    let request = |line: &str| {
        let request: Value = serde_json::from_str(line).unwrap();
        let body = fs::read(lab.path("out/traces").join(request["file"].as_str().unwrap())).unwrap();
        (request, body)
    };
    lines.lines().map(request).collect()
}

/// The spans of a trace that have arrived.
fn spans_of(lab: &Lab, trace: &str) -> Vec<Span> {
    let read = |(request, body): (Value, Vec<u8>)| match request["path"].as_str() {
        Some("/api/traces") => spans::jaeger(&body),
        Some("/v1/traces") => spans::otlp(&body),
        other => panic!("{other:?}"),
    };
    requests(lab).into_iter().flat_map(read).filter(|span| span.trace == trace).collect()
}

/// The spans of a session, of which `mt runs show` has the trace id, after a check that they say what it says.
#[track_caller]
fn trace(lab: &Lab, run: &Value, session: u64) -> Vec<Span> {
    let by = run["sessions"].as_array().unwrap().iter().find(|s| s["number"] == session).unwrap();
    let id = by["trace"].as_str().expect("a trace id");
    let found = spans_of(lab, id);
    let root = spans::whole(&found);
    assert_eq!(root.attribute("run"), run["id"].as_str());
    assert_eq!(root.attribute("session"), Some(&*session.to_string()));
    assert_eq!(root.attribute("outcome"), run["status"].as_str());
    assert_eq!(root.resource.get("deployment.environment").map(String::as_str), Some("traces-test"));

    // Every attempt of the session is there once, with its outcome, its time and its cause.
    let attempts: BTreeMap<String, &Span> = found
        .iter()
        .filter(|span| span.attributes.contains_key("attempt"))
        .map(|span| {
            let words = ["service", "account", "step", "node", "credd", "attempt"];
            (words.iter().map(|word| span.attribute(word).unwrap_or("-")).collect::<Vec<_>>().join(" "), span)
        })
        .collect();
    let mut count = 0;
    let run_wide = json!({ "kind": "none", "subject": "-", "steps": run["steps"] });
    for machine in run["machines"].as_array().unwrap().iter().chain([&run_wide]) {
        let subject = machine["subject"].as_str().unwrap();
        let (service, account) = match machine["kind"].as_str() {
            Some("account") => ("-", subject),
            _ => (subject, "-"),
        };
        for step in machine["steps"].as_array().unwrap() {
            for target in step["targets"].as_array().unwrap() {
                for attempt in target["attempts"].as_array().unwrap().iter().filter(|a| a["session"] == session) {
                    let (name, number) = (target["name"].as_str().unwrap(), &attempt["number"]);
                    let step = step["name"].as_str().unwrap();
                    let at = |key: &str| format!("{service} {account} {step} {key} {number}");
                    let places = [at(&format!("{name} -")), at(&format!("- {name}"))];
                    let span = places.iter().find_map(|place| attempts.get(place));
                    let span = span.unwrap_or_else(|| panic!("none of {places:?} in {:?}", attempts.keys()));
                    count += 1;
                    assert_eq!(span.attribute("outcome"), attempt["outcome"].as_str(), "{span:?}");
                    assert_eq!(span.attribute("code"), attempt["code"].as_str(), "{span:?}");
                    assert_eq!(span.error.as_deref(), attempt["message"].as_str(), "{span:?}");
                    let started: jiff::Timestamp = attempt["started_at"].as_str().unwrap().parse().unwrap();
                    assert_eq!(span.from / 1000, started.as_millisecond(), "{span:?}");
                }
            }
        }
    }
    assert_eq!(count, attempts.len(), "attempts of nobody: {:?}", attempts.keys());
    found
}

#[track_caller]
fn find<'s>(spans: &'s [Span], path: &str) -> &'s Span {
    let found = spans.iter().find(|span| spans::path(spans, span) == path);
    found.unwrap_or_else(|| {
        panic!("no {path} in {:#?}", spans.iter().map(|s| spans::path(spans, s)).collect::<Vec<_>>())
    })
}

#[test]
fn a_failed_run_is_a_trace_with_its_errors_in_their_places_and_the_session_after_links_to_it() {
    let Some(lab) = Lab::up() else { return };
    for (name, url) in [("jaeger", JAEGER), ("otlp", OTLP)] {
        let corner = Corner::new(&lab, name);
        trace_to_with(&corner, json!({ "url": url }), |config| {
            // Storing takes long: once is enough.
            let getter = if name == "jaeger" { "storeAndGetToken" } else { "getToken" };
            config["experiments"]["dune"]["roles"]["production"]["tokenGetterOverride"] = getter.into();
        });
        lab.fault("schedd2", "denied");
        lab.fault("node2", "hostkey");
        corner.run(&["run", "token-push"]).exits(11);
        let run = corner.show("latest");
        let spans = trace(&lab, &run, 1);
        eprintln!("{}", spans::tree(&spans));

        let root = find(&spans, "token-push");
        assert_eq!(root.error.as_deref(), Some("2 of 2 machines failed"));
        let machine = find(&spans, "token-push / dune_production");
        let stores = name == "jaeger";
        assert_eq!(
            machine.error.as_deref(),
            Some(if stores { "failed: store-in-credd, push" } else { "failed: push" })
        );
        let push = find(&spans, "token-push / dune_production / push");
        assert_eq!(push.error.as_deref(), Some("1 of 2 targets failed"));
        let good = find(&spans, "token-push / dune_production / push / node1.lab.test");
        assert_eq!((good.error.as_deref(), good.attribute("node")), (None, Some("node1.lab.test")));
        let bad = find(&spans, "token-push / dune_production / push / node2.lab.test");
        assert_eq!(bad.attribute("outcome"), Some("needs-human"));
        assert!(bad.attribute("output").is_some_and(|said| said.contains("Host key verification failed")), "{bad:?}");
        let child = find(&spans, "token-push / dune_production / push / node2.lab.test / rsync");
        assert!(child.error.as_deref().is_some_and(|error| error.starts_with("exit ")), "{child:?}");
        assert!(child.attribute("process.command_line").is_some_and(|line| line.contains("node2.lab.test")));
        assert_eq!((child.attribute("service"), child.attribute("node")), (Some(DUNE), Some("node2.lab.test")));
        if stores {
            let credd = find(&spans, "token-push / dune_production / store-in-credd / schedd2.lab.test");
            assert_eq!((credd.attribute("credd"), credd.error.is_some()), (Some("schedd2.lab.test"), true));
        }
        let programs: BTreeSet<&str> = spans
            .iter()
            .filter(|s| s.attributes.contains_key("process.command_line"))
            .map(|s| s.name.as_str())
            .collect();
        let storing: &[&str] = if stores { &["condor_status", "condor_vault_storer"] } else { &[] };
        for program in ["kinit", "htgettoken", "ping", "rsync"].iter().chain(storing) {
            assert!(programs.contains(program), "{program} is not in {programs:?}");
        }
        assert!(root.links.is_empty());

        // Its id is where people look.
        let shown = corner.run(&["runs", "show"]).exits(0);
        assert!(shown.out.contains(&format!("trace {}", root.trace)), "{}", shown.out);

        lab.fault("schedd2", "ok");
        lab.fault("node2", "ok");
        corner.run(&["runs", "resume"]).is_quiet();
        let resumed = corner.show("latest");
        let again = trace(&lab, &resumed, 2);
        let second = spans::whole(&again);
        assert_ne!(second.trace, root.trace);
        assert_eq!(second.links, [(root.trace.clone(), root.id.clone())]);
        assert_eq!(second.error, None);
        let nodes: BTreeSet<_> = again.iter().filter_map(|span| span.attribute("node")).collect();
        assert_eq!(nodes, BTreeSet::from(["node2.lab.test"]), "only what this session did");
        // Both are named, each with its session.
        let shown = corner.run(&["runs", "show"]).exits(0);
        for trace in [&root.trace, &second.trace] {
            assert!(shown.out.contains(trace.as_str()), "{}", shown.out);
        }

        let all: Vec<u8> = requests(&lab).into_iter().flat_map(|(_, body)| body).collect();
        let kept = fs::read_dir(corner.path("tokens")).unwrap().flatten().map(|kept| fs::read(kept.path()).unwrap());
        // The locks beside the tokens are empty.
        let tokens: Vec<Vec<u8>> = kept.map(|text| text.trim_ascii().to_vec()).filter(|t| !t.is_empty()).collect();
        assert!(tokens.len() >= 2);
        for token in tokens {
            assert!(!all.windows(token.len()).any(|window| window == token), "a token is in a trace");
        }
    }
}

#[test]
fn the_url_decides_what_is_spoken_and_the_environment_decides_nothing() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "protocol");
    quick(&corner);
    let thrift = ("/api/traces", "application/vnd.apache.thrift.binary");
    let protobuf = ("/v1/traces", "application/x-protobuf");
    for (tracing, (path, kind)) in [
        (json!({ "url": "https://web.lab.test" }), protobuf),
        (json!({ "url": OTLP }), protobuf),
        (json!({ "url": JAEGER }), thrift),
        (json!({ "url": "https://web.lab.test", "protocol": "jaeger" }), thrift),
    ] {
        trace_to(&corner, tracing);
        let mut mt = corner.mt(&["run", "token-push", "-s", DUNE]);
        let elsewhere = [
            ("OTEL_EXPORTER_JAEGER_ENDPOINT", "http://nowhere.lab.test/api/traces"),
            ("OTEL_EXPORTER_JAEGER_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://nowhere.lab.test"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://nowhere.lab.test/v1/traces"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-stray=1"),
            ("OTEL_SERVICE_NAME", "another"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=another"),
            ("OTEL_TRACES_SAMPLER", "always_off"),
        ];
        mt.env("LAB_RUN_ENV_PASS", elsewhere.map(|(name, _)| name).join(" ")).envs(elsewhere);
        Ended::from(mt.output().unwrap()).is_quiet();
        let run = corner.show("latest");
        trace(lab, &run, 1);
        let id = run["sessions"][0]["trace"].as_str().unwrap();
        let of_run = |(request, body): (Value, Vec<u8>)| {
            let spans = if request["path"] == "/api/traces" { spans::jaeger(&body) } else { spans::otlp(&body) };
            (spans[0].trace == id).then_some(request)
        };
        let asked: Vec<Value> = requests(lab).into_iter().filter_map(of_run).collect();
        let [asked] = &asked[..] else { panic!("one request: {asked:?}") };
        assert_eq!((asked["path"].as_str(), asked["type"].as_str()), (Some(path), Some(kind)));
        let headers: Vec<_> = asked["headers"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(!headers.iter().any(|name| name.eq_ignore_ascii_case("x-stray")), "{headers:?}");
    }

    // Without `tracing` there is no trace and no id of one.
    trace_to(&corner, Value::Null);
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    assert_eq!(corner.show("latest")["sessions"][0]["trace"], Value::Null);
}

#[test]
fn whatever_is_wrong_with_the_collector_is_one_warning_and_keeps_nobody_waiting() {
    let Some(lab) = Lab::up() else { return };
    let corner = Corner::new(&lab, "wrong");
    quick(&corner);
    let debug = corner.path("debug");
    let warns = |url: &str, code: &str, why: &str| {
        let _ = fs::remove_file(&debug);
        trace_to_with(&corner, json!({ "url": url }), |config| {
            let info = corner.path("info");
            config["logs"] = json!({ "format": "json", "token-push": { "logfile": info, "debugfile": debug } });
        });
        let since = Instant::now();
        let ended = corner.run(&["run", "token-push", "-s", DUNE]).exits(0);
        assert!(since.elapsed() < SOON, "{url}: {:?}", since.elapsed());
        assert_eq!(ended.err.lines().count(), 1, "{url}: {ended:?}");
        for part in ["WARN", code, why] {
            assert!(ended.err.contains(part), "{url}: no {part} in {ended:?}");
        }
        let shown = corner.show("latest");
        assert_eq!((&shown["status"], shown["sessions"][0]["trace"].is_string()), (&json!("succeeded"), true));
    };
    // The log files of a corner are made by the client account.
    fs::set_permissions(corner.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    warns("http://nowhere.lab.test/v1/traces", "MT0241", "cannot send the trace to http://nowhere.lab.test/v1/traces");
    warns("https://web.lab.test:1/api/traces", "MT0241", "refused");
    warns("http://node1.lab.test:22/v1/traces", "MT0241", "cannot send the trace");
    warns(
        "http://me:hunter2@node5.lab.test:22/v1/traces",
        "MT0242",
        "http://node5.lab.test:22/v1/traces: no answer within 2s",
    );
    warns("http://node6.lab.test/api/traces", "MT0242", "no answer within 2s");
    lab.fault("traces", "hang 3600");
    for url in [JAEGER, OTLP] {
        warns(url, "MT0242", "no answer within 2s; 0 spans were taken");
    }
    lab.fault("traces", "status 503");
    for url in [JAEGER, OTLP] {
        warns(url, "MT0243", "503 Service Unavailable a fault was set");
    }
    lab.fault("traces", "status 307");
    warns(OTLP, "MT0243", "307 Temporary Redirect");
    lab.fault("traces", "raw <html>sign in</html>");
    for url in [JAEGER, OTLP] {
        warns(url, "MT0243", "no collector of this protocol: <html>sign in</html>");
    }
}

#[test]
fn an_interrupted_session_sends_its_trace_too_and_a_hanging_collector_does_not_hold_it() {
    let Some(lab) = Lab::up() else { return };
    let corner = Corner::new(&lab, "signal");
    trace_to(&corner, json!({ "url": OTLP }));
    for hangs in [false, true] {
        let gate = corner.hold("kinit");
        let mt = corner.start(&["run", "token-push", "-s", DUNE, "--new"]);
        wait_for("kinit", || !corner.calls("kinit").is_empty());
        if hangs {
            lab.fault("traces", "hang 3600");
        }
        let since = Instant::now();
        mt.signal(Signal::SIGTERM);
        let ended = mt.end().exits(143);
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
        assert_eq!(ended.err.contains("MT0242"), hangs, "{ended:?}");
        gate.open();
        corner.forget_calls();
        let run = corner.show("latest");
        let spans = trace(&lab, &run, 1);
        let root = spans::whole(&spans);
        assert_eq!((root.attribute("outcome"), &root.error), (Some("interrupted"), &None));
        let attempt = find(&spans, "token-push / dune_production / kinit / attempt");
        assert_eq!((attempt.attribute("outcome"), &attempt.error), (Some("interrupted"), &None));
        let child = find(&spans, "token-push / dune_production / kinit / attempt / kinit");
        assert_eq!(child.error.as_deref(), Some("stopped by us"));
    }
}

#[test]
fn a_session_that_nobody_records_and_one_for_accounts_are_traced_all_the_same() {
    let Some(lab) = Lab::up() else { return };
    let corner = Corner::new(&lab, "others");
    trace_to(&corner, json!({ "url": JAEGER }));
    corner.run(&["run", "ferry-refresh"]).exits(0);
    let run = corner.show("latest");
    let spans = trace(&lab, &run, 1);
    assert_eq!(spans::whole(&spans).name, "ferry-refresh");
    assert!(spans.iter().any(|span| span.attribute("account") == Some("dunepro")));
    assert!(spans.iter().all(|span| span.attribute("service").is_none()));

    let before: BTreeSet<String> =
        requests(&lab).iter().flat_map(|(_, body)| spans::jaeger(body)).map(|s| s.trace).collect();
    quick(&corner);
    let writable = |bits: u32| {
        for path in files_below(&corner.state()).into_iter().chain([corner.state()]) {
            let mode = if path.is_dir() { 0o500 } else { 0o400 } | bits;
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
        }
    };
    writable(0);
    corner.run(&["run", "token-push", "-s", DUNE]).exits(21);
    writable(0o200);
    let found: Vec<Span> = requests(&lab).iter().flat_map(|(_, body)| spans::jaeger(body)).collect();
    let new: Vec<Span> = found.into_iter().filter(|span| !before.contains(&span.trace)).collect();
    assert_eq!(spans::whole(&new).attribute("outcome"), Some("succeeded"));
    find(&new, "token-push / dune_production / only / attempt / true");
}

#[test]
fn every_span_of_a_session_of_200_services_arrives() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "many");
    let step = |name: &str, command: &str, per: &str| {
        format!(
            r#"Step(name: "{name}", action: Exec(command: ["{command}"]), per: {per}, timeout: "120s", on_failure: Continue),"#
        )
    };
    let steps = [step("kinit", "true", "Subject"), step("push", "true", "Node"), step("fails", "false", "Subject")];
    corner.workflow(
        "token-push",
        &format!(r#"Workflow(name: "token-push", for_each: Service, deadline: "10m", steps: [{}])"#, steps.concat()),
    );
    for url in [OTLP, JAEGER] {
        trace_to_with(&corner, json!({ "url": url }), |config| {
            let role = json!({ "account": "dunepro", "desiredUIDOverride": 1234,
                "destinationNodes": ["node1.lab.test", "node2.lab.test"] });
            let of = |n: u32| (format!("experiment{n}"), json!({ "emails": [], "roles": { "production": role } }));
            config["experiments"] = (0..200).map(of).collect::<serde_json::Map<_, _>>().into();
        });
        let ended = corner.run(&["run", "token-push"]).exits(11);
        assert!(!ended.err.contains("MT024"), "{}", ended.err);
        let spans = trace(lab, &corner.show("latest"), 1);
        // The session; of each service its machine, three steps, four attempts and their children.
        assert_eq!(spans.len(), 1 + 200 * (1 + 3 + 4 + 4));
        assert_eq!(spans.iter().filter(|span| span.error.as_deref() == Some("exit 1")).count(), 200);
        assert_eq!(spans::whole(&spans).error.as_deref(), Some("200 of 200 machines failed"));
    }
}
