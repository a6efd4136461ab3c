//! `kill -9` at any moment: the run can be resumed, nothing that was done is done again, and nothing stays behind.
//!
//! Real services and programs. Wrappers early in the PATH write down every call with the mark of the process that made
//! it. A moment is "after the k-th line of the log" (every fact of the run has one or none), "when the k-th child starts
//! or ends", or a random time after the first fact. `MT_KILL_SEED` replays the moments of a run of this test,
//! `MT_KILL_ROUNDS` asks for more of them.

mod support;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use support::lab::Lab;
use support::remains::{self, NODES, statuses};

/// Interrupted runs that each test wants to see finished.
const ROUNDS: usize = 10;
const PROGRAMS: [&str; 5] = ["kinit", "htgettoken", "condor_vault_storer", "ping", "rsync"];
/// Longer than anything here takes, even on a busy machine: then something hangs, which is a failure.
const HANGS: Duration = Duration::from_secs(120);

#[test]
fn a_run_whose_worker_was_killed_at_any_moment_is_finished_by_a_resume() {
    kill_and_resume(Victims::Worker);
}

#[test]
fn a_run_whose_worker_and_guardian_were_killed_at_any_moment_is_finished_by_a_resume() {
    kill_and_resume(Victims::WorkerAndGuardian);
}

/// Who gets SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victims {
    Worker,
    WorkerAndGuardian,
}

/// When.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The log has this many lines.
    Line(usize),
    /// The wrappers have written this many lines.
    Call(usize),
    /// This share of the time of an undisturbed run has passed since the first line of the log.
    Time(f64),
}

fn kill_and_resume(victims: Victims) {
    let Some(lab) = Lab::up() else { return };
    let site = Site::new(lab);
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("MT_KILL_SEED").unwrap_or_else(rand::random);
    let rounds = number("MT_KILL_ROUNDS").map_or(ROUNDS, |rounds| usize::try_from(rounds).expect("a small number"));
    println!("MT_KILL_SEED={seed} replays these moments");
    let mut random = StdRng::seed_from_u64(seed);

    let undisturbed = site.undisturbed();
    let (mut interrupted, mut tries) = (0, 0);
    while interrupted < rounds {
        tries += 1;
        assert!(tries < 3 * rounds + 3, "only {interrupted} of {tries} kills came in time");
        let moment = undisturbed.moment(&mut random, tries);
        let guardian_first = random.random();
        // Every third round has to get every token, the others find kept ones.
        site.forget_tokens(tries % 3 == 1);
        println!("{victims:?} {moment:?} guardian first: {guardian_first}");
        interrupted += usize::from(site.round(&undisturbed, victims, moment, guardian_first));
    }
}

/// What an undisturbed run is like.
struct Undisturbed {
    /// The statuses of everything in it.
    statuses: BTreeSet<String>,
    /// Lines in its log.
    lines: usize,
    /// Lines of the wrappers.
    calls: usize,
    took: Duration,
    /// The files it leaves.
    files: BTreeSet<PathBuf>,
}

impl Undisturbed {
    /// Early and late ones alike; not so late that the run is always over.
    fn moment(&self, random: &mut StdRng, turn: usize) -> Moment {
        match turn % 5 {
            0 | 3 => Moment::Line(random.random_range(1..self.lines - 3)),
            1 | 4 => Moment::Call(random.random_range(1..self.calls)),
            // Most rounds find kept tokens, which is faster.
            _ => Moment::Time(random.random_range(0.0..0.5)),
        }
    }
}

struct Site {
    lab: Lab,
    calls: PathBuf,
    path: String,
}

impl Site {
    fn new(lab: Lab) -> Self {
        let wrappers = lab.path("wrappers");
        fs::create_dir(&wrappers).expect("a directory in the laboratory");
        let calls = lab.path("home/calls");
        for program in PROGRAMS {
            let wrapper = wrappers.join(program);
            fs::write(&wrapper, wrap(&lab, program, &calls)).expect("a wrapper");
            fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("it is ours");
        }
        let path = format!("{}:{}:/usr/bin:/bin:/usr/sbin:/sbin", wrappers.display(), lab.path("bin").display());
        Self { lab, calls, path }
    }

