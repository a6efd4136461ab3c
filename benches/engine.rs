//! Figures of the engine on the real store: `cargo bench --bench engine`. Prints; asserts nothing but that the runs end well.
//!
//! Toy actions that do nothing, so that what is measured is the engine and its record. Every line is a process of its own,
//! because peak memory is a process's.

#[path = "../tests/support/toy.rs"]
mod toy;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use managed_tokens::workflow::action::ActionInfo;
use managed_tokens::workflow::definition::{CountsAs, Mode, OnFailure, Per, Step, Workflow};
use managed_tokens::workflow::driver::{SessionPlan, drive};
use managed_tokens::workflow::id::StepName;
use managed_tokens::workflow::recorder::Recorder;
use managed_tokens::workflow::session::create;
use managed_tokens::workflow::status::RunStatus;
use managed_tokens::workflow::store::{Access, StateDir, Store};
use toy::{Stage, Toy, by, created, plan, step, workflow};

const SERVICES: &str = "MT_BENCH_SERVICES";

fn main() {
    if let Ok(services) = std::env::var(SERVICES) {
        return one(services.parse().expect("a number"));
    }
    println!("one run: 5 steps, 2 credds, 2 nodes for every service; actions that do nothing");
    println!(
        "{:>8}  {:>9}  {:>8}  {:>13}  {:>9}  {:>10}",
        "services", "wall", "events", "transitions/s", "commits", "peak"
    );
    for services in ["2", "50", "1000"] {
        let program = std::env::current_exe().expect("this program");
        let status = Command::new(program).env(SERVICES, services).status().expect("it can be started");
        assert!(status.success(), "{services} services: {status}");
    }
}

fn one(services: usize) {
    // Beside the build, not in /tmp: that may be memory, where syncing costs nothing.
    let tmp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory for the bench");
    let state = StateDir::create(tmp.path().join("state")).expect("a state directory");
    let names: Vec<String> = (0..services).map(|n| format!("experiment{n}_production")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (workflow, stage) = (with_ping(), Stage::new());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");

    let since = Instant::now();
    let store = Store::open(&state, Access::ReadWrite).expect("the store opens");
    let (status, events) = runtime.block_on(async {
        let created = created(&workflow, &names, Mode::Normal);
        let run = create(&store, created, "toy".into(), by()).await.expect("the run is made");
        let recorder = Arc::new(Recorder::new(run, Some(store.clone()), None, None));
        drive(recorder.clone(), session(&workflow, &stage, &names, &state.leases())).await.expect("no defect");
        recorder.with(|state| (state.run.status, state.run.events))
    });
    let took = since.elapsed();
    assert_eq!(status, RunStatus::Succeeded);
    let commits = store.stats().commits;
    println!(
        "{services:>8}  {:>6.0} ms  {events:>8}  {:>13.0}  {commits:>9}  {:>7.1} MB",
        took.as_secs_f64() * 1e3,
        events as f64 / took.as_secs_f64(),
        peak_kib() as f64 / 1024.0
    );
    store.close();
}

fn with_ping() -> Workflow {
    let mut workflow = workflow();
    let ping =
        Step { on_failure: OnFailure::Continue, counts_as: CountsAs::Setup, parallel: 128, ..step("ping", Per::Node) };
    let before_push = workflow.steps.len() - 1;
    workflow.steps.insert(before_push, ping);
    workflow
}

fn session(workflow: &Workflow, stage: &Arc<Stage>, names: &[&str], leases: &Path) -> SessionPlan {
    let mut plan = plan(workflow, stage, names, leases);
    let targets = vec!["node1".to_owned(), "node2".to_owned()];
    let ping = Toy { stage: stage.clone(), info: ActionInfo::default(), targets };
    plan.actions.insert(StepName::new("ping"), Arc::new(ping));
    // A machine holds its lease open while it works.
    managed_tokens::acting::worker::raise_open_files();
    plan
}

/// VmHWM: the most memory this process has had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}
