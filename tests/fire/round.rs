//! Makes a round happen, and looks at what is left when it is over.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use managed_tokens::workflow::status::RunStatus;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::oracle::{Found, Oracle};
use crate::plan::{Actor, EVERYTHING, Plan, SERVICES, Shot, Victims};
use crate::support::corner::{Corner, files_below, wait_for};

/// Longer than anything here takes, even on a busy machine: then something hangs, which is a failure.
const HANGS: Duration = Duration::from_secs(180);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Tally {
    pub rounds: u64,
    /// Processes, shots that hit somebody, and pauses, by what they are called.
    pub happened: BTreeMap<String, u32>,
    pub interrupted: u32,
    pub finished: usize,
    pub children: usize,
    pub events: usize,
    /// Messages that were taken.
    pub messages: usize,
    /// Processes that went on without the store.
    pub unrecorded: u32,
}

impl Tally {
    /// What was to happen, and never did.
    pub fn never(&self) -> Vec<&'static str> {
        EVERYTHING.into_iter().filter(|name| !self.happened.contains_key(*name)).collect()
    }

    fn has_happened(&mut self, name: &str) {
        *self.happened.entry(name.to_owned()).or_default() += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, happened, interrupted, finished, children, events, messages, unrecorded } = self;
        write!(f, "{rounds} rounds, ")?;
        for (name, times) in happened {
            write!(f, "{times} x {name}, ")?;
        }
        write!(f, "{interrupted} runs interrupted, {finished} ended, {children} children, {events} events, ")?;
        write!(f, "{messages} messages, {unrecorded} unrecorded")
    }
}

/// A state directory under fire.
pub struct Site<'a> {
    corner: &'a Corner<'a>,
    oracle: Oracle,
}

/// A running `mt`.
struct Running {
    mt: Child,
    worker: Option<Pid>,
    log: PathBuf,
    watches: bool,
    acts: bool,
    /// Somebody ended it, or tried to.
    shot: bool,
}

