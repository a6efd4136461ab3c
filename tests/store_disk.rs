//! The disk under the store: full at every call, and cut off like a disk that loses its power.
//!
//! Needs root, mount namespaces and loop devices; where they are not to be had, each test says that it was skipped.
//! `MT_TORTURE=1` does more rounds: `make torture-store`.

#[path = "store_support/past.rs"]
mod past;
mod store_support;

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use managed_tokens::workflow::id::RunId;
use managed_tokens::workflow::store::{
    self, Access, From, ImportError, ImportOrder, Options, Retention, Shelf, StateDir, Store, StoreError,
};
use store_support::id;

/// What a copy of this program is to do, inside a mount namespace of its own.
const PART: &str = "MT_STORE_DISK_PART";

/// Nothing here takes so long: it ends a child that hangs.
const LIMIT: &str = "300";

/// Said in any case: what a test that succeeds prints is kept from people.
fn say(what: &str) {
    writeln!(io::stderr(), "{what}").expect("stderr is there");
}

fn rounds(few: u64, many: u64) -> u64 {
    if std::env::var_os("MT_TORTURE").is_some() { many } else { few }
}

/// `sh -c SCRIPT` in a mount namespace of its own. `None`: not to be had here.
fn in_own_namespace(script: &str, variables: &[(&str, &str)]) -> Option<Command> {
    let probe = Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status();
    if !nix::unistd::geteuid().is_root() || !probe.is_ok_and(|status| status.success()) {
        say("SKIPPED: tests/store_disk mounts file systems, which needs root and mount namespaces");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "timeout", "-k", "5", LIMIT, "sh", "-euc", script]);
    command.env("ME", std::env::current_exe().expect("this program"));
    command.envs(variables.iter().copied()).stdin(Stdio::null());
    Some(command)
}

/// What the copy runs: see [`in_own_namespace`].
const COPY: &str = "\"$ME\" --exact the_part_of_a_copy_of_this_program --ignored --nocapture --test-threads=1";

#[test]
#[ignore = "the other tests start it"]
fn the_part_of_a_copy_of_this_program() {
    let directory = PathBuf::from(std::env::var_os("DIR").expect("where"));
    match std::env::var(PART).expect("which").as_str() {
        "full" => full(&directory),
        "room" => room(&directory),
        "call" => call(&directory),
        "probe" => match shut_down(&directory) {
            Ok(()) => println!("it was cut off"),
            Err(error) => println!("refused: {error}"),
        },
        "power" => power(&directory),
        "killed" => killed(&directory),
        "opened" => opened(&directory),
        "look" => look(&directory),
        other => panic!("{other}"),
    }
}

// The disk is full.

fn n_th(n: u64) -> RunId {
    id(1_700_000_000_000 + n, u128::from(n))
}

