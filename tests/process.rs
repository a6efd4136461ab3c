//! What `process::run` promises, with real children.

use std::path::Path;
use std::time::Duration;

use managed_tokens::process::{Command, Exit, MARK, PROGRAM_MISSING, RunError, run, set_mark};
use managed_tokens::workflow::id::ProcessId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_util::sync::CancellationToken;

fn sh(script: &str) -> Command {
    Command::new("sh").args(["-c", script]).env("PATH", "/usr/bin:/bin")
}

fn never() -> CancellationToken {
    CancellationToken::new()
}

/// Looks until it is so. The limit is for a broken promise only.
async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..20_000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never happened: {what}");
}

fn pid_in(file: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(file).ok()?;
    text.strip_suffix('\n')?.parse().ok().map(Pid::from_raw)
}

/// Gone, or dead and not yet collected by init.
fn is_dead(pid: Pid) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

#[tokio::test]
async fn a_child_sees_only_the_environment_it_was_given_and_the_mark() {
    let process = ProcessId::generate();
    set_mark(process);
    let done = run(Command::new("/usr/bin/env").env("A", "b").env(MARK, "forged"), &never()).await.unwrap();
    assert!(done.success());
    assert_eq!(String::from_utf8(done.stdout).unwrap(), format!("A=b\n{MARK}={process}\n"));
}

#[tokio::test]
async fn a_child_works_in_its_directory_reads_nothing_and_leads_its_group() {
    let script = "pwd; wc -c; ps -o pid=,pgid= -p $$ | awk '{ print ($1 == $2) ? \"leads\" : \"follows\" }'";
    let done = run(sh(script), &never()).await.unwrap();
    assert_eq!(done.output, "/\n0\nleads\n");
    let done = run(sh("pwd").directory("/usr"), &never()).await.unwrap();
    assert_eq!(done.output, "/usr\n");
}

#[tokio::test]
async fn an_exit_code_and_a_signal_are_told_apart() {
    assert_eq!(run(sh("exit 9"), &never()).await.unwrap().exit, Exit::Code(9));
    assert_eq!(run(sh("kill -9 $$"), &never()).await.unwrap().exit, Exit::Signal(9));
}

#[tokio::test]
async fn stdout_is_for_parsers_and_the_output_for_people() {
    let token = "hvs.CAESIJ0aBcDd12345678901234567890";
    // Whichever stream is read first, no line ends in what could go on in the next.
    let done = run(sh(&format!("echo '{token} '; echo 'lost {token} there' >&2")), &never()).await.unwrap();
    assert_eq!(done.stdout, format!("{token} \n").into_bytes());
    let mut lines: Vec<_> = done.output.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["[redacted] ", "lost [redacted] there"]);
}

/// What other tests take meanwhile would count too: this one is a process of its own.
const ALONE: &str = "MT_TEST_ALONE";

