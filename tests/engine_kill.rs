//! The engine on the real store, killed at every kind of moment: what was acknowledged is there, what is there adds up, a
//! resume finishes the run and does nothing twice.
//!
//! The process that is killed is this binary again: it runs the "test" `another_process`, which kills itself with SIGKILL at
//! the moment it was told. `MT_KILL_SEED` replays the moments of a run of this test, `MT_KILL_ROUNDS` asks for more of them.

mod support {
    pub mod toy;
}

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use managed_tokens::guardian::{Owner, owner_is_dead};
use managed_tokens::workflow::action::{
    Action, ActionInfo, Attempt, AttemptResult, Class, Failure, ProductState, Success,
};
use managed_tokens::workflow::counters::Counter;
use managed_tokens::workflow::definition::{Mode, Retry, Workflow};
use managed_tokens::workflow::driver::drive;
use managed_tokens::workflow::event::{AttemptOutcome, Event, Fact, SessionEnd};
use managed_tokens::workflow::id::{ProcessId, RunId, Subject, TargetName};
use managed_tokens::workflow::recorder::{Observer, Recorder};
use managed_tokens::workflow::run::RunState;
use managed_tokens::workflow::session::{IsDead, claim, create, ended_later, load, status_now};
use managed_tokens::workflow::status::{RunStatus, StepStatus};
use managed_tokens::workflow::store::{Access, StateDir, Store};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use support::toy::{Play, Stage, by, created, plan, workflow};

/// Interrupted runs that the test wants to see finished.
const ROUNDS: usize = 60;
const SUBJECTS: [&str; 6] = ["dune", "icarus", "minerva", "mu2e", "nova", "sbnd"];

#[test]
fn a_run_killed_at_any_moment_loses_nothing_and_is_finished_by_resumes_as_if_undisturbed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("MT_KILL_SEED").unwrap_or_else(rand::random);
    let rounds = number("MT_KILL_ROUNDS").map_or(ROUNDS, |rounds| usize::try_from(rounds).expect("a small number"));
    println!("MT_KILL_SEED={seed} replays these moments");
    let mut random = StdRng::seed_from_u64(seed);

    let undisturbed = Site::new();
    let run = RunId::generate();
    let session = undisturbed.session(run, 1, Moment::Never);
    let expected = statuses(&undisturbed.checked(run, std::slice::from_ref(&session)).expect("there is a run"));
    let (events, calls) = (session.applied().len(), session.calls().len());

    // One store for all rounds: it has to bear many kills, and counters go from run to run.
    let site = Site::new();
    let (mut interrupted, mut ended) = (0, 0);
    while interrupted < rounds {
        let run = RunId::generate();
        let (mut sessions, mut kills) = (Vec::new(), random.random_range(1..=3));
        let state = loop {
            let moment = if kills == 0 { Moment::Never } else { Moment::random(&mut random, events, calls) };
            kills = usize::saturating_sub(kills, 1);
            println!("run {run} session {} {moment}", sessions.len() + 1);
            sessions.push(site.session(run, sessions.len() + 1, moment));
            let state = site.checked(run, &sessions);
            match &state {
                Some(state) if site.status(state) == RunStatus::Interrupted => interrupted += 1,
                Some(_) | None => break state,
            }
        };
        if let Some(state) = state {
            ended += 1;
            assert_eq!(statuses(&state), expected);
            let counters = undisturbed.counters().into_iter().map(|(key, value)| (key, value * ended));
            assert_eq!(site.counters(), counters.collect());
        }
    }
}

/// When a process kills itself.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Never,
    /// So many microseconds after it began.
    Start(u64),
    /// With the k-th event applied and not yet durable.
    Event(usize),
    /// So many microseconds after that.
    AfterEvent(usize, u64),
    /// When the k-th action begins: its intent is acknowledged.
    Call(usize),
    /// When the k-th action has done its work: no outcome is recorded.
    Done(usize),
}

