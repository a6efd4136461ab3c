//! What a person at a terminal sees while a run goes on: a few live lines on stderr, which the summary replaces.
//!
//! [`ProgressView`] is a pure model from events to lines; [`Live`] is the thin part that draws them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::{SignedDuration, Timestamp};
use unicode_width::UnicodeWidthStr;

use super::output::{self, Paint, Style};
use super::runs_show::place;
use super::summary::noun;
use super::time;
use crate::stderr::Picture;
use crate::workflow::action::{Class, Failure};
use crate::workflow::definition::ForEach;
use crate::workflow::event::{AttemptOutcome, Event, Fact};
use crate::workflow::id::{StepName, Subject, TargetName};
use crate::workflow::run::RunState;
use crate::workflow::status::MachineStatus;

/// Where an attempt is made: whose (`None` for a run-wide step), which step, on what.
type Place = (Option<Subject>, StepName, TargetName);

/// What is known of a run that goes on. Fed with every event, after it was applied to the state.
#[derive(Clone, Debug)]
pub struct ProgressView {
    prefix: String,
    workflow: String,
    kind: ForEach,
    /// How many attempts each step may make in a session.
    tries: BTreeMap<StepName, u32>,
    started_at: Timestamp,
    tally: BTreeMap<MachineStatus, u32>,
    places: BTreeMap<Place, Doing>,
}

/// How it stands somewhere that is worth a line.
#[derive(Clone, Debug)]
enum Doing {
    /// An attempt goes on.
    Trying { number: u32, since: Timestamp },
    /// The attempt failed; there will be another.
    Waiting { number: u32, since: Timestamp, until: Option<Timestamp> },
    /// It is over, and not well.
    Over { how: Bad, since: Timestamp },
}

#[derive(Clone, Debug)]
enum Bad {
    NeedsHuman,
    TimedOut,
    Failed(String),
    Stale,
}

/// Lines for subjects in trouble or long at work, at most.
const LINES: usize = 8;

/// Work is worth a line from then on.
const LONG: SignedDuration = SignedDuration::from_secs(3);

/// Columns of the bar.
const BAR: usize = 39;

impl ProgressView {
    /// For one session of a run, which begins now.
    pub fn of(state: &RunState, prefix: String, now: Timestamp) -> Self {
        Self {
            prefix,
            workflow: state.run.workflow.to_string(),
            kind: state.run.for_each,
            tries: BTreeMap::new(),
            started_at: now,
            tally: state.run.tally.clone(),
            places: BTreeMap::new(),
        }
    }

    /// The same, knowing how many attempts each step may make in the session: `attempt 2 of 4`.
    pub fn with_tries(mut self, tries: BTreeMap<StepName, u32>) -> Self {
        self.tries = tries;
        self
    }

    /// Takes in one more event; `state` is the run's state after it.
    pub fn update(&mut self, event: &Event, state: &RunState) {
        self.tally.clone_from(&state.run.tally);
        match &event.fact {
            Fact::AttemptStarted { subject, step, target, number } => {
                let doing = Doing::Trying { number: *number, since: event.at };
                self.places.insert((subject.clone(), step.clone(), target.clone()), doing);
            }
            Fact::AttemptEnded { subject, step, target, outcome, retry } => {
                let place = (subject.clone(), step.clone(), target.clone());
                match self.after(&place, event.at, outcome, *retry) {
                    Some(doing) => self.places.insert(place, doing),
                    None => self.places.remove(&place),
                };
            }
            Fact::MachineEnded { subject, .. }
            | Fact::MachineSkipped { subject, .. }
            | Fact::MachineGone { subject }
            | Fact::MachineSuperseded { subject, .. } => {
                // What is over stays, so that a failure is seen until the end.
                self.places.retain(|(whose, _, _), doing| {
                    whose.as_ref() != Some(subject) || matches!(doing, Doing::Over { .. })
                });
            }
            Fact::SessionEnded { .. } => self.places.retain(|_, doing| matches!(doing, Doing::Over { .. })),
            Fact::RunCreated(_)
            | Fact::SessionStarted(_)
            | Fact::MachineStarted { .. }
            | Fact::StepStarted { .. }
            | Fact::StepSkipped { .. }
            | Fact::StepNotAttempted { .. }
            | Fact::StepCut { .. }
            | Fact::TargetGone { .. }
            | Fact::RunCancelled
            | Fact::RunSuperseded { .. } => {}
        }
    }

