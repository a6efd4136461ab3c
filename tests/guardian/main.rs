//! What the guardian promises: real acting processes, really killed.
//!
//! This binary is two programs. Started by `cargo test` it runs the tests; started by a test, with [`ROLE`] set, it is an
//! acting `mt` in small (`acting`). A guardian is forked before any thread exists, so there is no test harness.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use managed_tokens::guardian::{Owner, bury, owner_is_dead, remove_marked, sweep};
use managed_tokens::workflow::id::ProcessId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[path = "../support/terminal.rs"]
mod terminal;
#[path = "../support/unread.rs"]
mod unread;

mod acting;
mod world;

use world::*;

const ROLE: &str = "GUARDIAN_TEST_ROLE";
/// Whose processes these are, where they are to be found again.
const WORLD: &str = "GUARDIAN_TEST_WORLD";

/// How long one test may take before it counts as hanging and all of them end, in seconds.
const HANGING: libc::c_uint = 120;

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("the_exit_code_is_the_workers_and_nothing_is_left", the_exit_code_is_the_workers_and_nothing_is_left),
    ("a_worker_killed_by_a_signal_looks_so_from_outside", a_worker_killed_by_a_signal_looks_so_from_outside),
    ("an_inherited_ignored_sigchld_does_not_lose_the_status", an_inherited_ignored_sigchld_does_not_lose_the_status),
    (
        "a_leftover_that_nobody_reads_of_does_not_lose_the_status",
        a_leftover_that_nobody_reads_of_does_not_lose_the_status,
    ),
    ("a_panic_is_told_and_whoever_panics_waits_for_no_reader", a_panic_is_told_and_whoever_panics_waits_for_no_reader),
    ("no_descendant_outlives_a_killed_worker", no_descendant_outlives_a_killed_worker),
    ("processes_that_fork_on_and_on_are_ended", processes_that_fork_on_and_on_are_ended),
    ("a_killed_guardian_is_a_graceful_end", a_killed_guardian_is_a_graceful_end),
    ("both_killed_then_a_sweep_ends_what_they_left", both_killed_then_a_sweep_ends_what_they_left),
    ("an_owner_lives_until_its_guardian_has_cleaned_up", an_owner_lives_until_its_guardian_has_cleaned_up),
    (
        "what_a_worker_left_under_a_guardian_that_is_stopped_can_be_ended",
        what_a_worker_left_under_a_guardian_that_is_stopped_can_be_ended,
    ),
    ("children_that_came_before_the_guardian_live_on", children_that_came_before_the_guardian_live_on),
    ("the_end_of_the_pid_that_was_started_is_the_end", the_end_of_the_pid_that_was_started_is_the_end),
    ("signals_are_passed_on_and_only_a_late_second_one_kills", signals_are_passed_on_and_only_a_late_second_one_kills),
    ("ctrl_c_reaches_the_worker_once", ctrl_c_reaches_the_worker_once),
    ("a_child_on_the_terminal_may_read_from_it", a_child_on_the_terminal_may_read_from_it),
    ("removal_follows_no_link", removal_follows_no_link),
    (
        "only_our_marked_files_are_removed_from_a_shared_directory",
        only_our_marked_files_are_removed_from_a_shared_directory,
    ),
    ("two_sweeps_at_once_are_as_good_as_one", two_sweeps_at_once_are_as_good_as_one),
];

fn main() -> ExitCode {
    if std::env::var_os(ROLE).is_some() {
        return acting::act();
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let mut failed = 0;
    for (name, test) in TESTS {
        if filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())) {
            print!("test {name} ... ");
            std::io::stdout().flush().unwrap();
            // SAFETY: it only sets this process's timer, whose signal ends it.
            unsafe { libc::alarm(HANGING) };
            let started = Instant::now();
            let result = catch_unwind(AssertUnwindSafe(test));
            failed += u32::from(result.is_err());
            let result = if result.is_ok() { "ok" } else { "FAILED" };
            println!("{result} ({:.2?})", started.elapsed());
        }
    }
    ExitCode::from(u8::from(failed > 0))
}

