//! What did not work, why, and what to do about it: one block for each cause.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::super::output::{self, Paint, Viewer, wrap};
use super::super::time;
use super::{RunView, ShowOptions, name_some, place};
use crate::workflow::action::{Class, Failure};
use crate::workflow::definition::Mode;
use crate::workflow::event::AttemptOutcome;
use crate::workflow::id::{StepName, Subject, TargetName};
use crate::workflow::run::{AttemptRecord, RunState, StepState};
use crate::workflow::status::{RunStatus, StepStatus};

/// One target that did not do what it is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// Whose; `None` for a run-wide step.
    pub subject: Option<Subject>,
    /// Which step.
    pub step: StepName,
    /// On what; `None` if the step failed before it had targets.
    pub target: Option<TargetName>,
    /// How it stands: always one that [`StepStatus::is_failure`].
    pub status: StepStatus,
    /// Every try, in order.
    pub attempts: Vec<AttemptRecord>,
    /// What the step says of itself.
    pub why: Option<String>,
}

impl Trouble {
    /// The failures of its tries, in order.
    pub fn failures(&self) -> impl DoubleEndedIterator<Item = &Failure> {
        self.attempts.iter().filter_map(failure)
    }

    /// What went wrong first.
    pub fn first(&self) -> Option<&Failure> {
        self.failures().next()
    }

    /// What went wrong last: that is what stands.
    pub fn last(&self) -> Option<&Failure> {
        self.failures().next_back()
    }

    /// Its subject, or `whole run`.
    pub fn who(&self) -> &str {
        self.subject.as_ref().map_or("whole run", Subject::as_str)
    }

    /// Its step, and its target where the step fans out.
    pub fn place(&self) -> String {
        place(&self.step, self.target.as_ref())
    }

    /// How it stands, as people say it.
    pub fn verdict(&self) -> &'static str {
        match self.status {
            StepStatus::NeedsHuman => "needs a person",
            StepStatus::TimedOut => "timed out",
            StepStatus::Stale => "stale",
            StepStatus::Failed
            | StepStatus::Pending
            | StepStatus::Running
            | StepStatus::Succeeded
            | StepStatus::NotAttempted
            | StepStatus::Skipped
            | StepStatus::Gone => "failed",
        }
    }

    /// `4 attempts in 5.8s`, `6 attempts in 2 sessions`; `None` where there was none.
    fn effort(&self) -> Option<String> {
        let (first, last) = (self.attempts.first()?, self.attempts.last()?);
        let count = match self.attempts.len() {
            1 => "1 attempt".to_owned(),
            count => format!("{count} attempts"),
        };
        let mut sessions: Vec<u32> = self.attempts.iter().map(|attempt| attempt.session).collect();
        sessions.dedup();
        Some(match (sessions.len(), last.ended_at) {
            (1, Some(end)) => format!("{count} in {}", time::duration(time::between(first.started_at, end))),
            (1, None) => count,
            (sessions, _) => format!("{count} in {sessions} sessions"),
        })
    }

    /// The same for troubles with the same cause: the words of the failure without the names of subject and target.
    fn cause(&self) -> (StepName, StepStatus, Option<(u16, Class, String)>) {
        let failure = self.last().map(|failure| {
            let mut message = failure.message.clone();
            // The target first: a node's name may hold the subject's.
            for name in [self.target.as_ref().map(TargetName::as_str), self.subject.as_ref().map(Subject::as_str)] {
                if let Some(name) = name.filter(|name| name.len() > 1) {
                    message = message.replace(name, "…");
                }
            }
            (failure.code.0, failure.class, message)
        });
        (self.step.clone(), self.status, failure)
    }
}

/// What was wrong with a try, if anything was.
pub(super) fn failure(attempt: &AttemptRecord) -> Option<&Failure> {
    match &attempt.result {
        Some(AttemptOutcome::Failed(failure) | AttemptOutcome::Stale { failure, .. }) => Some(failure),
        Some(AttemptOutcome::Succeeded(_) | AttemptOutcome::Interrupted) | None => None,
    }
}

/// Every trouble of the run: machines and steps in order, the run-wide steps last.
pub(super) fn all(state: &RunState) -> Vec<Trouble> {
    let machines =
        state.machines.values().flat_map(|machine| machine.steps.iter().map(|step| (Some(&machine.subject), step)));
    let run_wide = state.run.steps.iter().map(|step| (None, step));
    machines.chain(run_wide).flat_map(|(subject, step)| of_step(subject, step)).collect()
}

