//! What several processes can rely on when they use one store, killed and stopped ones included.
//!
//! The other processes are this test binary again: it runs the "test" `another_process` with a part to play in `PART`.

mod store_support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use managed_tokens::workflow::id::RunId;
use managed_tokens::workflow::store::{
    self, Access, From, HolderState, ImportError, ImportOrder, Options, Shelf, StateDir, Store, StoreError,
};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use store_support::{content, counter, event, fresh, id, machine, raise, reader, state, writer};

/// A part to play and how it ends: killed when dropped.
struct Player {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Player {
    fn start(part: &str, state: &StateDir) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "another_process", "--nocapture", "--test-threads=1"])
            .env("PART", part)
            .env("STATE", state.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let says = BufReader::new(child.stdout.take().unwrap());
        Self { child, says }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// The next number it says; `None` when it has ended.
    fn hear(&mut self) -> Option<u64> {
        loop {
            let mut line = String::new();
            if self.says.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // libtest writes lines of its own, and begins ours.
            if let Some((_, number)) = line.trim_end().split_once("said ") {
                return Some(number.parse().unwrap());
            }
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(number: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "said {number}").unwrap();
    out.flush().unwrap();
}

#[test]
fn another_process() {
    let Ok(part) = std::env::var("PART") else { return };
    let state = StateDir::existing(Path::new(&std::env::var_os("STATE").unwrap())).unwrap();
    match part.as_str() {
        "write-events" => write_events(&writer(&state)),
        "raise" => {
            let store = writer(&state);
            loop {
                raise(&store, "n").unwrap();
                say(1);
            }
        }
        "read" => loop {
            let store = reader(&state);
            say(counter(&store, "n"));
            store.close();
        },
        "hold" => {
            // Holds the store inside a closure until it is killed or stopped.
            let store = writer(&state);
            let _: Result<(), StoreError> = store.write_blocking(|_| {
                say(0);
                loop {
                    std::thread::park();
                }
            });
        }
        "open-and-rest" => {
            let store = writer(&state);
            say(raise(&store, "n").unwrap());
            loop {
                std::thread::park();
            }
        }
        "watch" => {
            let store = reader(&state);
            loop {
                say(counter(&store, "n"));
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        "fail-to-grow-its-log" => meet_a_failing_disk(&writer(&state), 10_000),
        "fail-to-write-a-blob" => meet_a_failing_disk(&writer(&state), 3 << 20),
        "fail-to-compact-a-blob" => {
            let copied = without_large_files(move || store::compact(&state, &Options::default()));
            fail_well(&copied.unwrap_err());
        }
        "fail-to-import-a-blob" => {
            let from = From::File { path: state.path().join(EXPORT), partial: false };
            let order = ImportOrder { from, uids: BTreeMap::new(), replace: true };
            match without_large_files(move || store::import(&state, &order, &Options::default())) {
                Err(ImportError::Store(error)) => fail_well(&error),
                other => panic!("{other:?}"),
            }
        }
        other => panic!("no such part: {other}"),
    }
}

/// Appends events for ever, from several threads on one run each; says the events that were acknowledged.
fn write_events(store: &Store) {
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            scope.spawn(move || {
                let run = id(thread + 1, 0);
                let mut seq = store.read_blocking(move |view| view.next_seq(run)).unwrap().unwrap();
                loop {
                    store
                        .write_blocking(move |tx| {
                            let mut now = fresh(run);
                            now.events = seq + 1;
                            tx.put_run(&now)?;
                            let mut machine = machine("a");
                            machine.steps = Vec::with_capacity(seq as usize % 2);
                            tx.put_machine(run, &machine)?;
                            tx.append_event(run, &event(seq))
                        })
                        .unwrap();
                    say(thread << 32 | seq);
                    seq += 1;
                }
            });
        }
    });
}

/// From now on a file over 2 MiB fails like a broken disk would. SIGXFSZ would end the process.
fn break_the_disk() {
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { nix::sys::signal::signal(Signal::SIGXFSZ, nix::sys::signal::SigHandler::SigIgn) }.unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 2 << 20, 2 << 20).unwrap();
}

/// What comes of it on such a disk. It has to come to an end.
fn without_large_files<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    break_the_disk();
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || done.send(work()).unwrap());
    wait.recv_timeout(Duration::from_secs(30)).expect("it hangs")
}