    fn undisturbed(&self) -> Undisturbed {
        let since = Instant::now();
        let (mut child, log) = self.start(&["run", "token-push", "--new"]);
        assert!(ended(&mut child).success(), "{}", read(&log));
        let took = since.elapsed();
        let run = self.show("latest");
        assert_eq!(run["status"], "succeeded");
        let process = run["sessions"][0]["process"].as_str().expect("the process of the session");
        let calls = self.calls_of(process);
        assert_eq!(sorted(&calls), sorted(&expected_calls(&run, |_| false)), "the wrappers see every call once");
        Undisturbed {
            statuses: statuses(&run),
            lines: lines(&log),
            calls: 2 * calls.len(),
            took,
            files: remains::files(&self.lab),
        }
    }

    /// Whether there was a run to be resumed.
    fn round(&self, undisturbed: &Undisturbed, victims: Victims, moment: Moment, guardian_first: bool) -> bool {
        let (newest, calls) = (self.newest(), lines(&self.calls));
        let (mut child, log) = self.start(&["run", "token-push", "--new"]);
        let guardian = pid_of(&child);
        self.wait_for(moment, &log, calls, undisturbed.took);
        let worker = worker_of(guardian);
        let doomed = match (victims, guardian_first) {
            (Victims::Worker, _) => vec![worker],
            (Victims::WorkerAndGuardian, true) => vec![Some(guardian), worker],
            (Victims::WorkerAndGuardian, false) => vec![worker, Some(guardian)],
        };
        for pid in doomed.into_iter().flatten() {
            // It may just have ended by itself.
            let _ = kill(pid, Signal::SIGKILL);
        }
        ended(&mut child);
        if victims == Victims::Worker {
            assert_eq!(remains::processes(&self.lab), NONE, "the guardian ends what the worker leaves");
            let passing = ["state/run/", "tmp/", "/dev/shm/"];
            let left = remains::files(&self.lab).into_iter().map(|file| file.display().to_string());
            let left = left.filter(|file| passing.iter().any(|place| file.starts_with(place)));
            assert_eq!(left.collect::<Vec<_>>(), NONE, "the guardian cleans up");
        }

        let found = self.newest();
        if found == newest {
            assert_eq!(lines(&self.calls), calls, "a run is recorded before its first child starts:\n{}", read(&log));
            println!("  it had not begun yet");
            return false;
        }
        let (run, status) = found.expect("there is a run");
        if status != "interrupted" {
            assert_eq!(status, "succeeded", "{}", read(&log));
            println!("  it was over already");
            return false;
        }
        let before = self.show(&run);
        let (mut resume, log) = self.start(&["runs", "resume", &run]);
        assert!(ended(&mut resume).success(), "{}", read(&log));

        let after = self.show(&run);
        assert_eq!(after["status"], "succeeded", "{}", read(&log));
        assert_eq!(statuses(&after), undisturbed.statuses);
        assert_eq!((&after["sessions"][0]["end"], &after["sessions"][1]["end"]), (&"lost".into(), &"finished".into()));
        let process = after["sessions"][1]["process"].as_str().expect("the process of the session");
        let called = self.calls_of(process);
        let wanted = expected_calls(&before, |target| target["status"] == "succeeded");
        assert_eq!(sorted(&called), sorted(&wanted), "what is done again, and what is not\n{before:#}");
        self.assert_history_is_kept(&before, &after);

        assert_eq!(remains::processes(&self.lab), NONE, "processes are left");
        let files = remains::files(&self.lab);
        let differences: Vec<_> = files.symmetric_difference(&undisturbed.files).collect();
        assert!(differences.is_empty(), "left, or missing: {differences:?}");
        remains::assert_tokens_are_whole(&self.lab);
        true
    }

    /// `mt` with the wrappers in its PATH, and its log.
    fn start(&self, arguments: &[&str]) -> (Child, PathBuf) {
        let log = self.lab.path("log/mt.log");
        let file = File::create(&log).expect("a log");
        let path = format!("PATH={}", self.path);
        let words: Vec<&str> = ["env", &path, "mt"].into_iter().chain(arguments.iter().copied()).collect();
        let mut command = self.lab.command(&words);
        command.env("MT_LOG", "managed_tokens=debug").stdout(Stdio::null()).stderr(file);
        (command.spawn().expect("lab/lab can be started"), log)
    }