fn the_exit_code_is_the_workers_and_nothing_is_left() {
    for code in ["0", "10", "143"] {
        let world = world();
        let mut acting = world.start("exit", code);
        assert_eq!(acting.end().code(), code.parse().ok());
        world.assert_nothing_is_left();
        assert!(owner_is_dead(&world.run, acting.process));
    }
}

fn a_worker_killed_by_a_signal_looks_so_from_outside() {
    // The last is a realtime signal, which has no name.
    for signal in [libc::SIGKILL, libc::SIGABRT, libc::SIGTERM, 40] {
        let world = world();
        let mut acting = world.start("raise", &signal.to_string());
        assert_eq!(acting.end().signal(), Some(signal));
        world.assert_nothing_is_left();
    }
}

fn an_inherited_ignored_sigchld_does_not_lose_the_status() {
    let world = world();
    let mut command = world.command("exit", "10");
    // SAFETY: signal() may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            Ok(())
        });
    }
    assert_eq!(wait(&mut command.stdout(Stdio::null()).spawn().unwrap()).code(), Some(10));
}

fn a_leftover_that_nobody_reads_of_does_not_lose_the_status() {
    let (gone, closed) = std::io::pipe().unwrap();
    drop(gone);
    let (_stopped, full) = unread::full_pipe();
    for stderr in [closed, full] {
        let world = world();
        // What is no directory cannot be looked through for leftovers.
        let script = format!("rm -r {0}; echo >{0}", world.shared.display());
        let mut command = world.command("run", &script);
        let mut guardian = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        assert_eq!(wait(&mut guardian).code(), Some(0));
        assert!(world.shared.is_file(), "there was something to tell");
    }
}

fn a_panic_is_told_and_whoever_panics_waits_for_no_reader() {
    let (_stopped, full) = unread::full_pipe();
    assert_eq!(
        wait(&mut world().command("panic", "10").stdout(Stdio::null()).stderr(full).spawn().unwrap()).code(),
        Some(10)
    );
    let world = world();
    let told = world.command("panic", "10").output().unwrap();
    let text = String::from_utf8(told.stderr).unwrap();
    assert_eq!(told.status.code(), Some(10), "{text}");
    assert!(text.contains("panicked at tests/guardian/acting.rs:") && text.contains("a mistake in mt"), "{text}");
}

fn no_descendant_outlives_a_killed_worker() {
    let world = world();
    let mut acting = world.start("run", &family(&world));
    let pids = FAMILY.map(|name| world.pid(name));
    kill(acting.worker, Signal::SIGKILL).unwrap();
    assert_eq!(acting.end().signal(), Some(libc::SIGKILL));
    for (name, pid) in FAMILY.iter().zip(pids) {
        assert!(is_dead(pid), "{name} lives");
    }
    world.assert_nothing_is_left();
}

fn processes_that_fork_on_and_on_are_ended() {
    let world = world();
    let (script, stop, generation) = (world.file("chain"), world.file("stop"), world.file("generation"));
    // Each starts its successor in a session of its own and exits: nobody stands still long enough to be found by name.
    let text = format!(
        "[ -e {stop} ] && exit\nsetsid sh {script} &\necho >> {generation}\n",
        stop = stop.display(),
        script = script.display(),
        generation = generation.display()
    );
    fs::write(&script, text).unwrap();
    let chains = format!("for i in 1 2 3 4; do sh {} & done; sleep 1000", script.display());
    let mut acting = world.start("run", &chains);
    let born = || fs::read(&generation).is_ok_and(|born| born.len() > 40);
    eventually("ten generations", || born().then_some(()));
    kill(acting.worker, Signal::SIGKILL).unwrap();
    let ended = acting.end();
    let left = marked(acting.process);
    fs::write(&stop, "").unwrap(); // should the test fail, the chains end by themselves
    assert_eq!(ended.signal(), Some(libc::SIGKILL));
    assert!(left.is_empty(), "{left:?}");
    world.assert_nothing_is_left();
}