/// Says so if the error names what could not be written, and lives on as a process does that has other work.
fn fail_well(error: &StoreError) {
    let told = error.to_string();
    assert!(matches!(error, StoreError::Io { doing: "write", .. }), "{error:?}");
    assert!(told.contains("store.new: File too large"), "{told}");
    say(FAILED_WELL);
    loop {
        std::thread::park();
    }
}

/// Says the number of every acknowledged write until one fails, then that it goes on without the store.
fn meet_a_failing_disk(store: &Store, size: usize) {
    break_the_disk();
    let put =
        |n: u64, size| store.write_blocking(move |tx| tx.put(Shelf::Metrics, &format!("{n:010}"), &"x".repeat(size)));
    put(0, 100).unwrap();
    say(0);
    let mut n = 1;
    let error: StoreError = loop {
        match put(n, size) {
            Ok(()) => say(n),
            Err(error) => break error,
        }
        n += 1;
    };
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    // Whatever state sled is in, an answer comes: an error, or success if it could be opened anew.
    for answer in [put(n + 1, size), store.read_blocking(|_| ())] {
        assert!(!matches!(answer, Err(StoreError::Hangs { .. })));
    }
    store.clone().close();
    say(FAILED_WELL);
}

const FAILED_WELL: u64 = u64::MAX;

#[test]
fn a_failing_disk_is_an_error_and_never_a_hang_and_loses_nothing_acknowledged() {
    for part in ["fail-to-grow-its-log", "fail-to-write-a-blob"] {
        let (_tmp, state) = state();
        let mut player = Player::start(part, &state);
        let mut acknowledged = 0;
        loop {
            match player.hear() {
                Some(FAILED_WELL) => break,
                Some(said) => acknowledged = said + 1,
                None => panic!("{part}: it ended before it had seen the error"),
            }
        }
        player.kill();
        let found =
            reader(&state).read_blocking(|view| view.scan_prefix::<String>(Shelf::Metrics, "")).unwrap().unwrap();
        assert!(found.len() as u64 >= acknowledged, "{part}: {} of {acknowledged} are left", found.len());
    }
}

const EXPORT: &str = "export";

#[test]
fn a_copy_that_cannot_be_written_is_an_error_and_never_a_hang_and_leaves_the_store_as_it_was() {
    for part in ["fail-to-compact-a-blob", "fail-to-import-a-blob"] {
        let (_tmp, state) = state();
        let store = writer(&state);
        raise(&store, "n").unwrap();
        // More than a page holds: it lies in a file of its own.
        store.write_blocking(|tx| tx.put(Shelf::Metrics, "large", &"x".repeat(3 << 20))).unwrap();
        store.close();
        let (_, text) = store::export(&state, &Options::default(), || Ok(Vec::new())).unwrap();
        std::fs::write(state.path().join(EXPORT), text).unwrap();
        let before = content(&state.store());
        let mut player = Player::start(part, &state);
        assert_eq!(player.hear(), Some(FAILED_WELL), "{part}");
        let left: Vec<_> = std::fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let is_of_a_copy = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("store.");
        let left: Vec<_> = left.into_iter().filter(is_of_a_copy).collect();
        assert!(left.iter().all(|name| name == "store.json" || name == "store.lock"), "{part}: {left:?}");
        let blobs = |all: &BTreeMap<String, Vec<u8>>| -> BTreeMap<String, Vec<u8>> {
            all.clone().into_iter().filter(|(path, _)| path.contains("/blobs/")).collect()
        };
        assert!(blobs(&before) == blobs(&content(&state.store())), "{part}");
        // While that process lives.
        let options = Options { patience: Duration::ZERO, ..Options::default() };
        let other = Store::open_with(&state, Access::ReadWrite, options).unwrap();
        assert_eq!(raise(&other, "n").unwrap(), 1, "{part}");
        let found = other.read_blocking(|view| view.scan_prefix::<String>(Shelf::Metrics, "")).unwrap().unwrap();
        assert_eq!(found.iter().map(|(_, text)| text.len()).collect::<Vec<_>>(), [3 << 20], "{part}");
    }
}

