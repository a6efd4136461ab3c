use std::io;
use std::sync::{Arc, Mutex};

use indicatif::TermLike;

use super::*;
use crate::cli::samples::{at, healthy_services, machine, refused, state, subject, waiting};
use crate::workflow::action::Success;
use crate::workflow::code::Code;
use crate::workflow::event::MachineEnd;
use crate::workflow::status::RunStatus;

/// A terminal that remembers what stands on it. Like a real one it goes to the next row only when a character does not
/// fit any more: indicatif relies on that.
#[derive(Clone, Debug, Default)]
struct Screen(Arc<Mutex<Grid>>);

#[derive(Debug, Default)]
struct Grid {
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

const COLUMNS: usize = 100;

impl Grid {
    fn put(&mut self, c: char) {
        if c == '\r' {
            self.column = 0;
            return;
        }
        if self.column == COLUMNS {
            (self.row, self.column) = (self.row + 1, 0);
        }
        self.rows.resize(self.rows.len().max(self.row + 1), vec![' '; COLUMNS]);
        self.rows[self.row][self.column] = c;
        self.column += 1;
    }
}

impl Screen {
    fn contents(&self) -> String {
        let grid = self.0.lock().unwrap();
        let rows = grid.rows.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned());
        rows.collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }

    fn change(&self, change: impl FnOnce(&mut Grid)) -> io::Result<()> {
        change(&mut self.0.lock().unwrap());
        Ok(())
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        COLUMNS.try_into().unwrap()
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.change(|grid| grid.row = grid.row.saturating_sub(n))
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.change(|grid| grid.row += n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.change(|grid| grid.column = (grid.column + n).min(COLUMNS))
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.change(|grid| grid.column = grid.column.saturating_sub(n))
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)?;
        self.change(|grid| (grid.row, grid.column) = (grid.row + 1, 0))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.change(|grid| text.chars().for_each(|c| grid.put(c)))
    }