fn a_killed_guardian_is_a_graceful_end() {
    let world = world();
    let mut acting = world.start("run", &family(&world));
    let pids = FAMILY.map(|name| world.pid(name));
    assert_eq!(acting.line(), "ready");
    acting.guardian.kill().unwrap();
    assert_eq!(acting.line(), "heard SIGTERM");
    eventually("the worker has left", || is_dead(acting.worker).then_some(()));
    for (name, pid) in FAMILY.iter().zip(pids) {
        eventually(name, || is_dead(pid).then_some(()));
    }
    world.assert_nothing_is_left();
}

fn both_killed_then_a_sweep_ends_what_they_left() {
    let (world, living) = (world(), self::world());
    let script = family(&living);
    let other = living.start("run", &script);
    let spared = FAMILY.map(|name| living.pid(name));
    let mut acting = world.start("run", &family(&world));
    let pids = FAMILY.map(|name| world.pid(name));
    // A process of ours that has nothing to do with it.
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    // Stopped first, so that neither can do anything about the other's death.
    kill(acting.guardian(), Signal::SIGSTOP).unwrap();
    kill(acting.worker, Signal::SIGSTOP).unwrap();
    assert_eq!(sweep(&world.run, std::slice::from_ref(&world.shared)).unwrap(), [], "its owner lives, if stopped");
    acting.guardian.kill().unwrap();
    kill(acting.worker, Signal::SIGKILL).unwrap();
    acting.end();
    eventually("the worker is gone", || owner_is_dead(&world.run, acting.process).then_some(()));
    assert!(pids.iter().all(|pid| !is_dead(*pid)));

    let swept = sweep(&world.run, std::slice::from_ref(&world.shared)).unwrap();
    assert_eq!(swept.len(), 1);
    assert_eq!(swept[0].process, acting.process);
    assert!(swept[0].problems.is_empty(), "{:?}", swept[0].problems);
    assert!(swept[0].ended >= pids.len(), "{}", swept[0].ended);
    assert_eq!(swept[0].files.len(), 1);
    for (name, pid) in FAMILY.iter().zip(pids) {
        assert!(is_dead(pid), "{name} lives");
    }
    world.assert_nothing_is_left();
    assert!(spared.iter().all(|pid| !is_dead(*pid)), "a living owner's children are spared");
    assert!(stranger.try_wait().unwrap().is_none());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(!owner_is_dead(&living.run, other.process));
    assert_eq!(sweep(&world.run, &[]).unwrap(), []);
}

fn an_owner_lives_until_its_guardian_has_cleaned_up() {
    let world = world();
    let mut acting = world.start("run", &family(&world));
    let child = world.pid("child");
    kill(acting.guardian(), Signal::SIGSTOP).unwrap();
    kill(acting.worker, Signal::SIGKILL).unwrap();
    eventually("the worker is gone", || is_dead(acting.worker).then_some(()));
    assert!(!is_dead(child));
    assert!(!owner_is_dead(&world.run, acting.process), "its children live, so nobody may take its runs over");
    kill(acting.guardian(), Signal::SIGCONT).unwrap();
    acting.end();
    assert!(owner_is_dead(&world.run, acting.process));
    assert!(is_dead(child));
}

