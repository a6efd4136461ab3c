//! One installation of `mt` with a past, to which every round goes back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use managed_tokens::crash_point::CrashPoint;
use managed_tokens::guardian::owner_is_dead;
use managed_tokens::notify::{OutboxEntry, OutboxStatus};
use managed_tokens::workflow::counters::Counter;
use managed_tokens::workflow::id::{ProcessId, RunId};
use managed_tokens::workflow::run::RunState;
use managed_tokens::workflow::session::{load, status_now};
use managed_tokens::workflow::status::RunStatus;
use managed_tokens::workflow::store::{Access, Shelf, StateDir, Store};
use serde_json::json;

use super::post::{Mail, Post};
use super::programs;

/// Nothing here takes so long: then something hangs, which is a failure.
const HANGS: Duration = Duration::from_secs(120);
/// Whom `mt` runs as when the test is root.
const NOBODY: u32 = 65534;
/// The nodes: directories that rsync writes to.
const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// What does not work in the rounds.
const FAULTS: [&str; 2] = ["rsync-node2.lab.test", "kinit-novapro"];

/// What there is before a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// An installation that has never run.
    New,
    /// One that has run twice.
    Past,
}

impl Before {
    fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Past => "past",
        }
    }
}

/// Where a process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crash {
    pub point: CrashPoint,
    /// When it is passed for this time, from 1.
    pub nth: usize,
    /// The guardian first.
    pub both: bool,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}{}", self.point.name(), self.nth, if self.both { ":both" } else { "" })
    }
}

/// How a process of `mt` ended.
#[derive(Clone, Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// The points it passed, in their order.
    pub passed: Vec<CrashPoint>,
    /// What it said.
    pub said: String,
}

impl Ended {
    /// Did the crash come?
    pub fn crashed(&self) -> bool {
        self.status.signal() == Some(9)
    }
}

/// What there is to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub statuses: BTreeSet<String>,
    pub counters: BTreeMap<String, String>,
    pub files: BTreeSet<String>,
}

/// A look into the store.
pub struct Look {
    /// The newest run, if it is not one of the past.
    pub run: Option<RunState>,
    pub status: Option<RunStatus>,
    pub counters: Vec<(String, Counter)>,
    pub outbox: Vec<OutboxEntry>,
}

pub struct Site {
    directory: tempfile::TempDir,
    post: Post,
    past: Option<RunId>,
}

impl Site {
    /// A site where `dune` cannot push to node1, which people know, and `mu2e` has failed on node2 once. From now on node1 is
    /// well again, node2 is not, and `nova` gets no ticket.
    ///
    /// `beside`: a site whose program it is to have, too.
    pub fn new(beside: Option<&Self>) -> Self {
        let place = std::env::var_os("MT_CRASH_PLACE").unwrap_or_else(|| "/tmp".into());
        let directory = tempfile::Builder::new().prefix("mt-crash.").tempdir_in(place).expect("a directory");
        let post = Post::open();
        let mut site = Self { directory, post, past: None };
        match beside {
            // Where it was built, the account that runs it may not come.
            None => drop(fs::copy(env!("CARGO_BIN_EXE_mt"), site.path("mt")).expect("it can be copied")),
            Some(other) => fs::hard_link(other.path("mt"), site.path("mt")).expect("they are on one disk"),
        }
        for name in ["live", "live/keytabs", "live/nodes", "live/faults", "live/tokens", "live/workflows", "live/log"] {
            fs::create_dir(site.path(name)).expect("a new directory");
        }
        for node in NODES {
            fs::create_dir(site.path(format!("live/nodes/{node}.lab.test"))).expect("a new directory");
        }
        programs::install(&site.path("live"));
        site.configure();
        give(site.directory.path());
        site.set_faults(&FAULTS);
        site.save(Before::New.name());
        for faults in [&["rsync-node1.lab.test"][..], &["rsync-node1.lab.test", "rsync-node2.lab.test"]] {
            site.set_faults(faults);
            let ended = site.mt(&["run", "token-push"], None);
            assert_eq!(ended.status.code(), Some(10), "{}", ended.said);
        }
        assert!(!site.post.collect().is_empty(), "people have been told of node1");
        site.set_faults(&FAULTS);
        site.past = site.look().run.map(|state| state.run.id);
        site.save(Before::Past.name());
        site
    }

    fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(below)
    }

    fn set_faults(&self, names: &[&str]) {
        let faults = self.path("live/faults");
        fs::remove_dir_all(&faults).expect("it is ours");
        fs::create_dir(&faults).expect("it is ours");
        for name in names {
            fs::write(faults.join(name), "").expect("it is ours");
        }
        give(&faults);
    }

    fn configure(&self) {
        let live = self.path("live");
        let below = |name: &str| live.join(name).to_str().expect("a plain path").to_owned();
        let service = |account: &str, uid: u32, nodes: &[&str]| {
            let nodes: Vec<String> = nodes.iter().map(|node| format!("{node}.lab.test")).collect();
            fs::write(live.join(format!("keytabs/{account}.keytab")), "").expect("it is ours");
            json!({
                "emails": [format!("{account}@lab.test")],
                "roles": { "production": { "account": account, "desiredUIDOverride": uid, "destinationNodes": nodes } }
            })
        };
        let config = json!({
            "keytabPath": below("keytabs"),
            "kerberosPrincipalPattern": "{{.Account}}/managedtokens/lab.test@LAB.TEST",
            // Nobody listens there: a token's expiry is never known, and nothing waits for it.
            "vaultServer": "127.0.0.1:1",
            "serviceCreddVaultTokenPathRoot": below("tokens"),
            "dbLocation": below("state/uid.db"),
            "errorCountToSendMessage": 2,
            "email": { "from": "mt@lab.test", "smtpHost": "127.0.0.1", "smtpPort": self.post.port },
            "notifications": { "admin_email": "admin@lab.test" },
            "logs": { "token-push": { "logfile": below("log/mt.log"), "debugfile": below("log/mt.debug.log") } },
            "experiments": {
                "dune": service("dunepro", 1234, &["node1", "node3"]),
                "mu2e": service("mu2epro", 1235, &["node2"]),
                "nova": service("novapro", 1236, &["node3"]),
            }
        });
        fs::write(live.join("managedTokens.json"), config.to_string()).expect("it is ours");
    }

    /// Keeps everything as it is now under this name.
    pub fn save(&self, name: &str) {
        copy(&self.path("live"), &self.path(name));
    }

    /// Makes everything as it was.
    pub fn restore(&self, name: &str) {
        fs::remove_dir_all(self.path("live")).expect("it is ours");
        copy(&self.path(name), &self.path("live"));
    }

    /// Goes back to before the round; mails that have arrived are forgotten.
    pub fn begin(&self, before: Before) {
        self.restore(before.name());
        let _ = fs::remove_file(self.path("live/log/issued"));
        self.post.collect();
    }

    /// What has arrived since the last look.
    pub fn mails(&self) -> Vec<Mail> {
        self.post.collect()
    }

    /// Runs `mt` to its end, which may be a crash. When this returns its guardian has ended, too.
    pub fn mt(&self, arguments: &[&str], crash: Option<&Crash>) -> Ended {
        let live = self.path("live");
        let (passed, said) = (live.join("log/passed"), live.join("log/said"));
        let _ = fs::remove_file(&passed);
        let log = fs::File::create(&said).expect("it is ours");
        let mut command = Command::new(self.path("mt"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", live.join("bin").display()))
            .env("HOME", &live)
            .env("MT_CONFIG", live.join("managedTokens.json"))
            .env("MT_STATE_DIR", live.join("state"))
            .env("MT_WORKFLOW_DIR", live.join("workflows"))
            // Reading the system's authorities takes longer than the rest.
            .env("SSL_CERT_FILE", "/dev/null")
            .env("MT_CRASH_LOG", &passed)
            .envs(crash.map(|crash| ("MT_CRASH_AT", crash.to_string())))
            .current_dir(&live)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        if nix::unistd::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut child = command.spawn().expect("mt starts");
        let since = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("it is our child") {
                break status;
            }
            if since.elapsed() > HANGS {
                let _ = child.kill();
                panic!("mt {arguments:?} {crash:?} does not end: {}", read(&said));
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let ended = Ended {
            status,
            passed: read(&passed).lines().filter_map(CrashPoint::of_name).collect(),
            said: read(&said),
        };
        self.wait_for_the_dead(&ended);
        ended
    }

    /// A worker that has killed its guardian and then itself may outlive it for a moment.
    fn wait_for_the_dead(&self, ended: &Ended) {
        let run = self.path("live/state/run");
        let since = Instant::now();
        loop {
            let names = names_in(&run);
            let owners = names.iter().filter_map(|name| name.strip_suffix(".lock")?.parse::<ProcessId>().ok());
            if owners.into_iter().all(|process| owner_is_dead(&run, process)) {
                return;
            }
            assert!(since.elapsed() < HANGS, "a worker does not end: {}", ended.said);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Looks into a copy of the store: looking must not change what is looked at, or whose it is.
    pub fn look(&self) -> Look {
        let (live, copied) = (self.path("live/state"), self.path("look"));
        let _ = fs::remove_dir_all(&copied);
        StateDir::create(&copied).expect("a state directory");
        let _ = fs::remove_dir_all(copied.join("store"));
        if live.join("store").exists() {
            run_cp(&live.join("store"), &copied.join("store"));
        }
        if live.join("store.json").exists() {
            fs::copy(live.join("store.json"), copied.join("store.json")).expect("it is ours");
        }
        own(&copied);
        let state = StateDir::existing(&copied).expect("the copy");
        let store = Store::open(&state, Access::ReadOnly).expect("a crash does not spoil the store");
        let past = self.past;
        let (run, history, counters, outbox) = store
            .read_blocking(move |view| {
                let newest = view.newest_runs(1).expect("runs can be read").into_iter().map(|run| run.id).next();
                let newest = newest.filter(|id| Some(*id) != past);
                let run = newest.and_then(|id| load(view, id).expect("records can be read"));
                let history = newest.map(|id| view.events(id).expect("events can be read")).unwrap_or_default();
                let counters = view.counters::<Counter>("").expect("counters can be read");
                let outbox = view.scan_prefix::<OutboxEntry>(Shelf::Outbox, "").expect("the outbox can be read");
                (run, history, counters, outbox.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>())
            })
            .expect("it can be read");
        store.close();
        if let Some(state) = &run {
            assert_eq!(
                RunState::fold(&history).expect("a legal history").as_ref(),
                Some(state),
                "status = fold(events)"
            );
        }
        let run_dir = self.path("live/state/run");
        let status = run.as_ref().map(|s| status_now(&s.run, &|process| owner_is_dead(&run_dir, process)));
        Look { run, status, counters, outbox }
    }

    /// What is to be compared, and everything that must be so whatever it is compared with.
    pub fn outcome(&self) -> Outcome {
        let look = self.look();
        let state = look.run.expect("there is a run");
        let unsent: Vec<_> = look.outbox.iter().filter(|entry| entry.status != OutboxStatus::Sent).collect();
        assert!(unsent.is_empty(), "messages are not sent: {unsent:#?}");
        let processes = self.processes();
        assert!(processes.is_empty(), "processes are left: {processes:#?}");
        self.assert_tokens_are_whole();
        let strays: Vec<_> = names_in(Path::new("/tmp"))
            .into_iter()
            .filter(|name| state.run.sessions.iter().any(|s| name.to_lowercase().contains(&s.by.process.to_string())))
            .collect();
        assert!(strays.is_empty(), "left in /tmp: {strays:?}");
        let counters = look.counters.into_iter().map(|(key, counter)| {
            let of_run = |run: Option<RunId>| run.map(|run| run == state.run.id);
            let words = format!(
                "value {} before {} by this run {} reported {:?} runs {} told {} recovered {:?}",
                counter.value,
                counter.before,
                counter.run == state.run.id,
                of_run(counter.reported_by),
                counter.failing_runs,
                counter.told,
                of_run(counter.recovered_by),
            );
            (key.replace('\0', " "), words)
        });
        Outcome { statuses: statuses(&state), counters: counters.collect(), files: self.files() }
    }

    /// Everything there is below the site but the store's own files and what is written down about runs.
    fn files(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let live = self.path("live");
        let mut open = vec![live.clone()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).expect("it can be listed").flatten() {
                let name = entry.path().strip_prefix(&live).expect("it is below").display().to_string();
                let is_directory = entry.file_type().expect("it is there").is_dir();
                let of_sled = name.starts_with("state/store/") && !name.ends_with(".generating");
                if is_directory && !of_sled {
                    open.push(entry.path());
                }
                if !of_sled && !name.starts_with("log/") {
                    found.insert(name);
                }
            }
        }
        found
    }

    /// What processes of `mt` keep for themselves, and the signs that they live.
    pub fn private_files(&self) -> BTreeSet<String> {
        names_in(&self.path("live/state/run"))
    }

    /// Every kept token is whole, and every node that takes one has, under both names, one that is no older than the run.
    fn assert_tokens_are_whole(&self) {
        let tokens = self.path("live/tokens");
        for name in names_in(&tokens).into_iter().filter(|name| !name.starts_with('.')) {
            let text = read(&tokens.join(&name));
            assert!(text.starts_with("hvs.") && text.ends_with(".whole\n"), "{name} is not whole: {text:?}");
        }
        let issued = read(&self.path("live/log/issued"));
        for node in ["node1", "node3"] {
            let directory = self.path(format!("live/nodes/{node}.lab.test"));
            let [short, long] = ["vt_u1234", "vt_u1234-dune_production"].map(|name| read(&directory.join(name)));
            assert_eq!(short, long, "the two names on {node}");
            assert!(issued.lines().any(|token| token == short.trim_end()), "{node} has {short:?}, of those: {issued}");
        }
    }

    /// The processes that belong to the site: whatever `mt` has started, and `mt` itself.
    pub fn processes(&self) -> Vec<String> {
        let mark = self.directory.path().as_os_str().as_encoded_bytes();
        let all = fs::read_dir("/proc").expect("/proc can be read").flatten().map(|entry| entry.path());
        all.filter(|process| {
            fs::read(process.join("environ")).is_ok_and(|text| text.windows(mark.len()).any(|window| window == mark))
        })
        .map(|process| format!("{} {}", process.display(), read(&process.join("cmdline")).replace('\0', " ")))
        .collect()
    }
}

impl Drop for Site {
    /// After a failure there may be children whose `mt` is gone.
    fn drop(&mut self) {
        for process in self.processes() {
            let pid = process.split([' ', '/']).nth(2).and_then(|pid| pid.parse().ok());
            if let Some(pid) = pid {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

/// The statuses of the run, its machines, steps and targets.
fn statuses(state: &RunState) -> BTreeSet<String> {
    let mut found = BTreeSet::from([format!("run {}", state.run.status)]);
    found.extend(state.machines.values().map(|machine| format!("{} {}", machine.subject, machine.status)));
    let machines = state.machines.values().map(|machine| (machine.subject.to_string(), &machine.steps));
    for (of, steps) in machines.chain([("run".to_owned(), &state.run.steps)]) {
        for step in steps {
            found.insert(format!("{of} {} {}", step.name, step.status));
            let targets = step.targets.iter();
            found.extend(targets.map(|target| format!("{of} {} {} {}", step.name, target.name, target.status)));
        }
    }
    found
}

/// Gives a directory with all that is in it to the account that runs `mt`.
fn give(path: &Path) {
    if nix::unistd::geteuid().is_root() {
        chown_all(path, NOBODY);
    }
}

/// Takes it back.
fn own(path: &Path) {
    if nix::unistd::geteuid().is_root() {
        chown_all(path, 0);
    }
}

fn chown_all(path: &Path, uid: u32) {
    chown(path, Some(uid), Some(uid)).expect("root may");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("it can be listed").flatten() {
            chown_all(&entry.path(), uid);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    run_cp(from, to);
}

/// With owners, modes and holes as they are.
fn run_cp(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg("--").arg(from).arg(to).status().expect("there is cp");
    assert!(status.success(), "cp {} {}: {status}", from.display(), to.display());
}

fn names_in(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