impl Moment {
    fn random(random: &mut StdRng, events: usize, calls: usize) -> Self {
        match random.random_range(0..10) {
            0 => Self::Start(random.random_range(0..20_000)),
            1..=3 => Self::Event(random.random_range(0..events)),
            4..=6 => Self::AfterEvent(random.random_range(0..events), random.random_range(0..3_000)),
            7 => Self::Call(random.random_range(0..calls)),
            _ => Self::Done(random.random_range(0..calls)),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => write!(f, "never"),
            Self::Start(after) => write!(f, "start {after}"),
            Self::Event(k) => write!(f, "event {k}"),
            Self::AfterEvent(k, after) => write!(f, "after-event {k} {after}"),
            Self::Call(k) => write!(f, "call {k}"),
            Self::Done(k) => write!(f, "done {k}"),
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(' ');
        let kind = words.next().unwrap_or_default();
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
        let mut index = || usize::try_from(number()).expect("a small number");
        match kind {
            "never" => Ok(Self::Never),
            "event" => Ok(Self::Event(index())),
            "call" => Ok(Self::Call(index())),
            "done" => Ok(Self::Done(index())),
            "after-event" => Ok(Self::AfterEvent(index(), number())),
            "start" => Ok(Self::Start(number())),
            other => Err(other.to_owned()),
        }
    }
}

/// What a process writes down about itself: it survives a kill, like everything that was written to a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Note {
    /// Who this is; not yet the owner of a session.
    Began(ProcessId),
    /// An event was applied; whether it is durable shows later.
    Applied(Event),
    /// An action began. Its `AttemptStarted` is event `seq`, and is acknowledged.
    Called { subject: String, step: String, target: String, seq: u64 },
}

/// What one process did.
struct Session(Vec<Note>);

impl Session {
    /// Its number in the run; `None` for a process that was killed before it had the run.
    fn number(&self, state: &RunState) -> Option<u32> {
        let process =
            self.0.iter().find_map(|note| if let Note::Began(process) = note { Some(*process) } else { None })?;
        state.run.sessions.iter().find(|session| session.by.process == process).map(|session| session.number)
    }

    fn applied(&self) -> Vec<&Event> {
        self.0.iter().filter_map(|note| if let Note::Applied(event) = note { Some(event) } else { None }).collect()
    }

    /// Subject, step, target and the event that announced it.
    fn calls(&self) -> Vec<(&str, &str, &str, u64)> {
        let call = |note| match note {
            &Note::Called { ref subject, ref step, ref target, seq } => {
                Some((subject.as_str(), step.as_str(), target.as_str(), seq))
            }
            Note::Began(_) | Note::Applied(_) => None,
        };
        self.0.iter().filter_map(call).collect()
    }
}

