//! Onboarding on a real terminal: htgettoken talks to the person, and nobody else does.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::process::{Child, Command};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use support::corner::{Corner, Ended, step, wait_for};
use support::lab::Lab;
use support::terminal;

mod support;

const DUNE: &str = "dune_production";
const ONBOARD: [&str; 5] = ["run", "token-push", "--onboard", "-s", DUNE];

/// The shared laboratory, whose vault has no refresh token for dunepro any more: a person has to authenticate. It goes
/// down with the test process, which a watcher outside sees to.
static LAB: LazyLock<Option<Mutex<Lab>>> = LazyLock::new(|| {
    let lab = Lab::up()?;
    lab.fault("vault", "norefresh dunepro");
    Some(Mutex::new(lab))
});

/// The laboratory for one test at a time: all of them log in as the same principal, which in life one person does.
fn lab() -> Option<MutexGuard<'static, Lab>> {
    // A test that failed has left it usable.
    Some(LAB.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A login that the vault turned down is not what these tests are about: then its own reason is told, and not what
/// followed from it.
#[track_caller]
fn every_login_was_accepted(lab: &Lab, ended: &Ended) {
    assert_eq!(lab.refused_logins(), [""; 0], "{ended:?}");
}

/// What a program finds: its streams, its own group, and the group that the terminal listens to.
const LOOK: &str = r#"for n in 0 1 2; do [ -t $n ] && printf 'stream %s is a terminal\n' $n; done
    printf 'group %s of %s\n' $(ps -o pgid=,tpgid= -p $$)"#;

/// `mt` in the foreground of a terminal of its own, as a shell starts it.
struct OnTerminal {
    mt: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl OnTerminal {
    fn start(corner: &Corner<'_>, words: &[&str]) -> Self {
        Self::start_command(corner.mt(words))
    }

    fn start_command(command: Command) -> Self {
        let (mt, keyboard) = terminal::spawn(command);
        let screen: Arc<Mutex<String>> = Arc::default();
        let (mut seen, shown) = (keyboard.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut piece = [0; 4_096];
            // A terminal that nobody has open any more is an error on Linux.
            while let Ok(count @ 1..) = seen.read(&mut piece) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..count]));
            }
        });
        Self { mt, keyboard, screen }
    }

    fn shows(&self, text: &str) -> bool {
        self.screen.lock().unwrap().contains(text)
    }

    fn end(mut self) -> Ended {
        let status = self.mt.wait().unwrap();
        // The thread ends when everybody has closed the terminal.
        wait_for("the end of what it says", || Arc::strong_count(&self.screen) == 1);
        Ended { code: status.code(), out: self.screen.lock().unwrap().clone(), err: String::new() }
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.mt.kill();
        let _ = self.mt.wait();
    }
}