/// A call of the store's, by name.
type Call = (&'static str, fn(&StateDir, &Options) -> Result<(), StoreError>);

fn unwrapped(error: ImportError) -> StoreError {
    match error {
        ImportError::Store(error) => error,
        other => panic!("{other}"),
    }
}

const CALLS: &[Call] = &[
    ("open to read", |state, options| Store::open_with(state, Access::ReadOnly, options.clone()).map(Store::close)),
    ("open to write", |state, options| Store::open_with(state, Access::ReadWrite, options.clone()).map(Store::close)),
    ("write", |state, options| {
        let store = Store::open_with(state, Access::ReadWrite, options.clone())?;
        let done = (0..40).try_for_each(|n| {
            store.write_blocking(move |tx| tx.put(Shelf::Metrics, &format!("k{n}"), &"y".repeat(30_000)))?;
            println!("ack k{n} 30000");
            Ok(())
        });
        // What can be read before can be read after.
        let read = store.read_blocking(|view| view.newest_runs(3)).and_then(|runs| runs);
        store.close();
        done.and(read.map(|_| ()))
    }),
    ("write what needs a file of its own", |state, options| {
        let store = Store::open_with(state, Access::ReadWrite, options.clone())?;
        let done = store.write_blocking(|tx| tx.put(Shelf::Metrics, "big", &"z".repeat(900_000)));
        if done.is_ok() {
            println!("ack big 900000");
        }
        store.close();
        done
    }),
    ("prune", |state, options| {
        let store = Store::open_with(state, Access::ReadWrite, options.clone())?;
        let all = Retention { keep: Duration::ZERO, min_runs: 20 };
        let done = store.prune(all, false, |_| false).map(|_| ());
        store.close();
        done
    }),
    ("verify", |state, options| {
        store::verify(state, options).map(|found| {
            assert_eq!((found.damaged_runs.len(), found.trouble.len()), (0, 0), "{found:?}");
            assert!(found.whole_runs >= 20, "{found:?}");
        })
    }),
    ("export", |state, options| match store::export(state, options, || Ok(io::sink())) {
        Ok((exported, _)) => {
            assert!(exported.runs >= 20 && exported.missing.is_empty(), "{exported:?}");
            Ok(())
        }
        Err(store::ExportError::Store(error)) => Err(error),
        Err(store::ExportError::Write(error)) => panic!("{error}"),
    }),
    ("compact", |state, options| store::compact(state, options).map(|_| ())),
    ("import", |state, options| {
        let order = ImportOrder { from: From::Empty, uids: BTreeMap::new(), replace: false };
        match store::import(state, &order, options) {
            Err(ImportError::InUse { .. }) => Ok(()),
            Ok(done) => panic!("a whole store was replaced: {done:?}"),
            Err(error) => Err(unwrapped(error)),
        }
    }),
    ("import in place of a whole store", |state, options| {
        let path = state.path().with_file_name("export");
        let from = From::File { path, partial: false };
        let order = ImportOrder { from, uids: BTreeMap::new(), replace: true };
        store::import(state, &order, options).map(|_| ()).map_err(unwrapped)
    }),
];

/// Each call on a disk with less and less room. Whatever happens, it is said, and nothing is lost.
fn full(directory: &Path) {
    let make = |options: &Options| {
        let state = StateDir::create(directory.join("state")).expect("a state directory");
        let store = Store::open_with(&state, Access::ReadWrite, options.clone()).expect("there is room");
        past::fill(&store, 0..40, 5, n_th);
        // One record lies in a file of its own.
        store.write_blocking(|tx| tx.put(Shelf::Metrics, "a file", &"x".repeat(400_000))).expect("there is room");
        store.export(&mut File::create(directory.join("export")).expect("there is room")).expect("there is room");
        store.close();
        state
    };
    let (mut refused, mut done, mut acknowledged) = (0, 0, 0);
    let options = Options { min_free: 0, ..Options::default() };
    for min_free in [store::MIN_FREE, 0] {
        for (name, _) in CALLS {
            for kib in [0, 4, 60, 500, 2_000] {
                let state = make(&options);
                leave(directory, kib);
                // In a process of its own: sled may never end after such an error, and its process keeps the store then.
                let mut copy = Command::new(std::env::current_exe().expect("this program"));
                copy.args(["--exact", "the_part_of_a_copy_of_this_program", "--ignored", "--nocapture"]);
                copy.env(PART, "call").env("CALL", name).env("MIN_FREE", min_free.to_string());
                let output = copy.output().expect("it starts");
                let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                let what = format!("{name} with {kib} KiB left, {min_free} wanted: {}\n{out}\n{err}", output.status);
                match (out.contains("it was done"), out.contains("it was refused")) {
                    (true, false) => done += 1,
                    (false, true) => refused += 1,
                    (true, true) | (false, false) => panic!("{what}"),
                }
                fs::remove_file(directory.join("filler")).expect("it is ours");
                let found = store::verify(&state, &options).unwrap_or_else(|error| panic!("{error}: {what}"));
                assert!(found.is_whole() && found.whole_runs >= 20, "{found:?}: {what}");
                for (key, size) in lines(&output.stdout, "ack") {
                    let kept = past_write(&state, &options, &key);
                    assert_eq!(kept.map(|text| text.len()), Some(size), "{key} was acknowledged: {what}");
                    acknowledged += 1;
                }
                fs::remove_dir_all(state.path()).expect("it is ours");
            }
        }
    }
    println!("full: {refused} calls were refused, {done} done");
    assert!(refused > 30 && done > 20, "{refused} {done}: the table does not try what it should");
    assert!(acknowledged > 10, "{acknowledged} writes");
}

fn past_write(state: &StateDir, options: &Options, key: &str) -> Option<String> {
    let store = Store::open_with(state, Access::ReadOnly, options.clone()).expect("there is room");
    let key = key.to_owned();
    let found = store.read_blocking(move |view| view.get::<String>(Shelf::Metrics, &key)).expect("it is open");
    store.close();
    found.expect("it can be read")
}

/// A store that looks damaged is copied to be tried. What a killed process has left of that takes the room for it.
fn room(directory: &Path) {
    let state = StateDir::create(directory.join("state")).expect("a state directory");
    let options = Options { min_free: 0, ..Options::default() };
    let store = Store::open_with(&state, Access::ReadWrite, options.clone()).expect("there is room");
    past::fill(&store, 0..20, 5, n_th);
    store.close();
    for entry in fs::read_dir(state.store()).expect("it is there").flatten() {
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            fs::remove_file(entry.path()).expect("it is ours");
        }
    }
    let left = state.path().join("store.copy");
    fs::create_dir(&left).expect("it is not there");
    leave(&left, 100);
    Store::open_with(&state, Access::ReadOnly, options).expect("it is whole").close();
    assert!(!left.exists(), "the copy was left");
    println!("there was room");
}

