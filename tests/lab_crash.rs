//! The crash points with real programs, services and tokens: a run ended at each of them and gone on with leaves every token
//! on every node whole.
//!
//! Every point once, at a time of chance; `MT_CRASH_SEED` replays them. With `MT_CRASH_TORTURE` every time that a run passes a
//! point. What exactly is told and counted is for `tests/crash_points`, which looks into the store.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use managed_tokens::crash_point::CrashPoint;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use support::lab::Lab;
use support::remains::{self, statuses};

/// Nothing here takes so long: then something hangs, which is a failure.
const HANGS: Duration = Duration::from_secs(120);
const NONE: [String; 0] = [];

#[test]
fn a_run_ended_at_any_crash_point_brings_every_token_to_every_node_in_the_end() {
    end_and_go_on(0);
}

/// The other half of the points, in a laboratory of its own beside the first.
#[test]
fn a_run_ended_at_any_other_crash_point_does_so_too() {
    end_and_go_on(1);
}

fn end_and_go_on(half: usize) {
    let Some(lab) = Lab::up() else { return };
    let site = Site { lab };
    site.configure();
    let seed = std::env::var("MT_CRASH_SEED").map_or_else(|_| rand::random(), |text| text.parse().expect("a number"));
    println!("MT_CRASH_SEED={seed} replays these rounds");
    let mut random = StdRng::seed_from_u64(seed);

    // The first run makes what stays: kept tokens, locks.
    site.run(&["run", "token-push"], None).exits(10);
    let passed = site.run(&["run", "token-push"], None).exits(10).passed;
    let wanted = CrashPoint::ALL.into_iter().filter(|p| !p.is_of_the_first_start() && !p.is_of_upkeep());
    let never: Vec<_> = wanted.filter(|point| !passed.contains_key(point)).collect();
    assert!(never.is_empty(), "points that a run never passes: {never:?}");
    let run = site.newest();
    let undisturbed = (statuses(&run), remains::files(&site.lab));

    let all = std::env::var_os("MT_CRASH_TORTURE").is_some();
    let since = Instant::now();
    let mut rounds = 0;
    for (point, times) in passed.into_iter().skip(half).step_by(2) {
        let nths = if all { (1..=times).collect() } else { vec![random.random_range(1..=times)] };
        for nth in nths {
            // Commits are grouped, so that one run has fewer than another: then an earlier one.
            let came = [nth, nth / 2, 1].into_iter().any(|nth| {
                let crash = format!("{}:{}{}", point.name(), nth.max(1), if random.random() { ":both" } else { "" });
                println!("{crash}");
                rounds += 1;
                site.round(point, &crash, &undisturbed)
            });
            assert!(came, "no run was ended at {}", point.name());
        }
    }
    println!("{rounds} rounds took {:.1?}", since.elapsed());
}

/// Statuses and files.
type Remains = (BTreeSet<String>, BTreeSet<PathBuf>);

struct Site {
    lab: Lab,
}

/// How a process of `mt` ended.
struct Ended {
    status: ExitStatus,
    passed: BTreeMap<CrashPoint, usize>,
    said: String,
}

impl Ended {
    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{}", self.said);
        self
    }
}

