//! What each signal does, at every step; `docs/reliability.md` has the same table.

use std::sync::Mutex;

use nix::sys::signal::Signal;

use super::LAB;
use super::case::{End, Shot, Step, play};
use super::held::Held;

/// A signal, and what becomes of the run.
struct Row {
    what: &'static str,
    does: &'static str,
    shot: Shot,
    status: &'static str,
    /// How the session ended, which is not in the documentation: one that could say so was not killed.
    session: &'static str,
    code: i32,
}

const ENDS: &str = "children are ended: SIGTERM to their groups, SIGKILL 2 s later";

const GOES_ON_UNREAD: &str = "nothing: the run goes on, and what nobody reads is lost";

const ROWS: &[Row] = &[
    Row {
        what: "SIGINT (`kill -INT`)",
        does: ENDS,
        shot: Shot::Sent(Signal::SIGINT),
        status: "interrupted",
        session: "interrupted",
        code: 130,
    },
    Row {
        what: "Ctrl-C on the terminal",
        does: ENDS,
        shot: Shot::CtrlC,
        status: "interrupted",
        session: "interrupted",
        code: 130,
    },
    Row {
        what: "a second SIGINT or SIGTERM, a second or more after the first",
        does: "everything is killed at once",
        shot: Shot::CtrlCTwice,
        status: "interrupted",
        session: "lost",
        code: 130,
    },
    Row {
        what: "SIGTERM",
        does: ENDS,
        shot: Shot::Sent(Signal::SIGTERM),
        status: "interrupted",
        session: "interrupted",
        code: 143,
    },
    Row {
        what: "SIGHUP",
        does: ENDS,
        shot: Shot::Sent(Signal::SIGHUP),
        status: "interrupted",
        session: "interrupted",
        code: 143,
    },
    Row {
        what: "SIGHUP under `nohup`",
        does: "nothing: the run goes on",
        shot: Shot::Ignored(Signal::SIGHUP),
        status: "succeeded",
        session: "finished",
        code: 0,
    },
    Row {
        what: "SIGINT of a script that has started it in the background (`mt run … &`)",
        does: "nothing: the run goes on",
        shot: Shot::Ignored(Signal::SIGINT),
        status: "succeeded",
        session: "finished",
        code: 0,
    },
    Row {
        what: "the terminal is closed",
        does: ENDS,
        shot: Shot::TerminalClosed,
        status: "interrupted",
        session: "interrupted",
        code: 143,
    },
    Row {
        what: "SIGQUIT",
        does: "everything is killed at once",
        shot: Shot::Sent(Signal::SIGQUIT),
        status: "interrupted",
        session: "lost",
        code: 131,
    },
    Row {
        what: "SIGPIPE",
        does: "nothing: the run goes on",
        shot: Shot::Both(Signal::SIGPIPE),
        status: "succeeded",
        session: "finished",
        code: 0,
    },
    Row {
        what: "whoever reads its output goes away",
        does: "nothing: the run goes on",
        shot: Shot::ReaderGone,
        status: "succeeded",
        session: "finished",
        code: 0,
    },
    Row {
        what: "whoever reads its output stops reading",
        does: GOES_ON_UNREAD,
        shot: Shot::ReaderStopped,
        status: "succeeded",
        session: "finished",
        code: 0,
    },
    Row {
        what: "its terminal is stopped (Ctrl-S)",
        does: GOES_ON_UNREAD,
        shot: Shot::ScreenStopped,
        status: "succeeded",
        session: "finished",
        code: 0,
    },
    Row {
        what: "it writes to the terminal from the background, after `stty tostop`",
        does: "nothing: the run goes on, and writes",
        shot: Shot::Background,
        status: "succeeded",
        session: "finished",
        code: 0,
    },
    Row {
        what: "`kill -9` of the worker",
        does: "its guardian ends the children and removes the private files",
        shot: Shot::KillWorker,
        status: "interrupted",
        session: "lost",
        code: 137,
    },
    Row {
        what: "`kill -9` of the guardian",
        does: "the worker ends as after SIGTERM",
        shot: Shot::KillGuardian,
        status: "interrupted",
        session: "interrupted",
        code: 137,
    },
    Row {
        what: "`kill -9` of both",
        does: "the next start ends the children and removes the private files",
        shot: Shot::KillBoth,
        status: "interrupted",
        session: "lost",
        code: 137,
    },
];

const fn step(workflow: &'static str, name: &'static str, program: &'static str, calls: usize) -> Step {
    Step { name, workflow, held: Held::Program(program, calls) }
}