#[test]
fn a_copy_that_a_killed_process_has_left_does_not_withhold_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size=12m tmpfs \"$DIR\"; {COPY}");
    let dir = directory.path().to_str().unwrap();
    let Some(mut command) = in_own_namespace(&script, &[("DIR", dir), (PART, "room")]) else { return };
    let output = command.output().expect("unshare can be started");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("there was room"), "{}\n{out}\n{err}", output.status);
}

/// One of the calls.
fn call(directory: &Path) {
    let state = StateDir::existing(directory.join("state")).expect("the state directory is there");
    let wanted = std::env::var("CALL").expect("which");
    let (_, call) = CALLS.iter().find(|(name, _)| *name == wanted).expect("it is in the table");
    let min_free = std::env::var("MIN_FREE").expect("how much").parse().expect("a number");
    match call(&state, &Options { min_free, ..Options::default() }) {
        Ok(()) => println!("it was done"),
        Err(StoreError::NoSpace { .. }) => println!("it was refused"),
        Err(other) => panic!("{wanted}: {other}"),
    }
}

/// Fills the disk but for so many KiB.
fn leave(directory: &Path, kib: u64) {
    let stat = nix::sys::statvfs::statvfs(directory).expect("a disk");
    let free = stat.blocks_available() * stat.fragment_size();
    let mut left = free.saturating_sub(kib << 10);
    let mut filler = File::create(directory.join("filler")).expect("an empty file");
    let zeros = vec![0; 1 << 20];
    while left > 0 {
        let part = left.min(zeros.len() as u64) as usize;
        match filler.write(&zeros[..part]) {
            Ok(written) => left -= written as u64,
            Err(e) if e.kind() == io::ErrorKind::StorageFull => break,
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn with_a_full_disk_at_any_call_of_the_store_it_is_said_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size=12m tmpfs \"$DIR\"; {COPY}");
    let dir = directory.path().to_str().unwrap();
    let Some(mut command) = in_own_namespace(&script, &[("DIR", dir), (PART, "full")]) else { return };
    let output = command.output().expect("unshare can be started");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("calls were refused"), "{}\n{out}\n{err}", output.status);
    say(out.lines().find(|line| line.contains("calls were refused")).unwrap_or_default());
}

// The power fails.

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: what has not reached the disk never will.
fn shut_down(mounted: &Path) -> io::Result<()> {
    let disk = File::open(mounted)?;
    let how: u32 = 2;
    // SAFETY: the request reads one u32 at the address, which lives until the call returns.
    let done = unsafe { libc::ioctl(disk.as_raw_fd(), 0x8004_587d, &raw const how) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn cut_off(mounted: &Path) {
    shut_down(mounted).unwrap_or_else(|error| panic!("the file system cannot be cut off: {error}"));
}

/// Says each write when it is durable, until the disk is gone; ends without closing anything.
fn power(directory: &Path) {
    let after: usize = std::env::var("AFTER").expect("when").parse().expect("a number");
    let compacting = std::env::var_os("COMPACT").is_some();
    let state = StateDir::create(directory.join("state")).expect("a state directory");
    let store = Store::open(&state, Access::ReadWrite).expect("there is room");
    let from: u64 = std::env::var("FROM").expect("a number").parse().expect("a number");
    let (said, acknowledged) = mpsc::channel();
    let over = Arc::new(AtomicBool::new(false));
    for writer in 0..4_u64 {
        let (store, said, over) = (store.clone(), said.clone(), Arc::clone(&over));
        std::thread::spawn(move || {
            for n in from.. {
                let key = format!("w{writer}/{n}");
                let (text, size) = (key.clone(), if n % 50 == 7 { 150_000 } else { (n as usize * 37) % 4_000 });
                let written = store.write_blocking(move |tx| tx.put(Shelf::Metrics, &text, &"v".repeat(size)));
                if written.is_err() || over.load(Ordering::SeqCst) || said.send((key, size)).is_err() {
                    return;
                }
            }
        });
    }
    if compacting {
        let (state, over) = (state.clone(), Arc::clone(&over));
        std::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                // The disk goes away in the middle of it.
                let _ = store::compact(&state, &Options::default());
            }
        });
    }
    let mut out = io::stdout().lock();
    for (n, (key, size)) in acknowledged.iter().enumerate() {
        writeln!(out, "ack {key} {size}").expect("the parent listens");
        if n == after {
            over.store(true, Ordering::SeqCst);
            cut_off(directory);
            break;
        }
    }
    let another = store.write_blocking(|tx| tx.put(Shelf::Metrics, "another", &1));
    assert!(another.is_err(), "a write was acknowledged by a disk that is gone");
    store.close();
    Store::open(&state, Access::ReadWrite).expect_err("the disk is gone");
    // What was acknowledged before the disk was gone, and did not come to be said.
    while let Ok((key, size)) = acknowledged.try_recv() {
        writeln!(out, "ack {key} {size}").expect("the parent listens");
    }
    out.flush().expect("the parent listens");
    // Neither the store nor its threads are to end in good order: a machine without power does not.
    // SAFETY: it ends the process and touches nothing of it.
    unsafe { libc::_exit(0) }
}

