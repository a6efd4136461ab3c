//! Figures of the store: `cargo bench --bench store`, `cargo bench --bench store queue` for the waiting alone, `… upkeep` for
//! looking at, saving and restoring a store. Prints; `queue` fails in a release build if somebody waits too long.

#[path = "../tests/store_support/past.rs"]
mod past;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use managed_tokens::workflow::definition::{ForEach, Mode};
use managed_tokens::workflow::event::{Event, Fact, Selection};
use managed_tokens::workflow::id::{RunId, StepName, Subject, TargetName, WorkflowName};
use managed_tokens::workflow::run::{Machine, Run, StepState, TargetState};
use managed_tokens::workflow::status::{MachineStatus, RunStatus, StepStatus};
use managed_tokens::workflow::store::{self, Access, Options, StateDir, Store, StoreError};
use tokio::sync::Barrier;
use ulid::Ulid;

/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(3);

fn main() {
    if let Some(state) = std::env::var_os("MT_BENCH_BUSY") {
        return busy(Path::new(&state));
    }
    let part = std::env::args().nth(1).filter(|part| !part.starts_with('-'));
    // Beside the build, not in /tmp: that may be memory, where syncing costs nothing.
    let tmp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory for the bench");
    let directory = |name: &str| StateDir::create(tmp.path().join(name)).expect("a state directory");
    if part.as_ref().is_some_and(|part| part == "upkeep") {
        return upkeep(&directory("upkeep"));
    }
    if part.is_none_or(|part| part != "queue") {
        println!("transitions per second (an event and its machine, durable when acknowledged)");
        for writers in [1, 8, 64, 512] {
            transitions(&directory(&format!("transitions-{writers}")), writers);
        }
        lists(&directory("lists"));
        hand_over(&directory("hand-over"));
    }
    let in_time = queue(&directory("queue"));
    drop(tmp);
    if !in_time {
        std::process::exit(1);
    }
}

/// How long looking at, saving, restoring and compacting 10,000 runs takes.
fn upkeep(state: &StateDir) {
    let store = Store::open(state, Access::ReadWrite).expect("the store opens");
    past::fill(&store, 0..10_000, 5, id);
    let (options, file) = (Options::default(), state.path().join("export"));
    let timed = |what: &str, work: &mut dyn FnMut() -> String| {
        let since = Instant::now();
        let said = work();
        println!("{what:<48} {:>8.1?}   {said}", since.elapsed());
    };
    println!("upkeep of 10,000 runs of 5 services (280,000 events)");
    timed("verify", &mut || {
        let found = store::verify(state, &options).expect("it can be read");
        let bytes: u64 = found.trees.iter().map(|tree| tree.bytes).sum();
        let whole = found.is_whole();
        format!("whole: {whole}, {} MB of records, {} MB on the disk", bytes >> 20, found.bytes_on_disk >> 20)
    });
    timed("export", &mut || {
        let begin = || std::fs::File::create(&file).map(std::io::BufWriter::new);
        let (exported, _) = store::export(state, &options, begin).expect("it can be read");
        format!("{} records, {} MB", exported.records, std::fs::metadata(&file).expect("it is there").len() >> 20)
    });
    timed("export without sled, as of a damaged store", &mut || {
        let no_room = Options { min_free: u64::MAX, ..Options::default() };
        let (exported, _) = store::export(state, &no_room, || Ok(std::io::sink())).expect("it can be read");
        format!("{} records", exported.records)
    });
    timed("import", &mut || {
        let from = store::From::File { path: file.clone(), partial: false };
        let order = store::ImportOrder { from, uids: [].into(), replace: true };
        let imported = store::import(state, &order, &options).expect("it is an export");
        format!("{} records, {} mended", imported.records, imported.mended.len())
    });
    store.close();
    let store = Store::open(state, Access::ReadWrite).expect("the store opens");
    for round in 0..3 {
        past::fill(&store, 10_000 * (round + 1)..10_000 * (round + 1) + 2_000, 5, id);
        let keep = store::Retention { keep: Duration::ZERO, min_runs: 2_000 };
        store.prune(keep, false, |_| false).expect("it can be written");
    }
    timed("compact, 2,000 runs being left", &mut || {
        let done = store::compact(state, &options).expect("it can be copied").expect("there is one");
        format!("{} MB before, {} MB after, {} records", done.before >> 20, done.after >> 20, done.records)
    });
    store.close();
}