/// A step of a site's own, for every node.
const OWN: Step = step("own", "second", "second", 2);
/// The steps of token-push.
const TOKEN_PUSH: [Step; 6] = [
    step("token-push", "kinit", "kinit", 1),
    step("token-push", "get-vault-token", "htgettoken", 1),
    step("token-push", "store-in-credd", "condor_vault_storer", 2),
    step("token-push", "ping", "ping", 2),
    step("token-push", "push", "rsync", 2),
    Step { name: "notify", workflow: "token-push", held: Held::MailServer },
];
/// The steps of ferry-refresh, but for those that have been tried (notify) and the one that waits for nobody (verify-uids).
const FERRY_REFRESH: [Step; 2] = [
    step("ferry-refresh", "fetch-uid", "kinit", 1),
    Step { name: "store-uid", workflow: "ferry-refresh", held: Held::Turn },
];

/// A run that is shot at. Deaf children have to be killed.
struct Case {
    row: &'static Row,
    step: Step,
    deaf: bool,
}

impl Case {
    fn expected(&self) -> End {
        // Where there is something to tell people, something has failed.
        let (code, status) = match (self.row.status, self.step.held) {
            ("succeeded", Held::MailServer) => (11, "failed"),
            (status, _) => (self.row.code, status),
        };
        End { code, status: status.to_owned(), session: self.row.session.to_owned() }
    }
}

/// Plays all cases, some at once, and names every one that went wrong.
fn play_all(cases: Vec<Case>) {
    let Some(lab) = &*LAB else { return };
    let (left, wrong) = (Mutex::new(cases), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let Some(case) = left.lock().unwrap().pop() else { return };
                    let played = std::panic::catch_unwind(|| play(lab, case.step, case.row.shot, case.deaf));
                    if played.as_ref().ok() != Some(&case.expected()) {
                        let end = played.map_or("it failed, see above".to_owned(), |end| format!("{end:?}"));
                        wrong.lock().unwrap().push(format!("{} at {}: {end}", case.row.what, case.step.name));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is tried at every step; the other rows do not depend on the step.
fn depends_on_the_step(shot: Shot) -> bool {
    match shot {
        Shot::Sent(signal) => signal != Signal::SIGQUIT,
        Shot::Both(_) | Shot::TerminalClosed | Shot::CtrlCTwice | Shot::KillWorker | Shot::KillBoth => true,
        Shot::CtrlC
        | Shot::Ignored(_)
        | Shot::ReaderGone
        | Shot::ReaderStopped
        | Shot::ScreenStopped
        | Shot::Background
        | Shot::KillGuardian => false,
    }
}

#[test]
fn every_signal_ends_all_children_and_what_was_cut_off_can_be_resumed() {
    play_all(ROWS.iter().map(|row| Case { row, step: OWN, deaf: false }).collect());
}

#[test]
fn every_signal_at_every_step_ends_all_children_and_what_was_cut_off_can_be_resumed() {
    let rows = || ROWS.iter().filter(|row| depends_on_the_step(row.shot));
    let steps = TOKEN_PUSH.into_iter().chain(FERRY_REFRESH);
    play_all(steps.flat_map(|step| rows().map(move |row| Case { row, step, deaf: false })).collect());
}

#[test]
fn children_that_are_deaf_to_sigterm_are_killed_after_their_grace() {
    let rows = ROWS.iter().filter(|row| matches!(row.shot, Shot::Sent(Signal::SIGTERM) | Shot::KillGuardian));
    play_all(rows.map(|row| Case { row, step: OWN, deaf: true }).collect());
}

// ---------------------------------------------------------------- the documentation

const BEGIN: &str =
    "<!-- made from the table in tests/signals: UPDATE_DOCS=1 cargo test --test signals documentation -->\n";
const END: &str = "<!-- end of the signals -->\n";
const HEAD: &str = "\n| what comes | what mt does | the run is | exit |\n|---|---|---|---|\n";

#[test]
fn the_documentation_of_the_signals_is_the_table_that_is_tested() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reliability.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (head, rest) = text.split_once(BEGIN).expect("the page has the table");
    let (_, tail) = rest.split_once(END).expect("the table has an end");
    let line = |row: &Row| format!("| {} | {} | {} | {} |\n", row.what, row.does, row.status, row.code);
    let table = HEAD.to_owned() + &ROWS.iter().map(line).collect::<String>() + "\n";
    let right = [head, BEGIN, &table, END, tail].concat();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return std::fs::write(path, &right).unwrap();
    }
    assert!(
        text == right,
        "{path} is not what the tests say: run `UPDATE_DOCS=1 cargo test --test signals documentation`"
    );
}