/// How many files are synced until the process is killed; 0: it is not.
static SYNCS_LEFT: AtomicU64 = AtomicU64::new(0);

/// The linker takes it in the place of the C library's.
#[unsafe(no_mangle)]
extern "C" fn fdatasync(file: c_int) -> c_int {
    let left = SYNCS_LEFT.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    if left == Ok(1) {
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).expect("it is our own process");
        // The signal is for the process; this thread must not run on for a moment.
        loop {
            std::thread::park();
        }
    }
    // SAFETY: a number is all that the system takes.
    unsafe { libc::syscall(libc::SYS_fdatasync, file) as c_int }
}

/// Ends in the middle of a commit with a big page, when it is about to sync the page, or the log that points to it.
fn killed(directory: &Path) {
    let state = StateDir::create(directory.join("state")).expect("a state directory");
    let store = Store::open(&state, Access::ReadWrite).expect("there is room");
    let from: u64 = std::env::var("FROM").expect("a number").parse().expect("a number");
    SYNCS_LEFT.store(std::env::var("AT").expect("when").parse().expect("a number"), Ordering::SeqCst);
    for n in from.. {
        let (key, size) = (format!("w0/{n}"), 150_000 + n as usize % 1000);
        let text = key.clone();
        store.write_blocking(move |tx| tx.put(Shelf::Metrics, &text, &"v".repeat(size))).expect("there is room");
        println!("\nack {key} {size}");
    }
}

/// Only looks, and so makes a snapshot of what the killed one has left.
fn opened(directory: &Path) {
    let state = StateDir::existing(directory.join("state")).expect("the state directory is there");
    let store = Store::open(&state, Access::ReadOnly).expect("it opens");
    cut_off(directory);
    println!("opened");
    drop(store);
    // SAFETY: it ends the process and touches nothing of it.
    unsafe { libc::_exit(0) }
}

/// Says everything that is there.
fn look(directory: &Path) {
    let state = StateDir::existing(directory.join("state")).expect("the state directory is there");
    let found = store::verify(&state, &Options::default()).expect("it can be looked at");
    assert!(found.is_whole(), "{found:?}");
    let store = Store::open(&state, Access::ReadWrite).expect("it opens");
    let all = store.read_blocking(|view| view.scan_prefix::<String>(Shelf::Metrics, "w")).expect("open");
    let mut out = io::stdout().lock();
    for (key, value) in all.expect("readable") {
        writeln!(out, "found {key} {}", value.len()).expect("the parent listens");
    }
    store.write_blocking(|tx| tx.put(Shelf::Metrics, "after", &1)).expect("it takes writes");
    store.close();
    writeln!(out, "looked").expect("the parent listens");
}

fn lines(output: &[u8], of: &str) -> BTreeMap<String, usize> {
    let lines = BufReader::new(output).lines().map(|line| line.expect("text"));
    let words = lines.filter_map(|line| {
        let mut words = line.split(' ').map(str::to_owned);
        // The harness writes the test's name in front of the first line.
        words.by_ref().find(|word| word.trim_start().ends_with(of))?;
        Some((words.next()?, words.next()?.parse().ok()?))
    });
    words.collect()
}

/// An ext4 in a file. `None`: not to be had here.
struct Disk {
    directory: tempfile::TempDir,
    image: PathBuf,
    mounted: PathBuf,
}