/// A state directory.
struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        StateDir::create(directory.path().join("state")).expect("a state directory");
        Self { directory }
    }

    fn state(&self) -> StateDir {
        StateDir::existing(self.directory.path().join("state")).expect("the state directory")
    }

    fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&managed_tokens::workflow::store::View<'_>) -> T + Send + 'static,
    ) -> T {
        let store = Store::open(&self.state(), Access::ReadOnly).expect("a killed process does not spoil the store");
        let found = store.read_blocking(look).expect("it can be read");
        store.close();
        found
    }

    /// Runs one session in a process of its own: the first makes the run, the later ones resume it.
    fn session(&self, run: RunId, number: usize, moment: Moment) -> Session {
        let notes = self.directory.path().join(format!("{run}-{number}"));
        let status = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "another_process", "--nocapture", "--test-threads=1"])
            .env("PART", if number == 1 { "begin" } else { "resume" })
            .env("STATE", self.state().path())
            .env("NOTES", &notes)
            .env("RUN", run.to_string())
            .env("MOMENT", moment.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .expect("this binary can be started");
        let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
        assert!(killed || status.success(), "{moment}: {status}");
        let text = fs::read_to_string(&notes).unwrap_or_default();
        // A kill in the middle of a line leaves no newline behind it.
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        Session(whole.map(|line| serde_json::from_str(line).expect("a note")).collect())
    }

    /// What the store has of the run, checked against what its processes saw. `None`: it has no such run.
    fn checked(&self, run: RunId, sessions: &[Session]) -> Option<RunState> {
        let (state, history) = self.look(move |view| {
            (load(view, run).expect("records can be read"), view.events(run).expect("events can be read"))
        });
        let Some(state) = state else {
            assert!(history.is_empty(), "events without a run: {history:#?}");
            let idle = sessions.iter().all(|session| session.applied().is_empty() && session.calls().is_empty());
            assert!(idle, "somebody worked on a run that is not recorded");
            return None;
        };
        let seqs: Vec<u64> = history.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (0..state.run.events).collect::<Vec<_>>(), "gaps in the history");
        assert_eq!(RunState::fold(&history).expect("a legal history").expect("a run"), state, "status = fold(events)");

        for session in sessions {
            let number = session.number(&state).unwrap_or_default();
            let of_driver = |event: &&Event| {
                let before_or_after = match &event.fact {
                    Fact::RunCreated(_) | Fact::SessionStarted(_) => true,
                    Fact::SessionEnded { how } => *how == SessionEnd::Lost,
                    _ => false,
                };
                event.session == number && !before_or_after
            };
            let recorded: Vec<&Event> = history.iter().filter(of_driver).collect();
            let applied = session.applied();
            assert!(applied.len() >= recorded.len() && applied[..recorded.len()] == recorded, "the history is another");
            for (subject, step, target, seq) in session.calls() {
                assert!(
                    seq < state.run.events,
                    "acknowledged event {seq} is lost; {subject} {step} {target} relied on it"
                );
            }
        }
        Self::assert_nothing_is_done_twice(&state, &history, sessions);
        Some(state)
    }

    /// A recorded success is the last word on its target; but a ticket dies with its process, and run-wide steps are for every
    /// session.
    fn assert_nothing_is_done_twice(state: &RunState, history: &[Event], sessions: &[Session]) {
        let successes = |before: u32| -> BTreeSet<(String, String, String)> {
            let success = |event: &Event| match &event.fact {
                Fact::AttemptEnded {
                    subject: Some(subject),
                    step,
                    target,
                    outcome: AttemptOutcome::Succeeded(_),
                    ..
                } if event.session < before && step.as_str() != "kinit" => {
                    Some((subject.to_string(), step.to_string(), target.to_string()))
                }
                _ => None,
            };
            history.iter().filter_map(success).collect()
        };
        for session in sessions {
            let number = session.number(state).unwrap_or_default();
            let done = successes(number);
            for (subject, step, target, _) in session.calls() {
                let call = (subject.to_owned(), step.to_owned(), target.to_owned());
                assert!(!done.contains(&call), "session {number} did it again: {call:?}");
            }
        }
    }

    /// With dead owners taken into account.
    fn status(&self, state: &RunState) -> RunStatus {
        let run_dir = self.directory.path().join("run");
        status_now(&state.run, &|process| owner_is_dead(&run_dir, process))
    }

    fn counters(&self) -> BTreeMap<String, u32> {
        let counters = self.look(|view| view.counters::<Counter>("")).expect("counters can be read");
        counters.into_iter().map(|(key, counter)| (key, counter.value)).collect()
    }
}

