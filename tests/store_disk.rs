//! The disk under the store: full at every call, and cut off like a disk that loses its power.
//!
//! Needs root, mount namespaces and loop devices; where they are not to be had, each test says that it was skipped.
//! `MT_TORTURE=1` does more rounds: `make torture-store`.

#[path = "store_support/past.rs"]
mod past;
mod store_support;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
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

fn rounds(few: u64, many: u64) -> u64 {
    if std::env::var_os("MT_TORTURE").is_some() { many } else { few }
}

/// `sh -c SCRIPT` in a mount namespace of its own. `None`: not to be had here.
fn in_own_namespace(script: &str, variables: &[(&str, &str)]) -> Option<Command> {
    let probe = Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status();
    if !nix::unistd::geteuid().is_root() || !probe.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: this test mounts file systems, which needs root and mount namespaces");
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
        "call" => call(&directory),
        "power" => power(&directory),
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
            store.write_blocking(move |tx| tx.put(Shelf::Metrics, &format!("k{n}"), &"y".repeat(30_000)))
        });
        // What can be read before can be read after.
        let read = store.read_blocking(|view| view.newest_runs(3)).and_then(|runs| runs);
        store.close();
        done.and(read.map(|_| ()))
    }),
    ("write what needs a file of its own", |state, options| {
        let store = Store::open_with(state, Access::ReadWrite, options.clone())?;
        let done = store.write_blocking(|tx| tx.put(Shelf::Metrics, "big", &"z".repeat(900_000)));
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
    let (mut refused, mut done) = (0, 0);
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
                fs::remove_dir_all(state.path()).expect("it is ours");
            }
        }
    }
    println!("full: {refused} calls were refused, {done} done");
    assert!(refused > 30 && done > 20, "{refused} {done}: the table does not try what it should");
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
    eprintln!("{}", out.lines().find(|line| line.contains("calls were refused")).unwrap_or_default());
}

// The power fails.

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: what has not reached the disk never will.
fn cut_off(mounted: &Path) {
    let disk = File::open(mounted).expect("it is mounted");
    let how: u32 = 2;
    // SAFETY: the request reads one u32 at the address, which lives until the call returns.
    let done = unsafe { libc::ioctl(disk.as_raw_fd(), 0x8004_587d, &raw const how) };
    assert_eq!(done, 0, "the file system cannot be cut off: {}", io::Error::last_os_error());
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
    // What was acknowledged before the disk was gone, and did not come to be said.
    while let Ok((key, size)) = acknowledged.try_recv() {
        writeln!(out, "ack {key} {size}").expect("the parent listens");
    }
    out.flush().expect("the parent listens");
    // Neither the store nor its threads are to end in good order: a machine without power does not.
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

#[test]
fn what_was_acknowledged_before_the_power_failed_is_there_afterwards() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let image = directory.path().join("disk");
    let rounds = rounds(4, 100);
    // It takes as much of the disk below as is written. Looking at the store may want room for a copy of it.
    let size = (192 + 8 * rounds) << 20;
    OpenOptions::new().write(true).create_new(true).open(&image).unwrap().set_len(size).unwrap();
    let mounted = directory.path().join("mounted");
    fs::create_dir(&mounted).unwrap();
    let (image, dir) = (image.to_str().unwrap(), mounted.to_str().unwrap());
    let Some(mut probe) = in_own_namespace(
        "mkfs.ext4 -q \"$IMAGE\" && mount -o loop \"$IMAGE\" \"$DIR\"",
        &[("IMAGE", image), ("DIR", dir)],
    ) else {
        return;
    };
    let probe = probe.output().expect("unshare can be started");
    if !probe.status.success() {
        eprintln!("SKIPPED: no ext4 in a file can be mounted: {}", String::from_utf8_lossy(&probe.stderr).trim());
        return;
    }
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..rounds {
        let compacting = round % 3 == 2;
        // Writers wait for each compaction, which takes many seconds when the store has grown.
        let after = if compacting { 12 + round % 12 } else { 17 + round * 61 % 400 };
        let (after, from) = (after.to_string(), (round * 100_000).to_string());
        let mut variables = vec![("IMAGE", image), ("DIR", dir), (PART, "power"), ("AFTER", &after), ("FROM", &from)];
        if compacting {
            variables.push(("COMPACT", "1"));
        }
        let script = format!("mount -o loop \"$IMAGE\" \"$DIR\"; {COPY}; umount -l \"$DIR\"");
        let output = in_own_namespace(&script, &variables).expect("it was to be had").output().expect("it starts");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "round {round}: {}\n{out}\n{err}", output.status);
        let acknowledged = lines(&output.stdout, "ack");
        assert!(acknowledged.len() > 10, "round {round}: {out}\n{err}");
        known.extend(acknowledged);

        let look = [("IMAGE", image), ("DIR", dir), (PART, "look")];
        let output = in_own_namespace(&script, &look).expect("it was to be had").output().expect("it starts");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out.contains("looked"), "round {round}: {}\n{out}\n{err}", output.status);
        let found = lines(&output.stdout, "found");
        let lost: Vec<&String> =
            known.iter().filter(|(key, size)| found.get(*key) != Some(size)).map(|(key, _)| key).collect();
        assert!(lost.is_empty(), "round {round}: acknowledged and lost: {lost:?}");
    }
    eprintln!("{} acknowledged writes in {rounds} rounds, none lost", known.len());
}