/// What comes next.
enum Next {
    Start(usize),
    Shoot(usize, Shot),
    Thaw(Pid),
    Pause(&'static str),
    Resume(&'static str),
}

impl<'a> Site<'a> {
    pub fn new(corner: &'a Corner<'a>) -> Self {
        corner.configure(|config| {
            config["errorCountToSendMessage"] = json!(1);
            config["timeouts"]["kerberosTimeout"] = "4s".into();
            config["timeouts"]["globalTimeout"] = "30s".into();
            let like = config["experiments"]["dune"].clone();
            for service in SERVICES {
                let experiment = service.trim_end_matches("_production");
                if config["experiments"].get(experiment).is_none() {
                    config["experiments"][experiment] = like.clone();
                }
            }
        });
        let (lines, moods) = (corner.path("calls/lines"), corner.path("moods"));
        fs::create_dir(&moods).expect("a directory of the corner");
        corner.program("witness", &witness(&lines, &moods));
        let program = corner.path("bin/witness");
        for (name, overlap) in [("fire-skip", "Skip"), ("fire-wait", "Wait(\"4s\")")] {
            corner.workflow(name, &workflow(name, overlap, &program));
        }
        Self { corner, oracle: Oracle::new(lines) }
    }

    pub fn remove(self) {
        fs::remove_dir_all(self.corner.path("")).expect("it is ours");
    }

    pub fn round(&mut self, plan: &Plan, tally: &mut Tally) {
        println!("{plan:?}");
        for (service, step, mood) in &plan.moods {
            fs::write(self.corner.path(format!("moods/{service}.{step}")), format!("{mood}\n")).expect("it is ours");
        }
        let mut unrecorded = 0;
        for (actor, running) in plan.actors.iter().zip(self.fire(plan, tally)) {
            unrecorded += u32::from(Self::assert_ended_well(actor, running));
        }
        for entry in fs::read_dir(self.corner.path("moods")).expect("it is ours").flatten() {
            fs::remove_file(entry.path()).expect("it is ours");
        }
        tally.interrupted += self.interrupted();
        self.settle();
        let mails = self.corner.lab.mails();
        let Found { runs, children, events, messages } =
            self.oracle.check(&self.corner.state(), &mails, unrecorded == 0);
        tally.rounds += 1;
        tally.unrecorded += unrecorded;
        tally.finished += runs;
        tally.children += children;
        tally.events += events;
        tally.messages += messages;
    }

    /// Plays the plan to its end: everybody has ended when this returns.
    fn fire(&self, plan: &Plan, tally: &mut Tally) -> Vec<Running> {
        let mut due: Vec<(u64, Next)> = Vec::new();
        due.extend(plan.actors.iter().enumerate().map(|(n, actor)| (actor.at, Next::Start(n))));
        due.extend(plan.shots.iter().map(|(n, at, shot)| (*at, Next::Shoot(*n, *shot))));
        for pause in &plan.pauses {
            due.extend([(pause.at, Next::Pause(pause.name)), (pause.until, Next::Resume(pause.name))]);
        }
        let mut running: Vec<Option<Running>> = plan.actors.iter().map(|_| None).collect();
        let began = Instant::now();
        while !due.is_empty() {
            // Stable: what was first stays first.
            due.sort_by_key(|(at, _)| *at);
            let (at, next) = due.remove(0);
            std::thread::sleep(Duration::from_millis(at).saturating_sub(began.elapsed()));
            match next {
                Next::Start(n) => {
                    running[n] = Some(self.start(plan.seed, n, &plan.actors[n]));
                    tally.has_happened(plan.actors[n].name());
                }
                Next::Shoot(n, shot) => {
                    let Some(target) = &mut running[n] else { continue };
                    let frozen = target.shoot(shot, tally);
                    due.extend(frozen.into_iter().map(|(pid, after)| (at + after, Next::Thaw(pid))));
                }
                Next::Thaw(pid) => drop(kill(pid, Signal::SIGCONT)),
                Next::Pause(name) => {
                    self.corner.lab.pause(name);
                    tally.has_happened(&format!("pause {name}"));
                }
                Next::Resume(name) => self.corner.lab.resume(name),
            }
        }
        let mut running: Vec<Running> = running.into_iter().map(|one| one.expect("all were started")).collect();
        for one in running.iter_mut().filter(|one| !one.watches) {
            ended(&mut one.mt);
        }
        for one in running.iter_mut().filter(|one| one.watches) {
            drop(one.mt.kill());
            ended(&mut one.mt);
        }
        // A worker whose guardian was killed ends by itself.
        let is_mt = |words: &String| words.contains("mt run");
        wait_for("the end of every mt", || !self.corner.processes().iter().any(is_mt));
        running
    }

    fn start(&self, seed: u64, number: usize, actor: &Actor) -> Running {
        let log = self.corner.path(format!("calls/{seed}-{number}.log"));
        let file = File::create(&log).expect("a log");
        let mut command = self.corner.mt(&actor.words);
        let mt = command.stdout(Stdio::null()).stderr(file).spawn().expect("lab/lab can be started");
        let (watches, acts) = (actor.words.contains(&"--watch"), actor.words[0] == "run" || actor.words[1] == "resume");
        Running { mt, worker: None, log, watches, acts, shot: false }
    }

    /// No panic, no defect, no unexpected code. Whether it went on unrecorded.
    fn assert_ended_well(actor: &Actor, mut running: Running) -> bool {
        let said = fs::read_to_string(&running.log).expect("its log");
        let status = ended(&mut running.mt);
        let words = &actor.words;
        for bad in ["panicked", "defect", "hangs"] {
            assert!(!said.contains(bad), "{words:?}: {said}");
        }
        let unrecorded = said.contains("is not recorded") || said.contains("and not recorded");
        let expected: &[i32] = match (words[0], words[1]) {
            ("run", _) => &[0, 10, 11, 22, 130, 143],
            // Refused, because somebody was quicker; or all that was left was done elsewhere.
            _ => &[0, 1, 10, 11, 22, 130, 143],
        };
        match status.code() {
            None => assert!(running.shot || running.watches, "{words:?}: {status}: {said}"),
            Some(21) => assert!(said.contains("MT000") || unrecorded, "{words:?}: {said}"),
            Some(code) => assert!(expected.contains(&code), "{words:?}: {status}: {said}"),
        }
        if let Some(128..) = status.code() {
            assert!(running.shot || said.contains("cancel"), "{words:?} ended with {status}, unasked: {said}");
        }
        unrecorded
    }

    fn interrupted(&self) -> u32 {
        let runs = self.corner.runs();
        u32::try_from(runs.iter().filter(|run| run["status"] == "interrupted").count()).expect("a few")
    }

    /// The next acting start clears up and finishes what was cut off: nobody and nothing of the dead is left.
    fn settle(&self) {
        let log = self.corner.path("calls/settle.log");
        let mut command = self.corner.mt(&["runs", "resume", "--interrupted"]);
        let file = File::create(&log).expect("a log");
        let mut mt = command.stdout(Stdio::null()).stderr(file).spawn().expect("lab/lab can be started");
        let status = ended(&mut mt);
        let said = fs::read_to_string(&log).expect("its log");
        assert!(matches!(status.code(), Some(0 | 10 | 11)), "{status}: {said}");
        assert!(!said.contains("defect") && !said.contains("not recorded"), "{said}");
        assert_eq!(self.corner.processes(), [""; 0], "processes are left: {said}");
        assert_eq!(self.corner.private_files(), [""; 0].map(PathBuf::from), "private files are left: {said}");
        for lease in files_below(&self.corner.state().join("leases")).iter().filter(|path| path.is_file()) {
            let file = File::open(lease).expect("a lease");
            assert!(file.try_lock().is_ok(), "{} is held by nobody who lives", lease.display());
        }
        let open = [RunStatus::Running, RunStatus::Interrupted].map(|status| json!(status.as_str()));
        for run in self.corner.runs() {
            assert!(!open.contains(&run["status"]), "it can be finished: {run}\n{said}");
        }
    }
}

impl Running {
    /// Shoots. Who is frozen by it, and for how long.
    fn shoot(&mut self, shot: Shot, tally: &mut Tally) -> Vec<(Pid, u64)> {
        let first = Pid::from_raw(i32::try_from(self.mt.id()).expect("a pid"));
        // A zombie that nobody has collected keeps its number, so none of these is a stranger's.
        if !matches!(self.mt.try_wait(), Ok(None)) {
            return Vec::new();
        }
        self.worker = worker_of(first);
        self.shot = true;
        let worker = if self.acts { self.worker } else { Some(first) };
        let of = |victims| match victims {
            Victims::Worker => [worker, None],
            Victims::Guardian => [Some(first), None],
            Victims::WorkerThenGuardian => [worker, Some(first)],
            Victims::GuardianThenWorker => [Some(first), worker],
        };
        let send = |pids: [Option<Pid>; 2], signal| -> Vec<Pid> {
            pids.into_iter().flatten().filter(|pid| kill(*pid, signal).is_ok()).collect()
        };
        let (hit, frozen_for) = match shot {
            Shot::Kill(victims) => (send(of(victims), Signal::SIGKILL), None),
            Shot::Ask(signal) => (send([Some(first), None], signal), None),
            Shot::Freeze(victims, time) => (send(of(victims), Signal::SIGSTOP), Some(time)),
        };
        // Who is to be killed together with another is not there any more.
        let is_whole = shot.name() != "kill both" || hit.len() == 2;
        if !hit.is_empty() && is_whole {
            tally.has_happened(shot.name());
        }
        frozen_for.map(|time| hit.into_iter().map(|pid| (pid, time)).collect()).unwrap_or_default()
    }
}

fn ended(mt: &mut Child) -> ExitStatus {
    let until = Instant::now() + HANGS;
    loop {
        if let Some(status) = mt.try_wait().expect("it is our child") {
            return status;
        }
        assert!(Instant::now() < until, "mt does not end");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The worker among the guardian's children; the others are orphans that came to it.
fn worker_of(guardian: Pid) -> Option<Pid> {
    let read = |path: String| fs::read_to_string(path).unwrap_or_default();
    let children = read(format!("/proc/{guardian}/task/{guardian}/children"));
    let mut children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    children.find(|pid| read(format!("/proc/{pid}/comm")).trim() == "mt").map(Pid::from_raw)
}

/// Writes down that it began, that it lives, and how it ends: one short write each to a file opened for appending, so the
/// order of the lines is the order of what happened.
fn witness(lines: &Path, moods: &Path) -> String {
    format!(
        r#"#!/bin/sh
say() {{ printf '%s %s %s %s %s %s %s\n' "$1" "$MT_RUN" "$MT_PROCESS" "$MT_SERVICE" "$step" "${{MT_TARGET:--}}" $$ >>{lines}; }}
alive() {{ n=0; while [ $n -lt $1 ]; do sleep 0.03; say alive; n=$((n + 1)); done; }}
step=$1
say begin
mood=well
[ -e {moods}/$MT_SERVICE.$step ] && read mood <{moods}/$MT_SERVICE.$step
case $mood in
fail) say end; exit 1 ;;
again) say end; exit 75 ;;
hang) alive 100000 ;;
deaf) trap '' TERM INT HUP; alive 100000 ;;
away) setsid sleep 1000 </dev/null >/dev/null 2>&1 & ;;
flood) head -c 3000000 /dev/zero ;;
esac
alive $(($$ % 8))
say end
"#,
        lines = lines.display(),
        moods = moods.display()
    )
}

