//! How long short commands take: `cargo bench --bench cli`. Prints; asserts nothing but that they succeed.
//!
//! The program itself is started again and again, with 100 and with 10,000 runs in the store, alone and beside a process
//! that writes all the time. As root everything is done as another user: `mt` refuses root.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use managed_tokens::workflow::action::Success;
use managed_tokens::workflow::definition::{CountsAs, ForEach, Mode, OnFailure, Per};
use managed_tokens::workflow::event::AttemptOutcome;
use managed_tokens::workflow::event::{Event, Fact, PlannedStep, Selection, SessionEnd, SessionStarted};
use managed_tokens::workflow::id::{ProcessId, RunId, StepName, Subject, TargetName, WorkflowName};
use managed_tokens::workflow::run::{AttemptRecord, Machine, Run, Session, StepState, TargetState};
use managed_tokens::workflow::status::{MachineStatus, RunStatus, StepStatus};
use managed_tokens::workflow::store::{Access, StateDir, Store, StoreError};
use ulid::Ulid;

/// How often each command is started.
const TIMES: usize = 40;
/// Machines of every run.
const SERVICES: usize = 10;
/// `nobody`.
const UNPRIVILEGED: u32 = 65_534;

fn main() {
    if let Some(state) = std::env::var_os("MT_BENCH_BUSY") {
        return busy(Path::new(&state));
    }
    let tmp = tempfile::tempdir_in("/tmp").expect("a directory for the bench");
    std::fs::set_permissions(tmp.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
    let mt = tmp.path().join("mt");
    std::fs::copy(env!("CARGO_BIN_EXE_mt"), &mt).expect("a copy that every user can reach");
    println!("{:<44}  {:>8}  {:>8}  {:>8}", "", "p50", "p95", "max");
    time("mt --version", || command(&mt, tmp.path(), &["--version"]));
    for runs in [100, 10_000] {
        let state = tmp.path().join(format!("state-{runs}"));
        fill(&state, runs);
        give_away(&state);
        for writing in [false, true] {
            let writer = writing.then(|| Writer::start(&state));
            let beside = if writing { ", beside a writer" } else { "" };
            for words in [["runs", "list"], ["runs", "show"]] {
                let name = format!("mt {} with {runs} runs{beside}", words.join(" "));
                time(&name, || command(&mt, &state, &words));
            }
            drop(writer);
        }
    }
}

fn time(name: &str, command: impl Fn() -> Command) {
    let mut took: Vec<Duration> = (0..TIMES)
        .map(|_| {
            let mut command = command();
            let since = Instant::now();
            let output = command.output().expect("mt can be started");
            let took = since.elapsed();
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            took
        })
        .collect();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("{name:<44}  {:>5.1} ms  {:>5.1} ms  {:>5.1} ms", at(0.5), at(0.95), at(1.0));
}

fn command(mt: &Path, state: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(mt);
    command.args(words).env_clear().env("MT_STATE_DIR", state).env("MT_CONFIG", "/nonexistent").stdin(Stdio::null());
    unprivileged(&mut command);
    command
}

fn unprivileged(command: &mut Command) {
    if nix::unistd::geteuid().is_root() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
}

fn give_away(path: &Path) {
    if nix::unistd::geteuid().is_root() {
        chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("root may");
        let below = std::fs::read_dir(path).into_iter().flatten().flatten();
        below.for_each(|entry| give_away(&entry.path()));
    }
}

/// This program again, writing until it is dropped.
struct Writer(Child);

impl Writer {
    fn start(state: &Path) -> Self {
        let program: PathBuf = state.with_file_name("writer");
        std::fs::copy(std::env::current_exe().expect("this program"), &program)
            .expect("a copy that every user can reach");
        let mut command = Command::new(program);
        command.env("MT_BENCH_BUSY", state).stdin(Stdio::null()).stdout(Stdio::piped());
        unprivileged(&mut command);
        let mut child = command.spawn().expect("it can be started");
        let mut line = String::new();
        let says = child.stdout.take().expect("it is piped");
        BufReader::new(says).read_line(&mut line).expect("it says when it is busy");
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn busy(state: &Path) {
    let state = StateDir::existing(state).expect("the state directory");
    let store = Store::open(&state, Access::ReadWrite).expect("the store opens");
    // Older than all others, so that what is read beside it stays the same.
    let run = id(0);
    for seq in 0.. {
        let subject = Subject::new(format!("experiment{}_production", seq % 50));
        let fact = Fact::MachineStarted { subject: subject.clone() };
        let event = Event { seq, at: Timestamp::now(), session: 1, fact };
        let write = store.write_blocking(move |tx| -> Result<(), StoreError> {
            tx.put_machine(run, &machine(subject))?;
            tx.append_event(run, &event)
        });
        write.expect("the write is durable");
        if seq == 100 {
            println!("writing");
            std::io::stdout().flush().expect("the bench listens");
        }
    }
}

fn fill(state: &Path, runs: u64) {
    let state = StateDir::create(state).expect("a state directory");
    let store = Store::open(&state, Access::ReadWrite).expect("the store opens");
    for part in 0..runs / 100 {
        let write = store.write_blocking(move |tx| -> Result<(), StoreError> {
            for n in 0..100 {
                let run = run(id(1 + part * 100 + n));
                tx.put_run(&run)?;
                for service in 0..SERVICES {
                    tx.put_machine(run.id, &machine(Subject::new(format!("experiment{service}_production"))))?;
                }
            }
            Ok(())
        });
        write.expect("the runs are written");
    }
    store.close();
}

const STEPS: [(&str, Per); 5] = [
    ("kinit", Per::Subject),
    ("get-vault-token", Per::Subject),
    ("store-in-credd", Per::Credd),
    ("ping", Per::Node),
    ("push", Per::Node),
];

fn machine(subject: Subject) -> Machine {
    let at = Timestamp::now();
    let targets = |per: Per| match per {
        Per::Subject => ["-"].as_slice(),
        Per::Credd => &["schedd1.fnal.gov", "schedd2.fnal.gov"],
        Per::Node => &["node1.fnal.gov", "node2.fnal.gov", "node3.fnal.gov"],
    };
    let attempt = AttemptRecord {
        session: 1,
        number: 1,
        started_at: at,
        ended_at: Some(at),
        result: Some(AttemptOutcome::Succeeded(Success::default())),
    };
    let target = |name: &&str| TargetState {
        name: TargetName::new(*name),
        status: StepStatus::Succeeded,
        attempts: vec![attempt.clone()],
    };
    let step = |(name, per): (&str, Per)| StepState {
        name: StepName::new(name),
        status: StepStatus::Succeeded,
        targets: targets(per).iter().map(target).collect(),
        why: None,
    };
    Machine {
        subject,
        status: MachineStatus::Succeeded,
        started_at: Some(at),
        ended_at: Some(at),
        steps: STEPS.map(step).into(),
        other_run: None,
    }
}

fn run(id: RunId) -> Run {
    let at = Timestamp::now();
    let by = SessionStarted {
        process: ProcessId::generate(),
        host: "mt01".to_owned(),
        boot_id: "boot".to_owned(),
        pid: 1,
        start_ticks: None,
        trigger: "cron".to_owned(),
        trace: None,
    };
    let planned = |(name, per): (&str, Per)| PlannedStep {
        name: StepName::new(name),
        action: "Exec".to_owned(),
        per,
        counts_as: CountsAs::Setup,
        on_failure: OnFailure::Continue,
    };
    Run {
        id,
        workflow: WorkflowName::new("token-push"),
        definition: "0".repeat(64),
        for_each: ForEach::Service,
        mode: Mode::Normal,
        selection: Selection::default(),
        status: RunStatus::Succeeded,
        started_at: at,
        ended_at: Some(at),
        sessions: vec![Session { number: 1, by, started_at: at, ended_at: Some(at), end: Some(SessionEnd::Finished) }],
        tally: [(MachineStatus::Succeeded, u32::try_from(SERVICES).expect("a small number"))].into(),
        plan: STEPS.map(planned).into(),
        steps: Vec::new(),
        superseded_by: None,
        events: 0,
    }
}

/// An hour apart, like real ones.
fn id(n: u64) -> RunId {
    RunId(Ulid::from_parts(1_700_000_000_000 + n * 3_600_000, u128::from(n)))
}