    /// The next attempt there begins at that time.
    pub fn next_try(&mut self, subject: Option<&Subject>, step: &StepName, target: &TargetName, at: Timestamp) {
        if let Some(Doing::Waiting { until, .. }) =
            self.places.get_mut(&(subject.cloned(), step.clone(), target.clone()))
        {
            *until = Some(at);
        }
    }

    fn after(&self, place: &Place, at: Timestamp, outcome: &AttemptOutcome, retry: bool) -> Option<Doing> {
        let over = |how| Some(Doing::Over { how, since: at });
        match outcome {
            AttemptOutcome::Succeeded(_) | AttemptOutcome::Interrupted => None,
            AttemptOutcome::Stale { .. } => over(Bad::Stale),
            AttemptOutcome::Failed(_) if retry => {
                let number = match self.places.get(place) {
                    Some(Doing::Trying { number, .. } | Doing::Waiting { number, .. }) => *number,
                    Some(Doing::Over { .. }) | None => 1,
                };
                Some(Doing::Waiting { number, since: at, until: None })
            }
            AttemptOutcome::Failed(Failure { class, message, .. }) => match class {
                Class::NeedsHuman => over(Bad::NeedsHuman),
                Class::Timeout => over(Bad::TimedOut),
                Class::Transient | Class::Permanent => over(Bad::Failed(message.clone())),
            },
        }
    }

    /// The lines to show now, none wider than the style allows.
    pub fn lines(&self, now: Timestamp, style: &Style) -> Vec<String> {
        let count =
            |statuses: &[MachineStatus]| -> u32 { statuses.iter().filter_map(|status| self.tally.get(status)).sum() };
        let total: u32 = self.tally.values().sum();
        let took = time::duration(time::between(self.started_at, now));
        let head = format!("{} {}   {total} {}   {took}", self.workflow, self.prefix, noun(self.kind, total));

        let failed = count(&[MachineStatus::Failed, MachineStatus::TimedOut]);
        let running = count(&[MachineStatus::Running]);
        let open = running + count(&[MachineStatus::Pending, MachineStatus::Interrupted]);
        let counts = format!("  done {}  failed {failed}  running {running}   ", count(&[MachineStatus::Succeeded]));
        let room = style.width.saturating_sub(counts.width() + 1).min(BAR);
        let full = match total {
            0 => 0,
            total => room * (total.saturating_sub(open)) as usize / total as usize,
        };
        let bar = format!("{}{}", style.paint(Paint::Good, &"█".repeat(full)), "░".repeat(room - full));

        let mut lines = vec![output::fit(&head, style.width), format!("{counts}{bar}")];
        lines.extend(self.subjects(now, style));
        lines
    }

    /// One line for each subject in trouble, worst first, then for those longest at work.
    fn subjects(&self, now: Timestamp, style: &Style) -> Vec<String> {
        let mut worst: BTreeMap<Option<&Subject>, (&Place, &Doing)> = BTreeMap::new();
        for (place, doing) in self.places.iter().filter(|(_, doing)| doing.is_worth_a_line(now)) {
            let entry = worst.entry(place.0.as_ref()).or_insert((place, doing));
            if doing.rank() < entry.1.rank() {
                *entry = (place, doing);
            }
        }
        let mut chosen: Vec<(&Place, &Doing)> = worst.into_values().collect();
        chosen.sort_by_key(|(_, doing)| doing.rank());
        let hidden = chosen.len().saturating_sub(LINES);
        if hidden > 0 {
            chosen.truncate(LINES - 1);
        }
        let texts: Vec<(String, String, String, Paint)> = chosen
            .iter()
            .map(|((subject, step, target), doing)| {
                let who = subject.as_ref().map_or("whole run", Subject::as_str);
                let text = doing.text(now, self.tries.get(step).copied());
                (output::fit(who, 40), output::fit(&place(step, Some(target)), 60), text, doing.paint())
            })
            .collect();
        let widest = |of: fn(&(String, String, String, Paint)) -> usize| texts.iter().map(of).max().unwrap_or(0);
        let (who_width, place_width) = (widest(|text| text.0.width()), widest(|text| text.1.width()));
        let mut lines: Vec<String> = texts
            .iter()
            .map(|(who, place, text, paint)| {
                let gap = |text: &str, width: usize| " ".repeat(width - text.width() + 3);
                let front = format!("  {who}{}{place}{}", gap(who, who_width), gap(place, place_width));
                let room = style.width.saturating_sub(front.width());
                match room {
                    0 => output::fit(&front, style.width),
                    room => front + &style.paint(*paint, &output::fit(text, room)),
                }
            })
            .collect();
        if hidden > 0 {
            lines.push(format!("  … and {} more", hidden + 1));
        }
        lines
    }
}