fn what_a_worker_left_under_a_guardian_that_is_stopped_can_be_ended() {
    let world = world();
    let mut acting = world.start("run", &family(&world));
    let pids = FAMILY.map(|name| world.pid(name));
    kill(acting.guardian(), Signal::SIGSTOP).unwrap();
    kill(acting.worker, Signal::SIGKILL).unwrap();
    eventually("the worker is gone", || is_dead(acting.worker).then_some(()));
    let shared = std::slice::from_ref(&world.shared);
    assert!(bury(&world.run, acting.process, shared, Duration::from_millis(50)), "nobody is left");
    for (name, pid) in FAMILY.iter().zip(pids) {
        assert!(is_dead(pid), "{name} lives");
    }
    assert!(!owner_is_dead(&world.run, acting.process), "its guardian has the files to remove yet");
    kill(acting.guardian(), Signal::SIGCONT).unwrap();
    assert_eq!(acting.end().signal(), Some(libc::SIGKILL));
    world.assert_nothing_is_left();
    assert!(bury(&world.run, acting.process, shared, Duration::ZERO), "nothing is left of it");
}

struct AfterAHelper {
    first: Child,
    said: BufReader<std::process::ChildStdout>,
    world: std::path::PathBuf,
}

impl Drop for AfterAHelper {
    /// A failed test leaves nothing running.
    fn drop(&mut self) {
        if matches!(self.first.try_wait(), Ok(None)) {
            let _ = self.first.kill();
            let _ = self.first.wait();
        }
        for pid in of_world(&self.world) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// `helper & exec mt …`: starts it from a shell that has a child.
fn after_a_helper(world: &World, what: &str, script: &str) -> AfterAHelper {
    let helper = format!(
        "echo $$ > {helper}; while [ ! -e {go} ]; do sleep 0.01; done; setsid sh -c 'echo $$ > {late}; exec sleep 1000' & wait",
        helper = world.file("helper").display(),
        go = world.file("go").display(),
        late = world.file("late").display(),
    );
    fs::write(world.file("helper.sh"), helper).unwrap();
    let mt = world.command(what, script);
    let mut shell = Command::new("sh");
    shell.args(["-c", "sh \"$1\" & shift; exec \"$@\"", "sh"]).arg(world.file("helper.sh"));
    shell.arg(mt.get_program()).args(mt.get_args()).env(ROLE, "acting").stdin(Stdio::null()).stdout(Stdio::piped());
    shell.env(WORLD, world.dir.path());
    let mut first = shell.spawn().unwrap();
    let said = BufReader::new(first.stdout.take().unwrap());
    AfterAHelper { first, said, world: world.dir.path().to_owned() }
}

fn children_that_came_before_the_guardian_live_on() {
    let world = world();
    // An orphan without a mark: it could pass for one of the helper's.
    let orphan = format!("(env -i setsid sh -c 'echo $$ > {}; exec sleep 1000' &)", world.file("orphan").display());
    let mut acting = after_a_helper(&world, "stubborn", &format!("{orphan}; sleep 1000"));
    let lines = lines_until(&mut acting.said, "ready");
    let words: Vec<Pid> =
        lines[0].split_whitespace().skip(1).map(|word| Pid::from_raw(word.parse().unwrap())).collect();
    let [worker, guardian] = words[..] else { panic!("{lines:?}") };
    let started = Pid::from_raw(acting.first.id().try_into().unwrap());
    // What the helper starts from now on is its own as well, and whoever adopts that is not to be us.
    let helper = world.pid("helper");
    fs::write(world.file("go"), "").unwrap();
    let (late, orphan) = (world.pid("late"), world.pid("orphan"));
    kill(helper, Signal::SIGKILL).unwrap();
    eventually("the helper's child is an orphan", || (parent(late) != Some(helper)).then_some(()));
    eventually("the worker's is the guardian's", || (parent(orphan) == Some(guardian)).then_some(()));
    kill(started, Signal::SIGUSR1).unwrap();
    lines_until(&mut acting.said, "heard SIGUSR1");
    kill(worker, Signal::SIGKILL).unwrap();
    assert_eq!(wait(&mut acting.first).signal(), Some(libc::SIGKILL), "it ends as the worker did");
    assert!(is_dead(orphan));
    assert!(!is_dead(late), "the helper's child was ended, too");
    world.assert_nothing_is_left();
}

fn the_end_of_the_pid_that_was_started_is_the_end() {
    let world = world();
    let mut acting = after_a_helper(&world, "run", &family(&world));
    lines_until(&mut acting.said, "ready");
    let pids = FAMILY.map(|name| world.pid(name));
    let helper = world.pid("helper");
    acting.first.kill().unwrap();
    lines_until(&mut acting.said, "heard SIGTERM");
    acting.first.wait().unwrap();
    for (name, pid) in FAMILY.iter().zip(pids) {
        eventually(name, || is_dead(pid).then_some(()));
    }
    eventually("its files are gone", || fs::read_dir(&world.run).unwrap().next().is_none().then_some(()));
    world.assert_nothing_is_left();
    assert!(!is_dead(helper));
}

fn signals_are_passed_on_and_only_a_late_second_one_kills() {
    let world = world();
    let mut acting = world.start("stubborn", "sleep 1000");
    assert_eq!(acting.line(), "ready");
    // Both wait for it, so that the second comes right after the first however busy the machine is.
    kill(acting.guardian(), Signal::SIGSTOP).unwrap();
    kill(acting.guardian(), Signal::SIGTERM).unwrap();
    kill(acting.guardian(), Signal::SIGHUP).unwrap();
    kill(acting.guardian(), Signal::SIGCONT).unwrap();
    let mut heard = [acting.line(), acting.line()];
    heard.sort();
    assert_eq!(heard, ["heard SIGHUP", "heard SIGTERM"], "an echo is passed on and kills nobody");
    // What is tested is the pause itself.
    sleep(Duration::from_millis(1100));
    kill(acting.guardian(), Signal::SIGHUP).unwrap();
    assert_eq!(acting.end().code(), Some(143), "killed: 128 and the first signal, and a hang-up counts as SIGTERM");
    world.assert_nothing_is_left();
}

struct OnTerminal(Child);

impl Drop for OnTerminal {
    fn drop(&mut self) {
        end_gently(&mut self.0);
    }
}

/// Starts it as a shell does: in the foreground of a terminal of its own.
fn on_a_terminal(world: &World, what: &str, argument: &str) -> (OnTerminal, BufReader<fs::File>, fs::File) {
    let (child, person) = terminal::spawn(world.command(what, argument));
    (OnTerminal(child), BufReader::new(person.try_clone().unwrap()), person)
}

/// Reads until a line ends with this, and returns all lines.
fn lines_until(said: &mut impl BufRead, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &String| !line.ends_with(last)) {
        let mut line = String::new();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "{lines:?}");
        lines.push(line.trim_end().to_owned());
    }
    lines
}