#[test]
fn acknowledged_events_survive_kill_9_and_runs_agree_with_their_events() {
    const KILLS: u32 = 20;
    let (_tmp, state) = state();
    let mut acknowledged = [0_u64; 4];
    for _ in 0..KILLS {
        let mut player = Player::start("write-events", &state);
        let mut note = |said: u64| {
            let (thread, seq) = ((said >> 32) as usize, said & 0xffff_ffff);
            acknowledged[thread] = acknowledged[thread].max(seq + 1);
        };
        for _ in 0..rand::random_range(0..150) {
            note(player.hear().expect("it writes until it is killed"));
        }
        // Anywhere inside a commit, not just after one.
        let moment = Instant::now() + Duration::from_micros(rand::random_range(0..3_000));
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        player.kill();
        while let Some(said) = player.hear() {
            note(said);
        }
        let found = reader(&state)
            .read_blocking(|view| {
                [1, 2, 3, 4].map(|ms| {
                    let run = id(ms, 0);
                    let events = view.events(run).unwrap();
                    assert!(events.iter().zip(0..).all(|(event, seq)| event.seq == seq), "a gap");
                    let noted = view.run(run).unwrap().map_or(0, |run| run.events);
                    assert_eq!(noted, events.len() as u64, "half a write");
                    assert_eq!(view.machines(run).unwrap().len() as u64, noted.min(1));
                    noted
                })
            })
            .unwrap();
        for (found, acknowledged) in found.iter().zip(acknowledged) {
            assert!(*found >= acknowledged, "{found} events of {acknowledged} acknowledged");
        }
    }
    assert!(acknowledged.iter().sum::<u64>() > 100, "they hardly wrote: {acknowledged:?}");
}

#[test]
fn two_writers_and_a_reader_all_get_on_and_no_update_is_lost() {
    const EACH: u64 = 60;
    const LOOKS: u64 = 5;
    let (_tmp, state) = state();
    let (done, wait) = mpsc::channel();
    let writers = [Player::start("raise", &state), Player::start("raise", &state)].map(|mut player| {
        let (pid, done) = (player.pid(), done.clone());
        let heard = std::thread::spawn(move || {
            let mut heard = 0;
            while player.hear().is_some() {
                heard += 1;
                if heard == EACH {
                    done.send(()).unwrap();
                }
            }
            heard
        });
        (pid, heard)
    });
    drop(done);
    let mut looker = Player::start("read", &state);
    let looking = std::thread::spawn(move || {
        let seen: Vec<u64> = (0..LOOKS).map(|_| looker.hear().unwrap()).collect();
        assert!(seen.is_sorted(), "an older state was read: {seen:?}");
    });
    // Both go on, and are listened to, until both have done their share: each must get its turn while the other is busy.
    for _ in &writers {
        wait.recv().expect("a writer gave up waiting for its turn");
    }
    looking.join().unwrap();
    let said: u64 = writers
        .into_iter()
        .map(|(pid, heard)| {
            kill(pid, Signal::SIGKILL).unwrap();
            heard.join().unwrap()
        })
        .sum();
    let n = counter(&reader(&state), "n");
    assert!((said..=said + 2).contains(&n), "{n} counted, {said} acknowledged");
}

/// Stops a process and comes back when it is stopped.
fn stop(pid: Pid) {
    kill(pid, Signal::SIGSTOP).unwrap();
    let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
}

#[test]
fn a_stopped_holder_is_named_with_its_pid_and_state() {
    let (_tmp, state) = state();
    let mut holder = Player::start("hold", &state);
    holder.hear().unwrap();
    stop(holder.pid());
    let options = || Options { patience: Duration::from_millis(100), ..Options::default() };
    let first = Store::open_with(&state, Access::ReadOnly, options()).unwrap_err();
    // Whoever comes later stands in the queue behind the first, and must name the holder all the same.
    let second = Store::open_with(&state, Access::ReadWrite, options()).unwrap_err();
    for error in [first, second] {
        let StoreError::Busy { pid, state, .. } = &error else { panic!("{error}") };
        assert_eq!((*pid, *state), (Some(holder.pid().as_raw() as u32), HolderState::Stopped));
        assert!(error.to_string().contains("kill -CONT"), "{error}");
    }
}