/// The statuses of the run, its machines, steps and targets.
fn statuses(state: &RunState) -> Vec<(String, String)> {
    let mut found = vec![("run".to_owned(), state.run.status.to_string())];
    let machines = state.machines.values().map(|m| (m.subject.to_string(), &m.steps));
    for (of, steps) in machines.chain([("run".to_owned(), &state.run.steps)]) {
        for step in steps {
            found.push((format!("{of} {}", step.name), step.status.to_string()));
            let targets = step.targets.iter().map(|t| (t.name.to_string(), t.status));
            let targets: BTreeMap<String, StepStatus> = targets.collect();
            found.extend(
                targets.iter().map(|(name, status)| (format!("{of} {} {name}", step.name), status.to_string())),
            );
        }
    }
    found.extend(state.machines.values().map(|m| (m.subject.to_string(), m.status.to_string())));
    found
}

// ---------------------------------------------------------------- the process that is killed

#[test]
fn another_process() {
    let Ok(part) = std::env::var("PART") else { return };
    let variable = |name: &str| std::env::var(name).expect("the parent sets it");
    let moment: Moment = variable("MOMENT").parse().expect("a moment");
    let diary = Diary::new(Path::new(&variable("NOTES")), moment);
    if let Moment::Start(after) = moment {
        die_after(after);
    }
    let state = StateDir::existing(variable("STATE")).expect("the state directory");
    let run: RunId = variable("RUN").parse().expect("an id");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work(&part, &state, run, diary));
}

async fn work(part: &str, state: &StateDir, run: RunId, diary: Arc<Diary>) {
    let run_dir = state.path().parent().expect("it has a parent").join("run");
    let owner = Owner::take(&run_dir).expect("a place for this process");
    diary.write(&Note::Began(owner.process));
    let store = Store::open(state, Access::ReadWrite).expect("the store opens");
    let workflow = toy_workflow();
    let mut by = by();
    by.process = owner.process;
    let claimed = if part == "begin" {
        let created =
            managed_tokens::workflow::event::RunCreated { id: run, ..created(&workflow, &SUBJECTS, Mode::Normal) };
        create(&store, created, "toy".into(), by).await.expect("the run is made")
    } else {
        let is_dead: IsDead = Arc::new(move |process| owner_is_dead(&run_dir, process));
        claim(&store, run, by, is_dead).await.expect("the run is claimed")
    };
    let observer: Observer = {
        let diary = diary.clone();
        Arc::new(move |event, _| diary.applied(event))
    };
    let record = claimed.run.clone();
    let recorder = Arc::new(Recorder::new(claimed, Some(store.clone()), None, Some(observer)));
    let mut session = plan(&workflow, &stage(), &SUBJECTS, &state.leases());
    session.newer = store.read(move |view| ended_later(view, &record)).await.expect("the store").expect("the runs");
    for action in session.actions.values_mut() {
        *action = Arc::new(Watched { action: action.clone(), diary: diary.clone() });
    }
    assert_eq!(drive(recorder.clone(), session).await.expect("no defect"), SessionEnd::Finished);
    assert_eq!(recorder.why_unrecorded(), None);
    store.close();
    owner.leave();
}

fn toy_workflow() -> Workflow {
    let mut workflow = workflow();
    for step in &mut workflow.steps {
        step.retry = Retry { times: 1, backoff: (Duration::ZERO, Duration::from_millis(2)) };
    }
    workflow
}

/// Failures of every kind, so that counters have something to count.
fn stage() -> Arc<Stage> {
    let stage = Stage::new();
    let at_once = Duration::ZERO;
    stage.play("dune", "push", "node2", &[Play::Fail(Class::Permanent, at_once)]);
    stage.play("icarus", "store", "schedd1", &[Play::Fail(Class::Transient, at_once)]);
    stage.play("minerva", "kinit", "-", &[Play::Fail(Class::NeedsHuman, at_once)]);
    stage.play("mu2e", "get", "-", &[Play::Fail(Class::Transient, at_once), Play::Succeed(Duration::from_millis(1))]);
    stage.play("nova", "*", "*", &[Play::Succeed(Duration::from_millis(3))]);
    stage
}

/// Subject, step and target.
type Place = (Option<Subject>, String, TargetName);