fn transitions(state: &StateDir, writers: u64) {
    let store = Store::open(state, Access::ReadWrite).expect("the store opens");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let mut took = runtime.block_on(async {
        let together = Arc::new(Barrier::new(writers as usize));
        let tasks: Vec<_> = (0..writers)
            .map(|n| {
                let (store, together) = (store.clone(), Arc::clone(&together));
                tokio::spawn(async move {
                    together.wait().await;
                    let (run, until, mut took) = (id(n), Instant::now() + SPAN, Vec::new());
                    for seq in 0.. {
                        let since = Instant::now();
                        if since >= until {
                            break;
                        }
                        store.write(move |tx| transition(tx, run, seq)).await.expect("the write is durable");
                        took.push(since.elapsed());
                    }
                    took
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("the writer ends"));
        }
        all
    });
    let stats = store.stats();
    println!(
        "  {writers:>4} writers  {:>7.0}/s  {:>6.1} per commit  {}",
        took.len() as f64 / SPAN.as_secs_f64(),
        stats.writes as f64 / stats.commits as f64,
        spread(&mut took)
    );
    store.close();
}

fn lists(state: &StateDir) {
    let store = Store::open(state, Access::ReadWrite).expect("the store opens");
    for part in 0..10 {
        store
            .write_blocking(move |tx| (0..1_000).try_for_each(|n| tx.put_run(&run(id(part * 1_000 + n)))))
            .expect("the runs are written");
    }
    let mut took = Vec::new();
    for _ in 0..200 {
        let since = Instant::now();
        let rows = store.read_blocking(|view| {
            let runs = view.newest_runs(20)?;
            runs.iter().map(|run| view.shortest_prefix(run.id)).collect::<Result<Vec<_>, StoreError>>()
        });
        took.push(since.elapsed());
        assert_eq!(rows.expect("the store is read").expect("and whole").len(), 20);
    }
    println!("newest 20 of 10,000 runs, with their short ids, the store open   {}", spread(&mut took));
    store.close();
    let mut took = Vec::new();
    for _ in 0..20 {
        let since = Instant::now();
        let store = Store::open(state, Access::ReadOnly).expect("the store opens");
        store.read_blocking(|view| view.newest_runs(20)).expect("the store is read").expect("and whole");
        took.push(since.elapsed());
        store.close();
    }
    println!("the same from a closed store   {}", spread(&mut took));
}

/// How long a reader waits for its answer while another process writes all the time.
fn hand_over(state: &StateDir) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .env("MT_BENCH_BUSY", state.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the other process starts");
    let mut says = BufReader::new(child.stdout.take().expect("piped")).lines();
    says.next().expect("it says that it writes").expect("readable");
    let mut took = Vec::new();
    for _ in 0..100 {
        let since = Instant::now();
        let store = Store::open(state, Access::ReadOnly).expect("the store is handed over");
        store.read_blocking(|view| view.newest_runs(20)).expect("the store is read").expect("and whole");
        took.push(since.elapsed());
        store.close();
    }
    println!("a reader beside a busy writer   {}", spread(&mut took));
    let store = Store::open(state, Access::ReadWrite).expect("the store is handed over");
    let (mut took, mut seq, until) = (Vec::new(), 0, Instant::now() + SPAN);
    while Instant::now() < until {
        let since = Instant::now();
        store.write_blocking(move |tx| transition(tx, id(1), seq)).expect("the write is durable");
        took.push(since.elapsed());
        seq += 1;
    }
    println!("a writer beside a busy writer   {}  ({} hand-overs)", spread(&mut took), store.stats().hand_overs);
    store.close();
    child.kill().expect("the other process is ours");
    child.wait().expect("it ends");
}

/// How long each of four processes that write all the time waits for its writes, and a fifth that only looks, which opens
/// the store every time. Is it as little as was promised?
fn queue(state: &StateDir) -> bool {
    let mut writers: Vec<_> = (1..=BUSY)
        .map(|n| {
            let mut child = Command::new(std::env::current_exe().expect("this program"))
                .env("MT_BENCH_BUSY", state.path())
                .env("MT_BENCH_NUMBER", n.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the other process starts");
            let mut says = BufReader::new(child.stdout.take().expect("piped")).lines();
            says.next().expect("it says that it writes").expect("readable");
            (child, says)
        })
        .collect();
    let mut took = Vec::new();
    for _ in 0..300 {
        let since = Instant::now();
        let store = Store::open(state, Access::ReadOnly).expect("the store is handed over");
        store.read_blocking(|view| view.newest_runs(20)).expect("the store is read").expect("and whole");
        took.push(since.elapsed());
        store.close();
    }
    println!("a reader beside {BUSY} busy writers   {}", spread(&mut took));
    let mut slow = Vec::new();
    if too_slow(&took) {
        slow.push("the reader".to_owned());
    }
    // All at once: whoever goes on alone would have it easier.
    writers.iter_mut().for_each(|(child, _)| drop(child.stdin.take()));
    for (n, (mut child, says)) in writers.into_iter().enumerate() {
        let micros = says.map(|line| line.expect("readable").parse().expect("a number"));
        let mut took: Vec<Duration> = micros.map(Duration::from_micros).collect();
        println!("writer {} of {BUSY} busy ones   {}  ({} writes)", n + 1, spread(&mut took), took.len());
        if too_slow(&took) {
            slow.push(format!("writer {}", n + 1));
        }
        child.wait().expect("it ends");
    }
    if !slow.is_empty() {
        eprintln!("too slow: the p99 of {} is over {PROMISED:?}", slow.join(", "));
    }
    slow.is_empty()
}

/// What docs/reliability.md promises of the p99, of a release build.
const PROMISED: Duration = Duration::from_millis(250);

/// Of sorted times.
fn too_slow(took: &[Duration]) -> bool {
    !cfg!(debug_assertions) && share(took, 0.99) > PROMISED
}

/// How many processes are busy at once.
const BUSY: u64 = 4;

/// Writes without a pause, until its stdin is closed: then it says how many microseconds each write took.
fn busy(state: &Path) {
    let number = std::env::var("MT_BENCH_NUMBER").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let state = StateDir::existing(state).expect("the state directory");
    let store = Store::open(&state, Access::ReadWrite).expect("the store opens");
    let over = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&over);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        heard.store(true, Ordering::SeqCst);
    });
    let mut took: Vec<Duration> = Vec::new();
    for seq in 0.. {
        let since = Instant::now();
        store.write_blocking(move |tx| transition(tx, id(number), seq)).expect("the write is durable");
        took.push(since.elapsed());
        if seq == 100 {
            println!("writing");
            std::io::stdout().flush().expect("the bench listens");
        }
        if seq > 100 && over.load(Ordering::SeqCst) {
            break;
        }
    }
    store.close();
    took.iter().for_each(|took| println!("{}", took.as_micros()));
}