impl Site {
    /// One node refuses every login, of which people are told at once.
    fn configure(&self) {
        let path = self.lab.path("managedTokens.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("it is there")).expect("it is JSON");
        config["errorCountToSendMessage"] = 1.into();
        let nodes = &mut config["experiments"]["dune"]["roles"]["production"]["destinationNodes"];
        nodes.as_array_mut().expect("a list").push("node4.lab.test".into());
        fs::write(&path, config.to_string()).expect("it is ours");
    }

    /// Runs `mt` to its end, which may be a crash.
    fn run(&self, arguments: &[&str], crash: Option<&str>) -> Ended {
        let (passed, said) = (self.lab.path("home/passed"), self.lab.path("log/mt.log"));
        let _ = fs::remove_file(&passed);
        let log = fs::File::create(&said).expect("a log");
        let mut command = self.lab.command(&[&["mt"], arguments].concat());
        command.env("MT_CRASH_LOG", &passed).envs(crash.map(|crash| ("MT_CRASH_AT", crash)));
        let mut child = command.stdout(Stdio::null()).stderr(log).spawn().expect("lab/lab can be started");
        let since = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("it is our child") {
                break status;
            }
            if since.elapsed() > HANGS {
                let _ = child.kill();
                panic!("mt {arguments:?} {crash:?} does not end");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        // A worker that has killed its guardian and then itself may outlive it for a moment.
        while self.acting().next().is_some() {
            assert!(since.elapsed() < HANGS, "a worker does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let mut times = BTreeMap::new();
        for point in text(&passed).lines().filter_map(CrashPoint::of_name) {
            *times.entry(point).or_default() += 1;
        }
        Ended { status, passed: times, said: text(&said) }
    }

    /// What is left of `mt` itself.
    fn acting(&self) -> impl Iterator<Item = String> {
        let of_mt = |process: &String| matches!(process.split(' ').nth(1), Some("mt" | "mt-guardian"));
        remains::processes(&self.lab).into_iter().filter(of_mt)
    }

    /// Whether the crash came.
    fn round(&self, point: CrashPoint, crash: &str, undisturbed: &Remains) -> bool {
        self.forget_what_is_on_the_nodes();
        let (before, counted) = (self.newest(), self.failing_runs());
        let (mails, posts) = (self.mails(), self.lab.slack().len());
        let crashed = self.run(&["run", "token-push"], Some(crash));
        let came = crashed.status.signal() == Some(9);
        if came {
            let run = self.newest();
            let id = run["id"].as_str().expect("an id");
            match run["status"].as_str() {
                _ if run["id"] == before["id"] => self.run(&["run", "token-push"], None).exits(10),
                Some("interrupted") => self.run(&["run", "token-push"], None).exits(10),
                // It was over; another session of it tells and counts nothing more.
                Some("partial") => self.run(&["runs", "resume", id], None).exits(10),
                other => panic!("{crash}: the run is {other:?}"),
            };
        } else {
            crashed.exits(10);
        }
        let run = self.newest();
        assert_ne!(run["id"], before["id"], "{crash}: there is a run");
        assert_eq!(statuses(&run), undisturbed.0, "{crash}");
        assert_eq!(self.failing_runs(), counted + 1, "{crash}: one run is one error");
        assert_eq!(remains::processes(&self.lab), NONE, "{crash}: processes are left");
        let files = remains::files(&self.lab);
        let differences: Vec<_> = files.symmetric_difference(&undisturbed.1).collect();
        assert!(differences.is_empty(), "{crash}: left, or missing: {differences:?}");
        remains::assert_tokens_are_whole(&self.lab);

        // Between a channel's yes and its mark a crash makes a repeat, and messages go out side by side.
        let may_repeat = match point {
            CrashPoint::OutboxSendBefore
            | CrashPoint::OutboxSendAfter
            | CrashPoint::StoreCommitBefore
            | CrashPoint::StoreCommitAfter => came,
            CrashPoint::StoreMadeBefore
            | CrashPoint::StoreMadeAfter
            | CrashPoint::StoreAsideAfter
            | CrashPoint::StoreCopied
            | CrashPoint::StoreExchangeBefore
            | CrashPoint::StoreExchangeAfter
            | CrashPoint::SidecarRenameBefore
            | CrashPoint::SidecarRenameAfter
            | CrashPoint::ChildStartBefore
            | CrashPoint::ChildStartAfter
            | CrashPoint::ChildEndBefore
            | CrashPoint::ChildEndAfter
            | CrashPoint::TokenRenameBefore
            | CrashPoint::TokenRenameAfter
            | CrashPoint::SweepBefore
            | CrashPoint::SweepAfter
            | CrashPoint::GuardianBefore
            | CrashPoint::GuardianEnded
            | CrashPoint::GuardianAfter => false,
        };
        let told = |times: usize| times == 1 || may_repeat && times == 2;
        for (to, times) in self.mails() {
            let times = times - mails.get(&to).copied().unwrap_or(0);
            assert!(told(times), "{crash}: {times} mails to {to}");
        }
        assert!(told(self.lab.slack().len() - posts), "{crash}: {} posts", self.lab.slack().len() - posts);
        came
    }

    /// So that what is there afterwards was brought in this round.
    fn forget_what_is_on_the_nodes(&self) {
        for node in remains::NODES {
            for name in remains::files_on(&self.lab, node) {
                fs::remove_file(self.lab.path(format!("nodes/{node}/tmp/{name}"))).expect("it can be removed");
            }
        }
    }

    fn newest(&self) -> Value {
        self.json(&["runs", "show", "latest"])["run"].take()
    }

    /// The errors in a row of the node that refuses.
    fn failing_runs(&self) -> u64 {
        let list = self.json(&["counters", "list"]);
        let rows = list["counters"].as_array().expect("a list");
        let failing: Vec<_> = rows.iter().filter(|row| row["failing_runs"] != 0).collect();
        assert_eq!(failing.len(), 1, "one node refuses: {list}");
        assert_eq!((&failing[0]["node"], &failing[0]["value"]), (&"node4.lab.test".into(), &0.into()), "it is told");
        failing[0]["failing_runs"].as_u64().expect("a number")
    }

    /// How many mails each has got.
    fn mails(&self) -> BTreeMap<String, usize> {
        let mut mails = BTreeMap::new();
        for mail in self.lab.mails() {
            *mails.entry(mail.to.join(" ")).or_default() += 1;
        }
        mails
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.lab.run(&[&["mt"], arguments, &["--output", "json"]].concat());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{}", String::from_utf8_lossy(&output.stderr)))
    }
}