impl Disk {
    fn of(bytes: u64) -> Option<Self> {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (image, mounted) = (directory.path().join("disk"), directory.path().join("mounted"));
        OpenOptions::new().write(true).create_new(true).open(&image).unwrap().set_len(bytes).unwrap();
        fs::create_dir(&mounted).unwrap();
        let disk = Self { directory, image, mounted };
        let script = format!("mkfs.ext4 -q \"$IMAGE\" && mount -o loop \"$IMAGE\" \"$DIR\" && {COPY}");
        let probe = disk.in_namespace(&script, &[(PART, "probe")])?;
        if !String::from_utf8_lossy(&probe.stdout).contains("it was cut off") {
            let (out, err) = (String::from_utf8_lossy(&probe.stdout), String::from_utf8_lossy(&probe.stderr));
            say(&format!("SKIPPED: no ext4 in a file can be mounted and cut off: {out} {err}"));
            return None;
        }
        Some(disk)
    }

    fn in_namespace(&self, script: &str, variables: &[(&str, &str)]) -> Option<Output> {
        let (image, dir) = (self.image.to_str().unwrap(), self.mounted.to_str().unwrap());
        let mut command = in_own_namespace(script, &[("IMAGE", image), ("DIR", dir)])?;
        assert!(self.directory.path().exists());
        Some(command.envs(variables.iter().copied()).output().expect("unshare can be started"))
    }

    /// Mounts it for a part of a copy of this program.
    fn part(&self, variables: &[(&str, &str)]) -> Output {
        let script = format!("mount -o loop \"$IMAGE\" \"$DIR\"; {COPY}; umount -l \"$DIR\"");
        self.in_namespace(&script, variables).expect("it was to be had")
    }

    /// Every write that is known to be acknowledged is there, and the store is whole.
    fn has(&self, known: &BTreeMap<String, usize>, what: &str) {
        let output = self.part(&[(PART, "look")]);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out.contains("looked"), "{what}: {}\n{out}\n{err}", output.status);
        let found = lines(&output.stdout, "found");
        let lost: Vec<&String> =
            known.iter().filter(|(key, size)| found.get(*key) != Some(size)).map(|(key, _)| key).collect();
        assert!(lost.is_empty(), "{what}: acknowledged and lost: {lost:?}");
    }
}

#[test]
fn what_was_acknowledged_before_the_power_failed_is_there_afterwards() {
    let rounds = rounds(4, 100);
    // It takes as much of the disk below as is written. Looking at the store may want room for a copy of it.
    let Some(disk) = Disk::of((192 + 8 * rounds) << 20) else { return };
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..rounds {
        let compacting = round % 3 == 2;
        // Writers wait for each compaction, which takes many seconds when the store has grown.
        let after = if compacting { 12 + round % 12 } else { 17 + round * 61 % 400 };
        let (after, from) = (after.to_string(), (round * 100_000).to_string());
        let mut variables = vec![(PART, "power"), ("AFTER", &after), ("FROM", &from)];
        if compacting {
            variables.push(("COMPACT", "1"));
        }
        let output = disk.part(&variables);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "round {round}: {}\n{out}\n{err}", output.status);
        let acknowledged = lines(&output.stdout, "ack");
        assert!(acknowledged.len() > 10, "round {round}: {out}\n{err}");
        known.extend(acknowledged);
        disk.has(&known, &format!("round {round}"));
    }
    say(&format!("{} acknowledged writes in {rounds} rounds of power failures, none lost", known.len()));
}

/// What it has written and not synced is there for whoever opens the store next, who relies on it. Two syncs stand for that: before
/// sled opens a store, and when sled names a snapshot. With one of them taken out the other still does it; with both, this fails.
#[test]
fn what_a_killed_process_has_left_is_durable_for_whoever_opens_the_store_next() {
    let rounds = rounds(4, 50);
    let Some(disk) = Disk::of((192 + 8 * rounds) << 20) else { return };
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..rounds {
        let (from, at) = ((round * 100_000).to_string(), (11 + round).to_string());
        // Killed, and the power fails when the next has opened the store: the disk stays mounted in between.
        let script = format!(
            "mount -o loop \"$IMAGE\" \"$DIR\"; {COPY} || [ $? = 137 ]; {PART}=opened {COPY}; umount -l \"$DIR\""
        );
        let output = disk.in_namespace(&script, &[(PART, "killed"), ("FROM", &from), ("AT", &at)]).unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out.contains("opened"), "round {round}: {}\n{out}\n{err}", output.status);
        let acknowledged = lines(&output.stdout, "ack");
        assert!(acknowledged.len() > 2, "round {round}: {out}\n{err}");
        known.extend(acknowledged);
        disk.has(&known, &format!("round {round}"));
    }
    say(&format!("{} acknowledged writes in {rounds} rounds of a kill and a power failure, none lost", known.len()));
}