#[test]
fn a_person_reads_and_answers_htgettoken_on_the_terminal() {
    let Some(lab) = lab() else { return };
    let corner = Corner::new(&lab, "person");
    // The question is ours, since the laboratory has no browser login; what follows is the real htgettoken.
    corner.spy("htgettoken", &format!("{LOOK}\nprintf 'who? '; read answer; echo \"hello $answer\""));
    let mut onboarding = OnTerminal::start(&corner, &ONBOARD);
    wait_for("the question", || onboarding.shows("who? "));
    onboarding.keyboard.write_all(b"operator\n").unwrap();
    let ended = onboarding.end();
    every_login_was_accepted(&lab, &ended);
    let ended = ended.exits(11);
    for stream in 0..3 {
        assert!(ended.out.contains(&format!("stream {stream} is a terminal")), "{ended:?}");
    }
    let group = ended.out.split("group ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let (own, foreground) = group.split_once(" of ").unwrap_or_default();
    assert!(!own.is_empty() && own == foreground, "in the foreground: {ended:?}");
    assert!(ended.out.contains("hello operator"), "{ended:?}");
    assert!(ended.out.contains("Attempting OIDC authentication"), "htgettoken's own words: {ended:?}");
    let calls = corner.calls("htgettoken");
    assert!(calls.len() == 1 && !calls[0].contains("--nooidc"), "asked once: {calls:?}");
    let run = corner.show("latest");
    assert_eq!(step(&run, DUNE, "get-vault-token")["status"], "needs-human");
    assert_eq!(corner.private_files(), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn the_old_name_hands_the_terminal_over_just_the_same_and_pushes_only_with_p() {
    let Some(lab) = lab() else { return };
    let corner = Corner::new(&lab, "old-name");
    symlink(lab.path("bin/mt"), corner.path("bin/token-push")).unwrap();
    corner.spy("htgettoken", "printf 'open this page: '; read answer; echo \"hello $answer\"");
    for words in [&["-r", "-s", DUNE][..], &["--run-onboarding", "--service", DUNE, "--push-tokens", "--test"]] {
        let mut onboarding = OnTerminal::start_command(corner.called("token-push", words));
        wait_for("the question", || onboarding.shows("open this page: "));
        onboarding.keyboard.write_all(b"operator\n").unwrap();
        let ended = onboarding.end();
        every_login_was_accepted(&lab, &ended);
        let ended = ended.exits(11);
        assert!(ended.out.contains("hello operator") && ended.out.contains("Attempting OIDC"), "{words:?}: {ended:?}");
        assert!(corner.calls("htgettoken").iter().all(|call| !call.contains("--nooidc")));
        let run = corner.show("latest");
        assert_eq!(step(&run, DUNE, "get-vault-token")["status"], "needs-human");
        let mode = if words.contains(&"--push-tokens") { "onboard-push" } else { "onboard" };
        assert_eq!(run["mode"], mode, "{words:?}");
    }
    let refused = OnTerminal::start_command(corner.called("token-push", &["-r"])).end().exits(2);
    assert!(refused.out.contains("service"), "for exactly one service: {refused:?}");
}

#[test]
fn ctrl_c_ends_an_onboarding_with_130_and_gives_the_terminal_back() {
    let Some(lab) = lab() else { return };
    let corner = Corner::new(&lab, "ctrl-c");
    corner.spy("htgettoken", "echo 'open this page'; sleep 1000");
    let mut onboarding = OnTerminal::start(&corner, &ONBOARD);
    wait_for("the tool's words", || onboarding.shows("open this page"));
    onboarding.keyboard.write_all(b"\x03").unwrap();
    let ended = onboarding.end().exits(130);
    assert_eq!(corner.processes(), [""; 0], "{ended:?}");
    assert_eq!(corner.private_files(), [""; 0].map(std::path::PathBuf::from));
    assert_eq!(corner.runs()[0]["status"], "interrupted");
}

#[test]
fn a_run_that_is_no_onboarding_gives_the_terminal_to_nobody() {
    let Some(lab) = lab() else { return };
    let corner = Corner::new(&lab, "nobody");
    let seen = corner.path("calls/seen");
    // The substitution's own streams are others; `$$` is the program.
    let look = "for n in 0 1 2; do readlink /proc/$$/fd/$n; done; echo group $(ps -o pgid= -o tpgid= -p $$)";
    corner.spy("htgettoken", &format!("seen=$({look}); echo \"$seen\" >{}", seen.display()));
    let ended = OnTerminal::start(&corner, &["run", "token-push", "-s", DUNE]).end();
    every_login_was_accepted(&lab, &ended);
    let ended = ended.exits(11);
    let seen = std::fs::read_to_string(seen).unwrap();
    assert!(seen.contains("/dev/null") && !seen.contains("pts"), "{seen}");
    let group: Vec<_> = seen.split("group ").nth(1).unwrap().split_whitespace().collect();
    assert_ne!(group[0], group[1], "in the background: {seen}");
    assert!(!ended.out.contains("OIDC"), "{ended:?}");
    assert!(corner.calls("htgettoken").iter().all(|call| call.contains("--nooidc")));
    assert_eq!(step(&corner.show("latest"), DUNE, "get-vault-token")["status"], "needs-human");
}

#[test]
fn an_onboarding_without_a_terminal_starts_nothing_that_would_wait_for_a_person() {
    let Some(lab) = lab() else { return };
    let corner = Corner::new(&lab, "no-terminal");
    corner.spy("htgettoken", LOOK);
    let ended = corner.run(&ONBOARD);
    every_login_was_accepted(&lab, &ended);
    let ended = ended.exits(11);
    let said = format!("{}{}", ended.out, ended.err);
    assert!(!said.contains("is a terminal") && !said.contains("OIDC"), "{said}");
    assert_eq!(step(&corner.show("latest"), DUNE, "get-vault-token")["status"], "needs-human");
}