fn transition(tx: &mut managed_tokens::workflow::store::Tx<'_>, run: RunId, seq: u64) -> Result<(), StoreError> {
    let subject = Subject::new(format!("experiment{}_production", seq % 50));
    let (step, target) = (StepName::new("push"), TargetName::new("node01.fnal.gov"));
    let at = Timestamp::now();
    let machine = Machine {
        subject: subject.clone(),
        status: MachineStatus::Running,
        started_at: Some(at),
        ended_at: None,
        steps: ["kinit", "get-vault-token", "store-in-credd", "ping", "push"]
            .map(|name| StepState {
                name: StepName::new(name),
                status: StepStatus::Running,
                targets: vec![TargetState { name: target.clone(), status: StepStatus::Running, attempts: Vec::new() }],
                why: None,
            })
            .into(),
        other_run: None,
    };
    tx.put_machine(run, &machine)?;
    let fact = Fact::AttemptStarted { subject: Some(subject), step, target, number: 1 };
    tx.append_event(run, &Event { seq, at, session: 1, fact })
}

fn run(id: RunId) -> Run {
    Run {
        id,
        workflow: WorkflowName::new("token-push"),
        definition: "0".repeat(64),
        for_each: ForEach::Service,
        mode: Mode::Normal,
        selection: Selection::default(),
        status: RunStatus::Succeeded,
        started_at: Timestamp::now(),
        ended_at: Some(Timestamp::now()),
        sessions: Vec::new(),
        tally: [(MachineStatus::Succeeded, 50)].into(),
        plan: Vec::new(),
        steps: Vec::new(),
        superseded_by: None,
        events: 0,
    }
}

fn id(n: u64) -> RunId {
    RunId(Ulid::from_parts(1_700_000_000_000 + n, u128::from(n)))
}

fn spread(took: &mut [Duration]) -> String {
    took.sort_unstable();
    format!("p50 {:.1?}  p99 {:.1?}  max {:.1?}", share(took, 0.5), share(took, 0.99), share(took, 1.0))
}

/// So many of the sorted times are not longer.
fn share(took: &[Duration], share: f64) -> Duration {
    took[((took.len() - 1) as f64 * share) as usize]
}
