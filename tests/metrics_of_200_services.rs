//! The metrics of 200 services on a real pushgateway, and what they cost:
//!
//!     cargo test --test metrics_of_200_services -- --nocapture

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use managed_tokens::acting::metrics::tell;
use managed_tokens::config::{Config, Environment, Format, parse};
use managed_tokens::telemetry::metrics::{Configured, Stored, render, samples};
use managed_tokens::workflow::action::Success;
use managed_tokens::workflow::definition::{ForEach, Mode, OnFailure, Per};
use managed_tokens::workflow::event::{AttemptOutcome, Selection, SessionEnd};
use managed_tokens::workflow::id::{RunId, StepName, WorkflowName};
use managed_tokens::workflow::run::{AttemptRecord, Machine, Run, RunState, Session, StepState, TargetState};
use managed_tokens::workflow::status::{MachineStatus, RunStatus, StepStatus};
use managed_tokens::workflow::store::{Access, StateDir, Store};
use support::large::{CREDDS, NODES, SERVICES, STEPS, plan, subject, targets};

mod support;

const ROUNDS: usize = 5;

fn config(gateway: &str) -> Config {
    let experiments: BTreeMap<String, serde_json::Value> = (0..SERVICES)
        .map(|number| {
            let nodes: Vec<String> = targets(number, Per::Node).iter().map(ToString::to_string).collect();
            let role = serde_json::json!({"account": format!("exp{number:03}pro"), "destinationNodes": nodes});
            (format!("exp{number:03}"), serde_json::json!({"emails": ["a@example.org"], "roles": {"production": role}}))
        })
        .collect();
    let text = serde_json::json!({
        "prometheus": {"host": gateway}, "experiments": experiments, "keytabPath": "/etc/keytabs",
        "kerberosPrincipalPattern": "{{.Account}}/mt@EXAMPLE.ORG", "vaultServer": "vault.example.org",
        "condorCollectorHost": "collector.example.org",
    });
    let environment = Environment::new([("HOME", "/nonexistent")], "/");
    parse(&text.to_string(), Format::Json, Path::new("managedTokens.json"), &environment)
        .expect("it is a configuration")
}

/// A run in which everything succeeded.
fn state(start: Timestamp) -> RunState {
    let at = |milliseconds| start + SignedDuration::from_millis(milliseconds);
    let attempt = || AttemptRecord {
        session: 1,
        number: 1,
        started_at: at(100),
        ended_at: Some(at(350)),
        result: Some(AttemptOutcome::Succeeded(Success {
            detail: Some(serde_json::json!({"fingerprint": "0", "expires_at": at(600_000_000)})),
            note: None,
        })),
    };
    let step = |number, (name, _, per): &(&str, &str, Per)| StepState {
        name: StepName::new(*name),
        status: StepStatus::Succeeded,
        targets: targets(number, *per)
            .into_iter()
            .map(|name| TargetState { name, status: StepStatus::Succeeded, attempts: vec![attempt()] })
            .collect(),
        why: None,
    };
    let machines = (0..SERVICES).map(|number| {
        let subject = subject(number);
        let machine = Machine {
            subject: subject.clone(),
            status: MachineStatus::Succeeded,
            started_at: Some(at(50)),
            ended_at: Some(at(400)),
            steps: STEPS.iter().map(|planned| step(number, planned)).collect(),
            other_run: None,
        };
        (subject, machine)
    });
    let by = support::session::session_started();
    let end = Some(SessionEnd::Finished);
    let run = Run {
        id: RunId::generate(),
        workflow: WorkflowName::new("token-push"),
        definition: "0".repeat(64),
        for_each: ForEach::Service,
        mode: Mode::Normal,
        selection: Selection::default(),
        status: RunStatus::Succeeded,
        started_at: start,
        ended_at: Some(at(450)),
        sessions: vec![Session { number: 1, by, started_at: start, ended_at: Some(at(450)), end }],
        tally: BTreeMap::new(),
        plan: plan(OnFailure::Stop),
        steps: Vec::new(),
        superseded_by: None,
        events: 0,
    };
    RunState { run, machines: machines.collect() }
}

/// A pushgateway of our own, ended when dropped.
struct Pushgateway {
    child: Child,
    address: String,
}

impl Pushgateway {
    /// On a port that the system chose; `None` where there is none to be had.
    fn start() -> Option<Self> {
        let mut command = Command::new("prometheus-pushgateway");
        command.args(["--web.listen-address=127.0.0.1:0", "--persistence.file=", "--log.format=logfmt"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().ok()?;
        let said = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut lines = said.lines().map_while(Result::ok);
        let address = lines.find_map(|line| {
            let at = line.find("127.0.0.1:")?;
            let address: String = line[at..].chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
            (!address.ends_with(":0")).then_some(address)
        });
        // It must never wait for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { child, address: address.expect("it says where it listens") })
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("it reads");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("it answers");
        page
    }
}

impl Drop for Pushgateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn timed<T>(what: &str, mut work: impl FnMut() -> T) -> T {
    let mut times: Vec<(Duration, T)> = (0..ROUNDS)
        .map(|_| {
            let since = Instant::now();
            let made = work();
            (since.elapsed(), made)
        })
        .collect();
    times.sort_by_key(|(time, _)| *time);
    eprintln!("{what:<40} {:>7.1} ms (median of {ROUNDS})", times[ROUNDS / 2].0.as_secs_f64() * 1e3);
    times.swap_remove(0).1
}

#[test]
fn the_whole_set_of_200_services_is_accepted_and_kept() {
    let Some(gateway) = Pushgateway::start() else {
        eprintln!("SKIPPED, prometheus-pushgateway is not installed: lab/lab install");
        return;
    };
    let config = config(&format!("http://{}", gateway.address));
    let tmp = tempfile::tempdir().expect("a directory");
    let state_dir = StateDir::create(tmp.path().join("state")).expect("it can be made");
    let store = Store::open(&state_dir, Access::ReadWrite).expect("it can be opened");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");

    let run = state(Timestamp::now());
    let configured = Configured::new(&config.services, [run.run.workflow.clone()]);
    let stored = timed("from the run to samples", || samples(&run, &[], &Stored::default()));
    let text = timed("from samples to text", || render(&stored, &None, &configured).expect("it can be written"));
    timed("all: store read and written, text, push", || {
        runtime.block_on(tell(&config, Some(&store), state(Timestamp::now()), Vec::new()));
    });
    let lines = text.lines().filter(|line| !line.starts_with('#')).count();
    eprintln!("{SERVICES} services, {NODES} nodes and {CREDDS} credds each: {lines} series, {} KB", text.len() / 1000);

    let page = gateway.metrics();
    let count = |name: &str| page.lines().filter(|line| line.starts_with(&format!("managed_tokens_{name}{{"))).count();
    assert_eq!(count("last_token_push_timestamp"), SERVICES * NODES);
    assert_eq!(count("last_token_store_timestamp"), SERVICES * CREDDS);
    assert_eq!(count("last_success_timestamp"), SERVICES);
    assert!(page.contains("push_failure_time_seconds{instance=\"\",job=\"managed_tokens\"} 0"));
    store.close();
}