fn of_step(subject: Option<&Subject>, step: &StepState) -> Vec<Trouble> {
    let trouble = |target, status, attempts: &[AttemptRecord]| Trouble {
        subject: subject.cloned(),
        step: step.name.clone(),
        target,
        status,
        attempts: attempts.to_vec(),
        why: step.why.clone(),
    };
    let failed = step.targets.iter().filter(|target| target.status.is_failure());
    let troubles: Vec<Trouble> =
        failed.map(|target| trouble(Some(target.name.clone()), target.status, &target.attempts)).collect();
    if troubles.is_empty() && step.status.is_failure() {
        return vec![trouble(None, step.status, &[])];
    }
    troubles
}

/// So many with one cause are each told in full; of more, the first is, and the others are named.
const SAME_CAUSE: usize = 3;

/// Lines shown of a child's output, and of a message.
const LINES: usize = 5;

pub(super) fn render(view: &RunView, state: &RunState, options: &ShowOptions, viewer: &Viewer) -> Vec<String> {
    let troubles: Vec<Trouble> = all(state)
        .into_iter()
        .filter(|trouble| trouble.subject.as_ref().map_or(options.service.is_none(), |subject| options.shows(subject)))
        .collect();
    let causes: Vec<_> = troubles.iter().map(Trouble::cause).collect();
    let mut same: BTreeMap<_, Vec<&Trouble>> = BTreeMap::new();
    for (trouble, cause) in troubles.iter().zip(&causes) {
        same.entry(cause).or_default().push(trouble);
    }
    let mut blocks = Vec::new();
    for (trouble, cause) in troubles.iter().zip(&causes) {
        match same.get(cause).map(Vec::as_slice) {
            Some([first, others @ ..]) if !options.all && others.len() >= SAME_CAUSE => {
                if std::ptr::eq(*first, trouble) {
                    blocks.push(block(trouble, others, view, state, viewer));
                }
            }
            Some(_) | None => blocks.push(block(trouble, &[], view, state, viewer)),
        }
    }
    blocks
}

/// `the same on 12 more: dune04, dune05 and 10 more (--all tells each)`.
fn also(first: &Trouble, others: &[&Trouble]) -> String {
    let of_one = others.iter().all(|other| other.subject == first.subject);
    let names: Vec<String> = others
        .iter()
        .map(|other| match (&other.target, of_one) {
            (Some(target), true) => target.to_string(),
            (Some(target), false) if !target.is_only() => format!("{} → {target}", other.who()),
            (Some(_) | None, _) => other.who().to_owned(),
        })
        .collect();
    format!(
        "the same {} {} more: {} (--all tells each)",
        if of_one { "on" } else { "for" },
        names.len(),
        name_some(names.iter().map(String::as_str), 6)
    )
}

/// One trouble in full, and the names of those with the same cause.
fn block(trouble: &Trouble, others: &[&Trouble], view: &RunView, state: &RunState, viewer: &Viewer) -> String {
    let style = &viewer.style;
    let mut text = heading(trouble, viewer);
    let mut put = |indent: usize, paint: Paint, line: &str| {
        text.push_str(&format!("{:indent$}{}\n", "", style.paint(paint, line)));
    };
    let mut message = |label: &str, message: &str| {
        for line in wrap(&format!("{label}{message}"), style.after(2), LINES) {
            put(2, Paint::Plain, &line);
        }
    };
    match (trouble.first(), trouble.last()) {
        (Some(first), Some(last)) if first.message != last.message => {
            message("first: ", &first.message);
            message("last:  ", &last.message);
        }
        (_, Some(last)) => message("", &last.message),
        (_, None) => message("", trouble.why.as_deref().unwrap_or("no attempt was made")),
    }
    if let Some(last) = trouble.last() {
        for line in tail(last) {
            put(4, Paint::Faint, &output::fit(&line, style.after(4).min(MOST_COLUMNS)));
        }
    }
    if let Some(note) = stand_in(trouble) {
        let what = match state.run.mode {
            Mode::Normal | Mode::OnboardPush => "pushed",
            Mode::Test | Mode::Onboard => "used",
        };
        put(2, Paint::Plain, &output::fit(&format!("{what} instead: {note}"), style.after(2)));
    }
    if let Some(failing) = view.failing(trouble).filter(|failing| failing.runs > 1) {
        let since = viewer.clock.minute(failing.since);
        put(2, Paint::Warn, &format!("failing for {} runs, since {since}", failing.runs));
    }
    if !others.is_empty() {
        for line in wrap(&also(trouble, others), style.after(2), LINES) {
            put(2, Paint::Plain, &line);
        }
    }
    if let Some(next) = next(trouble, view, state) {
        // Not wrapped: a command must be copied whole.
        put(2, Paint::Strong, &format!("next: {}", output::clean(&next)));
    }
    text
}