#[test]
fn a_dead_holder_costs_nobody_a_moment() {
    let (_tmp, state) = state();
    let mut holder = Player::start("hold", &state);
    holder.hear().unwrap();
    holder.kill();
    // The lock has died with its holder: there is nothing to wait for.
    let options = Options { patience: Duration::ZERO, ..Options::default() };
    raise(&Store::open_with(&state, Access::ReadWrite, options).unwrap(), "n").unwrap();
}

#[test]
fn a_stopped_holder_costs_a_process_its_patience_once_and_not_with_every_request() {
    const PATIENCE: Duration = Duration::from_secs(1);
    const REQUESTS: u32 = 12;
    let (_tmp, state) = state();
    let options = Options { patience: PATIENCE, ..Options::default() };
    let store = Store::open_with(&state, Access::ReadWrite, options).unwrap();
    let mut holder = Player::start("hold", &state);
    holder.hear().unwrap();
    stop(holder.pid());
    let since = Instant::now();
    for request in 0..REQUESTS {
        let refused = if request % 2 == 0 { raise(&store, "n") } else { store.read_blocking(|_| 0) };
        assert!(matches!(refused, Err(StoreError::Busy { .. })), "{refused:?}");
    }
    // One that waits each time takes twice as long, on an idle machine.
    assert!(since.elapsed() < PATIENCE * REQUESTS / 2, "{:?}", since.elapsed());
    // It is no longer in vain once the holder has gone: from a moment on every request succeeds.
    holder.kill();
    let until = Instant::now() + Duration::from_secs(60);
    while raise(&store, "n").is_err() {
        assert!(Instant::now() < until, "the store is free, and requests are refused");
    }
    for before in 1..=3 {
        assert_eq!(raise(&store, "n").unwrap(), before);
    }
}

#[test]
fn a_holder_with_nothing_to_do_lets_others_in() {
    let (_tmp, state) = state();
    let mut resting = Player::start("open-and-rest", &state);
    assert_eq!(resting.hear(), Some(0));
    assert_eq!(raise(&writer(&state), "n").unwrap(), 1);
}

/// Stops a process at a moment when it does not have the store. Nobody waits for the store meanwhile.
fn stop_without_the_store(player: &Player, state: &StateDir) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        stop(player.pid());
        // Whoever is free to take it at once does not ask the holder for it.
        let lock = std::fs::File::open(state.store_lock()).unwrap();
        if lock.try_lock().is_ok() {
            return;
        }
        assert!(Instant::now() < until, "it has the store all the time");
        kill(player.pid(), Signal::SIGCONT).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_reader_that_looks_again_and_again_has_the_store_only_while_it_looks() {
    let (_tmp, state) = state();
    raise(&writer(&state), "n").unwrap();
    let mut watcher = Player::start("watch", &state);
    assert_eq!(watcher.hear(), Some(1));
    stop_without_the_store(&watcher, &state);
    let options = Options { patience: Duration::ZERO, ..Options::default() };
    raise(&Store::open_with(&state, Access::ReadWrite, options).unwrap(), "n").unwrap();
}

#[test]
fn a_writer_that_has_had_nothing_to_do_for_a_while_does_not_have_the_store() {
    let (_tmp, state) = state();
    let mut resting = Player::start("open-and-rest", &state);
    assert_eq!(resting.hear(), Some(0));
    stop_without_the_store(&resting, &state);
    let options = Options { patience: Duration::ZERO, ..Options::default() };
    assert_eq!(raise(&Store::open_with(&state, Access::ReadWrite, options).unwrap(), "n").unwrap(), 1);
}

#[test]
fn nothing_read_before_a_hand_over_is_believed_after_it() {
    // Handles take turns like processes do: each has the store open alone.
    let (_tmp, state) = state();
    let (a, b) = (writer(&state), writer(&state));
    let run = RunId::generate();
    for round in 0..10 {
        let store = if round % 2 == 0 { &a } else { &b };
        assert_eq!(raise(store, "n").unwrap(), round);
        store.write_blocking(move |tx| tx.append_event(run, &event(round))).unwrap();
        let other = if round % 2 == 0 { &b } else { &a };
        assert_eq!(other.read_blocking(move |view| view.next_seq(run)).unwrap().unwrap(), round + 1);
    }
    assert!(a.stats().hand_overs + b.stats().hand_overs >= 10, "{:?} {:?}", a.stats(), b.stats());
}
