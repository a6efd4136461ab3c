//! What each signal does, at every step; `docs/reliability.md` has the same table.

use std::sync::Mutex;

use nix::sys::signal::{SigHandler, Signal};

use super::LAB;
use super::case::{End, Shot, Step, play};

/// A signal, and what becomes of the run.
struct Row {
    what: &'static str,
    does: &'static str,
    shot: Shot,
    status: &'static str,
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
        code: 130,
    },
    Row { what: "Ctrl-C on the terminal", does: ENDS, shot: Shot::CtrlC, status: "interrupted", code: 130 },
    Row {
        what: "a second SIGINT or SIGTERM, a second or more after the first",
        does: "everything is killed at once",
        shot: Shot::CtrlCTwice,
        status: "interrupted",
        code: 130,
    },
    Row { what: "SIGTERM", does: ENDS, shot: Shot::Sent(Signal::SIGTERM), status: "interrupted", code: 143 },
    Row { what: "SIGHUP", does: ENDS, shot: Shot::Sent(Signal::SIGHUP), status: "interrupted", code: 143 },
    Row {
        what: "SIGHUP under `nohup`",
        does: "nothing: the run goes on",
        shot: Shot::NoHangUp,
        status: "succeeded",
        code: 0,
    },
    Row { what: "the terminal is closed", does: ENDS, shot: Shot::TerminalClosed, status: "interrupted", code: 143 },
    Row {
        what: "SIGQUIT",
        does: "everything is killed at once",
        shot: Shot::Sent(Signal::SIGQUIT),
        status: "interrupted",
        code: 131,
    },
    Row {
        what: "SIGPIPE",
        does: "nothing: the run goes on",
        shot: Shot::Sent(Signal::SIGPIPE),
        status: "succeeded",
        code: 0,
    },
    Row {
        what: "whoever reads its output goes away",
        does: "nothing: the run goes on",
        shot: Shot::ReaderGone,
        status: "succeeded",
        code: 0,
    },
    Row {
        what: "whoever reads its output stops reading",
        does: GOES_ON_UNREAD,
        shot: Shot::ReaderStopped,
        status: "succeeded",
        code: 0,
    },
    Row {
        what: "its terminal is stopped (Ctrl-S)",
        does: GOES_ON_UNREAD,
        shot: Shot::ScreenStopped,
        status: "succeeded",
        code: 0,
    },
    Row {
        what: "it writes to the terminal from the background, after `stty tostop`",
        does: "nothing: the run goes on, and writes",
        shot: Shot::Background,
        status: "succeeded",
        code: 0,
    },
    Row {
        what: "`kill -9` of the worker",
        does: "its guardian ends the children and removes the private files",
        shot: Shot::KillWorker,
        status: "interrupted",
        code: 137,
    },
    Row {
        what: "`kill -9` of the guardian",
        does: "the worker ends as after SIGTERM",
        shot: Shot::KillGuardian,
        status: "interrupted",
        code: 137,
    },
    Row {
        what: "`kill -9` of both",
        does: "the next start ends the children and removes the private files",
        shot: Shot::KillBoth,
        status: "interrupted",
        code: 137,
    },
];

const fn own(name: &'static str, calls: usize) -> Step {
    Step { name, program: name, calls, shipped: false }
}

const fn shipped(name: &'static str, program: &'static str, calls: usize) -> Step {
    Step { name, program, calls, shipped: true }
}

/// Steps of a site's own: once, and for every node.
const OWN: [Step; 2] = [own("first", 1), own("second", 2)];
/// The steps of token-push.
const SHIPPED: [Step; 5] = [
    shipped("kinit", "kinit", 1),
    shipped("get-vault-token", "htgettoken", 1),
    shipped("store-in-credd", "condor_vault_storer", 2),
    shipped("ping", "ping", 2),
    shipped("push", "rsync", 2),
];

/// Plays all cases, some at once, and names every one that went wrong.
fn play_all(cases: Vec<(&'static Row, Step, bool)>) {
    let Some(lab) = &*LAB else { return };
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
        // A shell without job control makes what it starts in the background ignore two of them, nohup the third, and all
        // children inherit that.
        // SAFETY: the default action runs no code of ours.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }.unwrap();
    }
    let (left, wrong) = (Mutex::new(cases), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let Some((row, step, deaf)) = left.lock().unwrap().pop() else { return };
                    let played = std::panic::catch_unwind(|| play(lab, step, row.shot, deaf));
                    let expected = End { code: row.code, status: row.status.to_owned() };
                    if played.as_ref().ok() != Some(&expected) {
                        let end = played.map_or("it failed, see above".to_owned(), |end| format!("{end:?}"));
                        wrong.lock().unwrap().push(format!("{} at {}: {end}", row.what, step.name));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_signal_at_every_step_ends_all_children_and_what_was_cut_off_can_be_resumed() {
    play_all(ROWS.iter().flat_map(|row| OWN.map(|step| (row, step, row.shot == Shot::CtrlCTwice))).collect());
}

#[test]
fn the_steps_that_push_tokens_bear_signals_as_all_others_do() {
    // Each step a signal of its own: that they do not differ by the step is what the other test tries.
    let stopping = ROWS.iter().filter(|row| matches!(row.shot, Shot::CtrlC | Shot::Sent(Signal::SIGTERM)));
    let killing = ROWS.iter().filter(|row| matches!(row.shot, Shot::KillWorker | Shot::KillBoth));
    let rows: Vec<&Row> = stopping.chain(killing).collect();
    play_all(SHIPPED.into_iter().enumerate().map(|(n, step)| (rows[n % rows.len()], step, false)).collect());
}

#[test]
fn children_that_are_deaf_to_sigterm_are_killed_after_their_grace() {
    let rows = ROWS.iter().filter(|row| matches!(row.shot, Shot::Sent(Signal::SIGTERM) | Shot::KillGuardian));
    play_all(rows.map(|row| (row, OWN[1], true)).collect());
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