fn workflow(name: &str, overlap: &str, witness: &Path) -> String {
    let own = |step: &str| {
        // The first begins as soon as the service is held.
        let needs = if step == "zero" { "" } else { ", needs: [Ticket]" };
        format!(r#"Exec(command: ["{}", "{step}"]{needs})"#, witness.display())
    };
    format!(
        r#"Workflow(
    name: "{name}", for_each: Service, deadline: "30s", reserve: "10s", overlap: {overlap},
    interrupted: ResumeWithin("30m"),
    steps: [
        Step(name: "zero", action: {zero}, timeout: "2s", on_failure: Continue, counts_as: Setup),
        Step(name: "kinit", action: Kinit, timeout: "4s", on_failure: Stop, counts_as: Setup),
        Step(name: "one", action: {one}, timeout: "2s", on_failure: Stop, counts_as: Setup,
            retry: Retry(times: 1, backoff: ("10ms", "20ms"))),
        Step(name: "two", action: {two}, per: Node, timeout: "2s", on_failure: Continue, counts_as: Setup),
        Step(name: "three", action: {three}, per: Node, timeout: "2s", on_failure: Continue, counts_as: Push,
            retry: Retry(times: 1, backoff: ("10ms", "20ms"))),
    ],
    finally: [Step(name: "notify", action: Notify, timeout: "3s")],
)"#,
        zero = own("zero"),
        one = own("one"),
        two = own("two"),
        three = own("three"),
    )
}