    /// Returns when the moment has come, or the run is over. There were `calls` lines of the wrappers before.
    fn wait_for(&self, moment: Moment, log: &Path, calls: usize, whole: Duration) {
        let since = Instant::now();
        let over = |log: &Path| read(log).contains("session ended");
        let mut first = None;
        loop {
            let reached = match moment {
                Moment::Line(wanted) => lines(log) >= wanted,
                Moment::Call(wanted) => lines(&self.calls) >= calls + wanted,
                Moment::Time(share) => {
                    first = first.or((lines(log) > 0).then(Instant::now));
                    first.is_some_and(|first| first.elapsed() >= whole.mul_f64(share))
                }
            };
            if reached || over(log) {
                return;
            }
            assert!(since.elapsed() < HANGS, "{moment:?} does not come:\n{}", read(log));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Id and status of the newest run.
    fn newest(&self) -> Option<(String, String)> {
        let list = self.json(&["runs", "list", "--limit", "1"]);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        list["runs"].get(0).map(|run| (text(&run["id"]), text(&run["status"])))
    }

    fn show(&self, run: &str) -> Value {
        self.json(&["runs", "show", run])["run"].take()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let words: Vec<&str> =
            ["mt"].into_iter().chain(arguments.iter().copied()).chain(["--output", "json"]).collect();
        let output = self.lab.run(&words);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{words:?}: {error}\n{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// What this process has called, each call as it began.
    fn calls_of(&self, process: &str) -> Vec<Call> {
        let text = read(&self.calls);
        let starts = text.lines().filter_map(|line| line.strip_prefix(&format!("start {process} ")));
        starts.map(Call::of_line).collect()
    }

    /// Nothing on the nodes is from an earlier round; nor is what is kept, if `kept`.
    fn forget_tokens(&self, kept: bool) {
        let on_nodes = NODES.iter().flat_map(|node| {
            remains::files_on(&self.lab, node)
                .into_iter()
                .map(move |name| self.lab.path(format!("nodes/{node}/tmp/{name}")))
        });
        let kept = if kept { remains::kept_tokens(&self.lab) } else { Vec::new() };
        for path in on_nodes.chain(kept.into_iter().map(|name| self.lab.path("tokens").join(name))) {
            fs::remove_file(path).expect("it can be removed");
        }
    }

    /// Attempts are appended; what was known stays.
    fn assert_history_is_kept(&self, before: &Value, after: &Value) {
        for (was, is) in targets(before).iter().zip(targets(after)) {
            let (was, is) = (was.attempts(), is.attempts());
            let kept = was.iter().zip(&is).all(|(was, is)| was["started_at"] == is["started_at"]);
            assert!(was.len() <= is.len() && kept, "{was:#?} became {is:#?}");
        }
    }
}

const NONE: [String; 0] = [];

/// A program that writes down how it is called, and when it ends. What the storer calls is its own business.
fn wrap(lab: &Lab, program: &str, calls: &Path) -> String {
    let own = lab.path("bin").join(program);
    let real = if own.exists() { own } else { Path::new("/usr/bin").join(program) };
    assert!(real.exists(), "there is no {}", real.display());
    format!(
        r#"#!/bin/sh
# Like the program behind it, it knows CONDOR_VAULT_STORER_ID.
[ -z "$WITHIN_A_CALL" ] || exec {real} "$@"
printf 'start %s {program} %s %s\n' "$MT_PROCESS" "${{_condor_CREDD_HOST:--}}" "$*" >>{calls}
WITHIN_A_CALL=1 {real} "$@"
code=$?
printf 'end %s {program}\n' "$MT_PROCESS" >>{calls}
exit $code
"#,
        real = real.display(),
        calls = calls.display()
    )
}

/// A program and what it was called for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call(String);

impl Call {
    /// `PROGRAM CREDD ARGUMENTS..`
    fn of_line(line: &str) -> Self {
        let mut words = line.split(' ');
        let (program, credd) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let words: Vec<&str> = words.collect();
        let last = words.last().copied().unwrap_or_default();
        let after = |option: &str| {
            let at = words.iter().position(|word| *word == option);
            at.and_then(|at| words.get(at + 1)).copied().unwrap_or_default()
        };
        Self(match program {
            "kinit" => format!("kinit {}", last.split("pro/").next().unwrap_or_default()),
            "htgettoken" => format!("htgettoken {}", after("-i")),
            "condor_vault_storer" => format!("storer {} {credd}", last.trim_end_matches("_production")),
            "ping" => format!("ping {last}"),
            "rsync" => format!("rsync {}", last.split(':').next().unwrap_or_default().replace("pro@", " ")),
            other => panic!("{other} is not wrapped"),
        })
    }

    fn of_target(target: &Target) -> Option<Self> {
        let subject = target.machine.trim_end_matches("_production");
        match target.step.as_str() {
            "kinit" => Some(Self(format!("kinit {subject}"))),
            "get-vault-token" => Some(Self(format!("htgettoken {subject}"))),
            "store-in-credd" => Some(Self(format!("storer {subject} {}", target.name))),
            "ping" => Some(Self(format!("ping {}", target.name))),
            "push" => Some(Self(format!("rsync {subject} {}", target.name))),
            "notify" => None,
            other => panic!("there is no step {other} in the shipped workflow"),
        }
    }
}

/// The calls that a session must make, after one in which the targets that are `done` were done: one for every other
/// target; and for a ticket, which died with its process, if a later step needs it.
fn expected_calls(run: &Value, done: impl Fn(&Value) -> bool) -> Vec<Call> {
    let all: Vec<Target> = targets(run);
    let is_done = |target: &Target| target.value.as_ref().is_some_and(&done);
    let needs_ticket = |machine: &str| {
        let needing = ["get-vault-token", "store-in-credd", "push"];
        all.iter().any(|t| t.machine == machine && needing.contains(&t.step.as_str()) && !is_done(t))
    };
    let again = |target: &Target| match target.step.as_str() {
        "kinit" => !is_done(target) || needs_ticket(&target.machine),
        _ => !is_done(target),
    };
    all.iter().filter(|target| again(target)).filter_map(Call::of_target).collect()
}

/// A target of a machine; without a value, one that the run has not come to yet.
struct Target {
    machine: String,
    step: String,
    name: String,
    value: Option<Value>,
}

impl Target {
    fn attempts(&self) -> Vec<Value> {
        let attempts = self.value.as_ref().and_then(|value| value["attempts"].as_array());
        attempts.cloned().unwrap_or_default()
    }
}

/// Every target there is, known to the run or not: the laboratory has two credds and two nodes.
fn targets(run: &Value) -> Vec<Target> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut found = Vec::new();
    for machine in run["machines"].as_array().expect("machines") {
        for step in machine["steps"].as_array().expect("steps") {
            let known = step["targets"].as_array().expect("targets");
            let names: &[&str] = match step["name"].as_str().expect("a name") {
                "store-in-credd" => &["schedd1.lab.test", "schedd2.lab.test"],
                "ping" | "push" => &["node1.lab.test", "node2.lab.test"],
                _ => &["-"],
            };
            found.extend(names.iter().map(|name| Target {
                machine: text(&machine["subject"]),
                step: text(&step["name"]),
                name: (*name).to_owned(),
                value: known.iter().find(|target| target["name"] == *name).cloned(),
            }));
        }
    }
    found
}

fn sorted<T: Ord + Clone + fmt::Debug>(values: &[T]) -> Vec<T> {
    let mut values = values.to_vec();
    values.sort();
    values
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn lines(path: &Path) -> usize {
    read(path).lines().count()
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a pid"))
}

/// The first child of the guardian; the others are orphans that came to it. `None` when all is over.
fn worker_of(guardian: Pid) -> Option<Pid> {
    let children = read(Path::new(&format!("/proc/{guardian}/task/{guardian}/children")));
    let mut children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    children.find(|pid| read(Path::new(&format!("/proc/{pid}/comm"))).trim() == "mt").map(Pid::from_raw)
}

fn ended(child: &mut Child) -> ExitStatus {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return status;
        }
        if since.elapsed() > HANGS {
            let _ = child.kill();
            panic!("mt does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