impl Doing {
    /// Worst first; among equals the oldest.
    fn rank(&self) -> (u8, Timestamp) {
        match self {
            Self::Over { how: Bad::NeedsHuman, since } => (0, *since),
            Self::Over { how: Bad::Failed(_) | Bad::TimedOut, since } => (1, *since),
            Self::Waiting { since, .. } => (2, *since),
            Self::Trying { number: 2.., since } => (2, *since),
            Self::Over { how: Bad::Stale, since } => (3, *since),
            Self::Trying { number: 0..=1, since } => (4, *since),
        }
    }

    fn is_worth_a_line(&self, now: Timestamp) -> bool {
        match self {
            Self::Over { .. } | Self::Waiting { .. } | Self::Trying { number: 2.., .. } => true,
            Self::Trying { number: 0..=1, since } => now.duration_since(*since) >= LONG,
        }
    }

    fn text(&self, now: Timestamp, tries: Option<u32>) -> String {
        let of = |number: u32| match tries {
            Some(tries) => format!("attempt {number} of {tries}"),
            None => format!("attempt {number}"),
        };
        let whole = |from, to| time::between(from, to).as_secs();
        match self {
            Self::Over { how: Bad::NeedsHuman, .. } => "needs a person".to_owned(),
            Self::Over { how: Bad::TimedOut, .. } => "timed out".to_owned(),
            Self::Over { how: Bad::Failed(message), .. } => format!("failed: {message}"),
            Self::Over { how: Bad::Stale, .. } => "failed, an older product stands in".to_owned(),
            Self::Waiting { number, until: Some(until), .. } => {
                format!("{} failed, next try in {}s", of(*number), whole(now, *until))
            }
            Self::Waiting { number, until: None, .. } => format!("{} failed, to be tried again", of(*number)),
            Self::Trying { number: number @ 2.., .. } => of(*number),
            Self::Trying { number: 0..=1, since } => format!("for {}s", whole(*since, now)),
        }
    }

    fn paint(&self) -> Paint {
        match self {
            Self::Over { how: Bad::NeedsHuman | Bad::Failed(_), .. } => Paint::Bad,
            Self::Over { how: Bad::TimedOut | Bad::Stale, .. } | Self::Waiting { .. } => Paint::Warn,
            Self::Trying { number: 2.., .. } => Paint::Warn,
            Self::Trying { number: 0..=1, .. } => Paint::Busy,
        }
    }
}

/// Draws a [`ProgressView`] on stderr, at most ten times a second. Only for a terminal.
///
/// The view is shared with whoever feeds it, and never locked while something is drawn.
#[derive(Debug)]
pub struct Live {
    view: Arc<Mutex<ProgressView>>,
    bar: ProgressBar,
    style: Style,
    drawn_at: Option<Timestamp>,
}

/// The shortest time between two drawings.
const FRAME: SignedDuration = SignedDuration::from_millis(100);

/// A view that is shared. Nobody waits long for it: it is only fed and read.
pub fn lock(view: &Mutex<ProgressView>) -> MutexGuard<'_, ProgressView> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    /// To be drawn on stderr.
    pub fn new(view: Arc<Mutex<ProgressView>>, style: Style) -> Self {
        Self::on(ProgressDrawTarget::stderr_with_hz(10), view, style)
    }

    fn on(target: ProgressDrawTarget, view: Arc<Mutex<ProgressView>>, style: Style) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(ProgressStyle::with_template("{msg}").expect("the template is constant and has one known key"));
        Self { view, bar, style, drawn_at: None }
    }

    fn draw_at(&mut self, now: Timestamp) {
        let is_due = self.drawn_at.is_none_or(|last| now.duration_since(last).abs() >= FRAME);
        if is_due {
            self.drawn_at = Some(now);
            let lines = lock(&self.view).lines(now, &self.style);
            self.bar.set_message(lines.join("\n"));
            self.bar.tick();
        }
    }
}

impl Picture for Live {
    fn draw(&mut self) {
        self.draw_at(Timestamp::now());
    }

    fn aside(&mut self, write: &mut dyn FnMut()) {
        self.bar.suspend(write);
    }

    fn clear(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests;