#[tokio::test]
async fn a_flood_of_a_gigabyte_is_read_to_its_end_in_bounded_memory() {
    if std::env::var_os(ALONE).is_none() {
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        alone.args(["--exact", "a_flood_of_a_gigabyte_is_read_to_its_end_in_bounded_memory"]).env(ALONE, "1");
        let done = alone.output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let before = resident_kib();
    let done = run(sh("head -c 1G /dev/zero; echo ' the end'"), &never()).await.unwrap();
    assert!(done.success());
    assert_eq!(done.stdout.len(), 64 * 1024);
    assert!(done.output.ends_with(" the end\n") && done.output.len() <= 8 * 1024);
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 20 * 1024, "{grown} KiB more than before");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_missing_program_is_an_error_that_says_what_is_missing() {
    let error = run(Command::new("htgettoken").env("PATH", "/nowhere"), &never()).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot start htgettoken: no such program in /nowhere");
    assert_eq!(error.code(), Some(PROGRAM_MISSING));
    let error = run(sh("true").directory("/nowhere"), &never()).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot start sh: its working directory /nowhere does not exist");

    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let error = run(Command::new(&script), &never()).await.unwrap_err();
    assert!(error.to_string().contains("is there, but not the interpreter"), "{error}");
}

#[tokio::test]
async fn a_cancelled_child_may_end_properly_and_its_last_words_are_kept() {
    let cancel = CancellationToken::new();
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    // More than a pipe holds: somebody reads, so the start is over. What is cancelled before that has no words.
    let script = format!(
        "trap 'echo goodbye; exit 0' TERM; yes | head -n 100000; echo $$ > {}; while :; do sleep 0.01; done",
        ready.display()
    );
    let running = tokio::spawn({
        let cancel = cancel.clone();
        async move { run(sh(&script), &cancel).await }
    });
    eventually("the trap is set", || pid_in(&ready)).await;
    cancel.cancel();
    match running.await.unwrap() {
        Err(RunError::Cancelled { output, .. }) => assert!(output.contains("goodbye\n"), "{output}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_child_that_ignores_sigterm_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    let cancel = CancellationToken::new();
    let script = format!("trap '' TERM; echo $$ > {}; while :; do sleep 1; done", ready.display());
    let running = tokio::spawn({
        let cancel = cancel.clone();
        async move { run(sh(&script), &cancel).await }
    });
    let pid = eventually("it ignores the signal", || pid_in(&ready)).await;
    cancel.cancel();
    assert!(matches!(running.await.unwrap(), Err(RunError::Cancelled { .. })));
    assert!(is_dead(pid));
}

#[tokio::test]
async fn a_stopped_child_is_ended_too() {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    let cancel = CancellationToken::new();
    let script = format!("echo $$ > {}; kill -STOP $$", ready.display());
    let running = tokio::spawn({
        let cancel = cancel.clone();
        async move { run(sh(&script), &cancel).await }
    });
    let pid = eventually("it started", || pid_in(&ready)).await;
    eventually("it stopped", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.contains(") T ").then_some(())
    })
    .await;
    cancel.cancel();
    assert!(matches!(running.await.unwrap(), Err(RunError::Cancelled { .. })));
    assert!(is_dead(pid));
}

#[tokio::test]
async fn nothing_is_started_when_it_is_cancelled_already() {
    let cancel = CancellationToken::new();
    cancel.cancel();
    // Starting it would be an error of another kind.
    let result = run(Command::new("/no/such/program"), &cancel).await;
    assert!(matches!(result, Err(RunError::Cancelled { .. })));
}

#[tokio::test]
async fn a_grandchild_that_holds_the_pipe_does_not_keep_us_and_is_gone() {
    let done = run(sh("sleep 1000 & echo $!"), &never()).await.unwrap();
    assert!(done.success());
    let pid = Pid::from_raw(done.output.trim().parse().unwrap());
    assert!(is_dead(pid));
}

#[tokio::test]
async fn a_grandchild_that_closed_its_pipes_is_gone_too() {
    let done = run(sh("sleep 1000 </dev/null >/dev/null 2>&1 & echo $!"), &never()).await.unwrap();
    let pid = Pid::from_raw(done.output.trim().parse().unwrap());
    assert!(is_dead(pid));
}

#[tokio::test]
async fn who_left_the_group_and_holds_the_pipe_does_not_keep_us() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let (there, daemon) = (file.display(), "echo $$ > $0; exec sleep 1000");
    let script = format!("setsid --fork sh -c '{daemon}' {there}; until [ -s {there} ]; do sleep 0.01; done");
    let done = run(sh(&script), &never()).await.unwrap();
    assert!(done.success());
    let pid = pid_in(&file).unwrap();
    kill(pid, Signal::SIGKILL).expect("it lives on: ending it is the guardian's work");
}

#[tokio::test]
async fn a_child_that_closes_its_pipes_and_lives_on_is_waited_for() {
    let done = run(sh("exec >&- 2>&-; sleep 0.1; exit 5"), &never()).await.unwrap();
    assert_eq!(done.exit, Exit::Code(5));
}

#[tokio::test]
async fn giving_up_the_future_kills_the_whole_group() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let script = format!("sleep 1000 & echo $! > {}; echo $$ > {}; wait", first.display(), second.display());
    let running = tokio::spawn(async move { run(sh(&script), &never()).await });
    let child = eventually("the child started", || pid_in(&second)).await;
    let grandchild = eventually("the grandchild started", || pid_in(&first)).await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    eventually("both are gone", || (is_dead(child) && is_dead(grandchild)).then_some(())).await;
}