/// The longest line of a child that is shown.
const MOST_COLUMNS: usize = 400;

/// `mu2e_production  push → mu2e03.fnal.gov   failed, 4 attempts in 5.8s, transient   [MT0042]`.
fn heading(trouble: &Trouble, viewer: &Viewer) -> String {
    let class = trouble.last().map(|failure| failure.class).filter(|class| match class {
        Class::Transient | Class::Permanent => true,
        // The verdict says these.
        Class::NeedsHuman | Class::Timeout => false,
    });
    // How often it was tried tells nothing to the person who is needed.
    let effort = trouble.effort().filter(|_| trouble.status != StepStatus::NeedsHuman);
    let verdict: Vec<String> =
        [Some(trouble.verdict().to_owned()), effort, class.map(|class| class.as_str().to_owned())]
            .into_iter()
            .flatten()
            .collect();
    let code = trouble.last().map(|failure| format!("   [{}]", failure.code)).unwrap_or_default();
    let (who, place) = (output::clean(trouble.who()).into_owned(), output::clean(&trouble.place()).into_owned());
    format!(
        "{}  {place}   {}{code}\n",
        viewer.style.paint(Paint::Strong, &who),
        viewer.style.paint(paint(trouble.status), &verdict.join(", "))
    )
}

pub(super) fn paint(status: StepStatus) -> Paint {
    match status {
        StepStatus::Succeeded => Paint::Good,
        StepStatus::Running => Paint::Busy,
        StepStatus::Stale | StepStatus::TimedOut => Paint::Warn,
        StepStatus::Failed | StepStatus::NeedsHuman => Paint::Bad,
        StepStatus::Pending | StepStatus::NotAttempted | StepStatus::Skipped | StepStatus::Gone => Paint::Faint,
    }
}

/// The last lines of what the child said, but not those that the message repeats. A line that was written over (a
/// progress bar) counts as what it said at the end.
fn tail(failure: &Failure) -> Vec<String> {
    let Some(output) = &failure.output else { return Vec::new() };
    let said = output.lines().map(|line| {
        let line = line.trim_end();
        line.rsplit('\r').next().unwrap_or(line).replace('\t', "    ")
    });
    let lines: Vec<String> =
        said.filter(|line| !line.trim().is_empty() && line.trim() != failure.message.trim()).collect();
    lines[lines.len().saturating_sub(LINES)..].to_vec()
}

/// What an older product that stands in says of itself.
fn stand_in(trouble: &Trouble) -> Option<&str> {
    match &trouble.attempts.last()?.result {
        Some(AttemptOutcome::Stale { success, .. }) => success.note.as_deref(),
        Some(AttemptOutcome::Succeeded(_) | AttemptOutcome::Failed(_) | AttemptOutcome::Interrupted) | None => None,
    }
}

/// What to do. An advice that is itself a command of ours stands alone; after any other, the run can be taken up again.
fn next(trouble: &Trouble, view: &RunView, state: &RunState) -> Option<String> {
    let resume = match state.run.status {
        RunStatus::Partial | RunStatus::Failed | RunStatus::TimedOut | RunStatus::Interrupted => {
            Some(format!("mt runs resume {}", view.prefix))
        }
        RunStatus::Running
        | RunStatus::Succeeded
        | RunStatus::Cancelled
        | RunStatus::Superseded
        | RunStatus::Skipped => None,
    };
    let failure = trouble.last();
    match (failure.and_then(|failure| failure.next.as_deref()), resume) {
        (Some(advice), _) if advice.starts_with("mt ") => Some(advice.to_owned()),
        (Some(advice), Some(resume)) => Some(format!("{advice}; then  {resume}")),
        (Some(advice), None) => Some(advice.to_owned()),
        (None, Some(resume)) => match failure {
            Some(failure) => Some(format!("mt explain {}; then  {resume}", failure.code)),
            None => Some(resume),
        },
        (None, None) => failure.map(|failure| format!("mt explain {}", failure.code)),
    }
}

/// From the first start to the last end of the given tries; `None` if none began.
pub(super) fn span<'a>(attempts: impl Iterator<Item = &'a AttemptRecord>) -> Option<(Timestamp, Option<Timestamp>)> {
    attempts.fold(None, |span, attempt| match span {
        None => Some((attempt.started_at, attempt.ended_at)),
        Some((start, end)) => {
            // One that goes on has no last end.
            let end = end.zip(attempt.ended_at).map(|(a, b)| a.max(b));
            Some((start.min(attempt.started_at), end))
        }
    })
}