/// Writes down what happens, and kills this process when the moment has come.
struct Diary {
    file: Mutex<File>,
    moment: Moment,
    events: AtomicUsize,
    calls: AtomicUsize,
    done: AtomicUsize,
    /// The last `AttemptStarted` of every place.
    announced: Mutex<BTreeMap<Place, u64>>,
}

impl Diary {
    fn new(path: &Path, moment: Moment) -> Arc<Self> {
        let path: PathBuf = path.to_owned();
        let file = OpenOptions::new().append(true).create_new(true).open(path).expect("a new file");
        Arc::new(Self {
            file: Mutex::new(file),
            moment,
            events: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            announced: Mutex::default(),
        })
    }

    fn write(&self, note: &Note) {
        let line = serde_json::to_string(note).expect("a note is JSON") + "\n";
        self.file.lock().expect("no panic").write_all(line.as_bytes()).expect("it can be written");
    }

    fn applied(&self, event: &Event) {
        self.write(&Note::Applied(event.clone()));
        if let Fact::AttemptStarted { subject, step, target, .. } = &event.fact {
            let place = (subject.clone(), step.to_string(), target.clone());
            self.announced.lock().expect("no panic").insert(place, event.seq);
        }
        let k = self.events.fetch_add(1, Ordering::SeqCst);
        match self.moment {
            Moment::Event(wanted) if wanted == k => die(),
            Moment::AfterEvent(wanted, after) if wanted == k => die_after(after),
            _ => {}
        }
    }

    fn called(&self, attempt: &Attempt) {
        let place = (attempt.subject.clone(), attempt.step.to_string(), attempt.target.clone());
        let seq = self.announced.lock().expect("no panic").get(&place).copied();
        self.write(&Note::Called {
            subject: attempt.subject.as_ref().map_or("-", |s| s.as_str()).to_owned(),
            step: attempt.step.to_string(),
            target: attempt.target.to_string(),
            seq: seq.expect("an action begins after its event"),
        });
        let k = self.calls.fetch_add(1, Ordering::SeqCst);
        if matches!(self.moment, Moment::Call(wanted) if wanted == k) {
            die();
        }
    }

    fn done(&self) {
        let k = self.done.fetch_add(1, Ordering::SeqCst);
        if matches!(self.moment, Moment::Done(wanted) if wanted == k) {
            die();
        }
    }
}

fn die() {
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    // The signal is for the process; this thread may run on for a moment, and must not.
    loop {
        std::thread::park();
    }
}

fn die_after(microseconds: u64) {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_micros(microseconds));
        die();
    });
}

/// An action whose calls are written down.
struct Watched {
    action: Arc<dyn Action>,
    diary: Arc<Diary>,
}

impl Action for Watched {
    fn info(&self) -> ActionInfo {
        self.action.info()
    }

    fn targets<'a>(
        &'a self,
        attempt: &'a Attempt,
        recorded: &'a [TargetName],
    ) -> BoxFuture<'a, Result<Vec<TargetName>, Failure>> {
        self.action.targets(attempt, recorded)
    }

    fn attempt<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, AttemptResult> {
        Box::pin(async move {
            self.diary.called(attempt);
            let result = self.action.attempt(attempt).await;
            self.diary.done();
            result
        })
    }

    fn stand_in<'a>(&'a self, attempt: &'a Attempt, failure: &'a Failure) -> BoxFuture<'a, Option<Success>> {
        self.action.stand_in(attempt, failure)
    }

    fn product_state(&self, subject: Option<&Subject>, detail: Option<&Value>) -> ProductState {
        self.action.product_state(subject, detail)
    }

    fn is_configured(&self, subject: Option<&Subject>, target: &TargetName) -> bool {
        self.action.is_configured(subject, target)
    }

    fn adopt(&self, subject: Option<&Subject>, detail: Option<&Value>) -> Result<(), Failure> {
        self.action.adopt(subject, detail)
    }
}