fn ctrl_c_reaches_the_worker_once() {
    let world = world();
    let script = format!("echo $$ > {}; exec sleep 1000", world.file("child").display());
    let (mut guardian, mut said, mut keyboard) = on_a_terminal(&world, "stubborn", &script);
    let lines = lines_until(&mut said, "ready");
    // A child that is still on its way to a group of its own would hear it as well, and end.
    world.pid("child");
    let worker = Pid::from_raw(lines[0].split_whitespace().nth(1).unwrap().parse().unwrap());
    let above = Pid::from_raw(guardian.0.id().try_into().unwrap());
    // The guardian gets it later than the worker: two at once would look like one.
    kill(above, Signal::SIGSTOP).unwrap();
    keyboard.write_all(b"\x03").unwrap();
    lines_until(&mut said, "heard SIGINT");
    kill(above, Signal::SIGCONT).unwrap();
    // Had the guardian passed it on, the worker would tell by the time it has heard these two.
    let mut heard = Vec::new();
    for _ in 0..2 {
        kill(above, Signal::SIGUSR1).unwrap();
        heard.extend(lines_until(&mut said, "heard SIGUSR1"));
    }
    assert!(!heard.iter().any(|line| line.ends_with("SIGINT")), "{heard:?}");
    kill(worker, Signal::SIGKILL).unwrap();
    assert_eq!(wait(&mut guardian.0).signal(), Some(libc::SIGKILL));
    world.assert_nothing_is_left();
}