    fn clear_line(&self) -> io::Result<()> {
        self.change(|grid| {
            grid.column = 0;
            if let Some(row) = grid.rows.get_mut(grid.row) {
                row.fill(' ');
            }
        })
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

const PLAIN: Style = Style { colour: false, width: 100 };

/// A run of 50: 41 done, one failed, 8 at work.
fn at_work() -> RunState {
    let mut machines = healthy_services(41);
    machines.push(machine("zzz_failed", MachineStatus::Failed, vec![]));
    machines.extend((0..8).map(|n| machine(&format!("work{n}_production"), MachineStatus::Running, vec![])));
    state(RunStatus::Running, None, machines)
}

fn begin(state: &RunState) -> ProgressView {
    let tries = BTreeMap::from([(StepName::new("push"), 4), (StepName::new("kinit"), 3)]);
    ProgressView::of(state, "01k4q8vt".to_owned(), at(0)).with_tries(tries)
}

fn event(milliseconds: i64, fact: Fact) -> Event {
    Event { seq: 1, at: at(milliseconds), session: 1, fact }
}

fn started(milliseconds: i64, who: &str, step: &str, target: &str, number: u32) -> Event {
    let (step, target) = (StepName::new(step), TargetName::new(target));
    event(milliseconds, Fact::AttemptStarted { subject: Some(subject(who)), step, target, number })
}

fn ended(milliseconds: i64, who: &str, step: &str, target: &str, outcome: AttemptOutcome, retry: bool) -> Event {
    let (step, target) = (StepName::new(step), TargetName::new(target));
    event(milliseconds, Fact::AttemptEnded { subject: Some(subject(who)), step, target, outcome, retry })
}

fn human() -> AttemptOutcome {
    AttemptOutcome::Failed(Failure::new(Class::NeedsHuman, Code(31), "no refresh token"))
}

/// What an attempt meets: a person is needed, a refusal is tried again, one node works for long.
fn feed(view: &mut ProgressView, state: &RunState) {
    let node = "mu2e03.fnal.gov";
    for event in [
        started(20, "slow_production", "store-in-credd", "schedd1", 1),
        started(30, "mu2e_production", "push", "mu2e01.fnal.gov", 1),
        started(40, "mu2e_production", "push", node, 1),
        ended(50, "mu2e_production", "push", "mu2e01.fnal.gov", AttemptOutcome::Succeeded(Success::default()), false),
        ended(900, "mu2e_production", "push", node, AttemptOutcome::Failed(refused(node)), true),
        started(2_900, "mu2e_production", "push", node, 2),
        ended(3_000, "mu2e_production", "push", node, AttemptOutcome::Failed(refused(node)), true),
        started(3_900, "nova_production", "get-vault-token", "-", 1),
        ended(4_000, "nova_production", "get-vault-token", "-", human(), false),
    ] {
        view.update(&event, state);
    }
    view.next_try(Some(&subject("mu2e_production")), &StepName::new("push"), &TargetName::new(node), at(7_900));
}

#[test]
fn trouble_comes_first_then_long_work() {
    let state = at_work();
    let mut view = begin(&state);
    feed(&mut view, &state);
    insta::assert_snapshot!(view.lines(at(5_000), &PLAIN).join("\n"));
}

#[test]
fn time_alone_changes_the_lines() {
    let state = at_work();
    let mut view = begin(&state);
    feed(&mut view, &state);
    let line =
        |milliseconds| view.lines(at(milliseconds), &PLAIN).into_iter().find(|line| line.contains("mu2e")).unwrap();
    assert!(line(5_000).ends_with("attempt 2 of 4 failed, next try in 2s"), "{}", line(5_000));
    assert!(line(7_000).ends_with("next try in 0s"), "{}", line(7_000));
    assert!(!view.lines(at(2_000), &PLAIN).join("").contains("slow_production"), "short work takes no line");
}

#[test]
fn a_machine_that_ended_leaves_only_its_failure() {
    let state = at_work();
    let mut view = begin(&state);
    feed(&mut view, &state);
    for who in ["mu2e_production", "nova_production", "slow_production"] {
        view.update(&event(6_000, Fact::MachineEnded { subject: subject(who), how: MachineEnd::Done }), &state);
    }
    let lines = view.lines(at(9_000), &PLAIN);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[2].contains("nova_production") && lines[2].contains("needs a person"), "{lines:?}");
}

#[test]
fn a_retry_that_succeeds_takes_its_line_away() {
    let state = at_work();
    let mut view = begin(&state);
    feed(&mut view, &state);
    let node = "mu2e03.fnal.gov";
    view.update(&started(7_900, "mu2e_production", "push", node, 3), &state);
    assert!(view.lines(at(8_000), &PLAIN).join("\n").contains("attempt 3 of 4"));
    let fine = AttemptOutcome::Succeeded(Success::default());
    view.update(&ended(8_100, "mu2e_production", "push", node, fine, false), &state);
    assert!(!view.lines(at(8_200), &PLAIN).join("\n").contains("mu2e"));
}

#[test]
fn fifty_services_in_trouble_take_eight_lines() {
    let state = at_work();
    let mut view = begin(&state);
    for number in 0..50 {
        let who = format!("exp{number:02}_production");
        view.update(&ended(i64::from(number), &who, "get-vault-token", "-", human(), false), &state);
    }
    let lines = view.lines(at(5_000), &PLAIN);
    assert_eq!(lines.len(), 2 + LINES);
    assert_eq!(lines.last().unwrap(), "  … and 43 more");
}

#[test]
fn no_line_is_wider_than_the_terminal_or_carries_control_characters() {
    let mut state = at_work();
    state.machines.insert(subject("x"), waiting("x"));
    let mut view = begin(&state);
    feed(&mut view, &state);
    let evil = Failure::new(Class::Permanent, Code(40), format!("\x1b[2J{}\nnext", "z".repeat(500)));
    let who = format!("evil\x1b{}", "e".repeat(200));
    view.update(&ended(100, &who, "push", &"n".repeat(300), AttemptOutcome::Failed(evil), false), &state);
    for width in [40, 60, 80, 200] {
        for line in view.lines(at(5_000), &Style { colour: false, width }) {
            assert!(line.width() <= width, "{width}: {line}");
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }
}

fn shared(view: ProgressView) -> Arc<Mutex<ProgressView>> {
    Arc::new(Mutex::new(view))
}

fn on(term: &Screen, view: Arc<Mutex<ProgressView>>) -> Live {
    Live::on(ProgressDrawTarget::term_like(Box::new(term.clone())), view, PLAIN)
}

#[test]
fn the_lines_are_drawn_and_taken_away_again() {
    let state = at_work();
    let term = Screen::default();
    let mut view = begin(&state);
    feed(&mut view, &state);
    let mut live = on(&term, shared(view));
    live.draw_at(at(5_000));
    let shown = term.contents();
    assert!(shown.starts_with("token-push 01k4q8vt   50 services   5.0s\n  done 41  failed 1  running 8"), "{shown}");
    assert!(shown.contains("nova_production") && shown.contains("needs a person"), "{shown}");
    live.clear();
    assert_eq!(term.contents(), "");
}

#[test]
fn drawing_waits_for_the_next_frame() {
    let state = at_work();
    let term = Screen::default();
    let view = shared(begin(&state));
    let mut live = on(&term, view.clone());
    live.draw_at(at(5_000));
    lock(&view).update(&ended(5_010, "nova_production", "kinit", "-", human(), false), &state);
    live.draw_at(at(5_010));
    assert!(!term.contents().contains("nova_production"));
    live.draw_at(at(5_100));
    assert!(term.contents().contains("nova_production"));
}

#[test]
fn what_is_said_meanwhile_stands_above_the_lines() {
    let state = at_work();
    let term = Screen::default();
    let mut live = on(&term, shared(begin(&state)));
    live.draw_at(at(5_000));
    let lines = term.contents();
    for said in ["WARN one", "WARN two"] {
        live.aside(&mut || term.write_line(said).unwrap());
    }
    assert_eq!(term.contents(), format!("WARN one\nWARN two\n{lines}"));
    live.clear();
    assert_eq!(term.contents(), "WARN one\nWARN two");
}