fn a_child_on_the_terminal_may_read_from_it() {
    let world = world();
    let script = "read answer; echo \"got $answer\"; [ -t 0 ] && [ -t 1 ] && echo it is a terminal";
    let (mut guardian, mut said, mut keyboard) = on_a_terminal(&world, "terminal", script);
    lines_until(&mut said, "ready");
    keyboard.write_all(b"yes\n").unwrap();
    // In a background group it would be stopped by SIGTTIN, and this would never come.
    let lines = lines_until(&mut said, "it is a terminal");
    assert!(lines.iter().any(|line| line == "got yes"), "{lines:?}");
    assert_eq!(wait(&mut guardian.0).code(), Some(0));
    world.assert_nothing_is_left();
}

fn removal_follows_no_link() {
    let world = world();
    let outside = world.file("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "").unwrap();
    let mut acting = world.start("run", "sleep 1000");
    let private = world.run.join(acting.process.to_string());
    symlink(&outside, private.join("link")).unwrap();
    symlink(&outside, world.shared.join(format!("vt_mt-{}-link", acting.process))).unwrap();
    kill(acting.worker, Signal::SIGKILL).unwrap();
    acting.end();
    world.assert_nothing_is_left();
    assert!(outside.join("precious").exists());

    // The private directory itself swapped for a link.
    let owner = Owner::take(&world.run).unwrap();
    fs::remove_dir(&owner.private).unwrap();
    symlink(&outside, &owner.private).unwrap();
    drop(owner);
    sweep(&world.run, &[]).unwrap();
    assert!(outside.join("precious").exists());
}

fn only_our_marked_files_are_removed_from_a_shared_directory() {
    let world = world();
    let (process, other) = (ProcessId::generate(), ProcessId::generate());
    let file = |name: String| {
        let path = world.shared.join(name);
        fs::write(&path, "").unwrap();
        path
    };
    let ours = [file(format!("vt_mt-{process}-a-dune")), file(format!("bt_mt{process}"))];
    let stay = [file(format!("vt_mt-{other}-a")), file(format!("vt_u1000-{process}")), file("vt_mt".to_owned())];
    let directory = world.shared.join(format!("vt_mt-{process}-directory"));
    fs::create_dir(&directory).unwrap();
    let foreign = file(format!("vt_mt-{process}-foreign"));
    let foreign = nix::unistd::geteuid().is_root().then_some(foreign);
    if let Some(foreign) = &foreign {
        std::os::unix::fs::chown(foreign, Some(65534), None).unwrap();
    }
    remove_marked(&world.shared, process).unwrap();
    assert!(ours.iter().all(|path| !path.exists()));
    assert!(stay.iter().chain([&directory]).chain(&foreign).all(|path| path.exists()));
    assert!(remove_marked(&world.file("nowhere"), process).unwrap().is_empty());
}

fn two_sweeps_at_once_are_as_good_as_one() {
    let world = world();
    let dead: Vec<ProcessId> = (0..50).map(|_| Owner::take(&world.run).unwrap().process).collect();
    let living = Owner::take(&world.run).unwrap();
    let sweeps: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| sweep(&world.run, &[]).unwrap())).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(sweeps.iter().all(|swept| swept.problems.is_empty()), "{sweeps:?}");
    assert!(dead.iter().all(|process| sweeps.iter().any(|swept| swept.process == *process)));
    assert!(living.private.exists() && !owner_is_dead(&world.run, living.process));
    assert_eq!(fs::read_dir(&world.run).unwrap().count(), 2, "the living owner's lock and directory");
}
