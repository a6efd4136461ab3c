//! Consecutive errors across runs: should a person be told?
//!
//! A record changes when a machine ends, from the aggregate of all its sessions. It remembers the run that changed it
//! last and its value before that run, so that the same run, resumed and ended again, is counted once.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::definition::{CountsAs, Mode};
use super::event::PlannedStep;
use super::id::{RunId, Subject, TargetName};
use super::run::Machine;
use super::status::{MachineStatus, StepStatus};

/// Which counter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CounterKey {
    /// The subject.
    pub subject: Subject,
    /// The target for a push counter; `None` for the subject's setup counter.
    pub target: Option<TargetName>,
}

impl CounterKey {
    /// The key in the store's tree: names hold no NUL.
    pub fn as_key(&self) -> String {
        match &self.target {
            None => self.subject.to_string(),
            Some(target) => format!("{}\0{target}", self.subject),
        }
    }
}

/// One counter as kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Which it is.
    pub key: CounterKey,
    /// Errors in a row that nobody has been told of.
    pub value: u32,
    /// The run that changed it last.
    pub run: RunId,
    /// The value before that run.
    pub before: u32,
    /// The run whose report of it was accepted last.
    pub reported_by: Option<RunId>,
    /// When the present row of errors began.
    pub failing_since: Option<Timestamp>,
    /// Runs in the present row of errors, told or not.
    pub failing_runs: u32,
    /// Somebody has been told of the present row.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
    /// The run that ended a row that somebody had been told of; `None` again once its end is being told, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_by: Option<RunId>,
}

/// What a run says of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// At least one thing that counts failed.
    Failed,
    /// Something was tried and nothing failed.
    Succeeded,
    /// Nothing was tried, or it is gone or skipped.
    NotAttempted,
}

/// The counter after `run` has ended with `verdict`; `None` while there is nothing to keep.
pub fn count(
    record: Option<&Counter>,
    key: &CounterKey,
    run: RunId,
    verdict: Verdict,
    now: Timestamp,
) -> Option<Counter> {
    let Some(record) = record else {
        return match verdict {
            Verdict::NotAttempted | Verdict::Succeeded => None,
            Verdict::Failed => Some(Counter {
                key: key.clone(),
                value: 1,
                run,
                before: 0,
                reported_by: None,
                failing_since: Some(now),
                failing_runs: 1,
                told: false,
                recovered_by: None,
            }),
        };
    };
    if record.run > run || verdict == Verdict::NotAttempted {
        return Some(record.clone());
    }
    let again = record.run == run;
    let before = if again { record.before } else { record.value };
    let mut next = record.clone();
    next.run = run;
    next.before = before;
    match verdict {
        Verdict::NotAttempted => {}
        Verdict::Succeeded => {
            next.value = 0;
            next.failing_since = None;
            next.failing_runs = 0;
            if record.told {
                next.told = false;
                next.recovered_by = Some(run);
            }
        }
        // What this run has already reported it does not count again.
        Verdict::Failed if record.reported_by == Some(run) => {}
        Verdict::Failed => {
            next.value = before + 1;
            next.failing_since = record.failing_since.or(Some(now));
            if !again || record.failing_runs == 0 {
                next.failing_runs = record.failing_runs + 1;
            }
            // That it worked in between nobody has heard: for people it is still what they were told of.
            next.told = record.told || record.recovered_by.is_some();
            next.recovered_by = None;
        }
    }
    Some(next)
}

/// Is it time to tell somebody about this counter, in the report of `run`?
pub fn is_due(counter: &Counter, run: RunId, threshold: u32) -> bool {
    counter.run == run && counter.value > 0 && counter.value >= threshold && counter.reported_by != Some(run)
}

/// The counter after a channel has accepted a report of `value` errors, made by `run` of the row that began at `since`.
/// A report can be accepted runs later; of a row that is over by then nothing is left to subtract.
pub fn reported(counter: &Counter, run: RunId, value: u32, since: Option<Timestamp>) -> Counter {
    let mut next = counter.clone();
    if since.is_none() || counter.failing_since != since {
        return next;
    }
    next.value = counter.value.saturating_sub(value);
    if run < counter.run {
        // The value before the present run held it, too: that run may end once more.
        next.before = counter.before.saturating_sub(value);
    }
    next.reported_by = counter.reported_by.max(Some(run));
    next.told = true;
    next
}

/// The counter once the end of the row that it counted is being told.
pub fn recovery_told(counter: &Counter) -> Counter {
    Counter { recovered_by: None, ..counter.clone() }
}

/// Do runs of this mode count?
pub fn mode_counts(mode: Mode) -> bool {
    match mode {
        Mode::Normal => true,
        Mode::Test | Mode::Onboard | Mode::OnboardPush => false,
    }
}

/// What a machine that has ended says of its counters: one for its setup, one for each target of its push steps. A setup that
/// the run's deadline did not let begin has failed: who always is the last to have a turn gets no token, and people are told.
pub fn verdicts(machine: &Machine, plan: &[PlannedStep]) -> Vec<(CounterKey, Verdict)> {
    let mut setup = Verdict::NotAttempted;
    let mut push: BTreeMap<TargetName, Verdict> = BTreeMap::new();
    for step in &machine.steps {
        let Some(planned) = plan.iter().find(|p| p.name == step.name) else { continue };
        match planned.counts_as {
            CountsAs::Nothing => {}
            CountsAs::Setup => {
                setup = worse(setup, verdict(step.status));
                if machine.status == MachineStatus::TimedOut && step.status == StepStatus::NotAttempted {
                    // It is the deadline that came before. That the steps before it went well gives nobody a token.
                    setup = Verdict::Failed;
                }
                for target in &step.targets {
                    setup = worse(setup, verdict(target.status));
                }
            }
            CountsAs::Push => {
                for target in &step.targets {
                    let seen = push.entry(target.name.clone()).or_insert(Verdict::NotAttempted);
                    *seen = worse(*seen, verdict(target.status));
                }
            }
        }
    }
    let key = |target| CounterKey { subject: machine.subject.clone(), target };
    let push = push.into_iter().map(|(target, verdict)| (key(Some(target)), verdict));
    std::iter::once((key(None), setup)).chain(push).collect()
}

fn verdict(status: StepStatus) -> Verdict {
    match status {
        StepStatus::Stale | StepStatus::Failed | StepStatus::NeedsHuman | StepStatus::TimedOut => Verdict::Failed,
        StepStatus::Succeeded => Verdict::Succeeded,
        StepStatus::Pending
        | StepStatus::Running
        | StepStatus::NotAttempted
        | StepStatus::Skipped
        | StepStatus::Gone => Verdict::NotAttempted,
    }
}

fn worse(a: Verdict, b: Verdict) -> Verdict {
    match (a, b) {
        (Verdict::Failed, _) | (_, Verdict::Failed) => Verdict::Failed,
        (Verdict::Succeeded, _) | (_, Verdict::Succeeded) => Verdict::Succeeded,
        (Verdict::NotAttempted, Verdict::NotAttempted) => Verdict::NotAttempted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLD: u32 = 3;

    /// A counter over several runs: what each run says, and what it reports if it may.
    struct Row {
        counter: Option<Counter>,
        told: Vec<u32>,
    }

    impl Row {
        fn new() -> Self {
            Self { counter: None, told: Vec::new() }
        }

        fn ends(&mut self, run: RunId, verdict: Verdict, channel_works: bool) {
            let key = CounterKey { subject: Subject::new("dune_production"), target: None };
            self.counter = count(self.counter.as_ref(), &key, run, verdict, Timestamp::UNIX_EPOCH);
            if let Some(counter) = self.counter.clone()
                && is_due(&counter, run, THRESHOLD)
                && channel_works
            {
                self.told.push(counter.value);
                self.counter = Some(reported(&counter, run, counter.value, counter.failing_since));
            }
        }

        fn value(&self) -> u32 {
            self.counter.as_ref().map_or(0, |c| c.value)
        }
    }

    fn runs<const N: usize>() -> [RunId; N] {
        std::array::from_fn(|i| RunId(ulid::Ulid::from_parts(1_000 + i as u64, 1)))
    }

    #[test]
    fn three_failures_in_a_row_are_told_once_and_start_again_at_zero() {
        let mut row = Row::new();
        for run in runs::<3>() {
            row.ends(run, Verdict::Failed, true);
        }
        assert_eq!((row.told.as_slice(), row.value()), (&[3][..], 0));
    }

    #[test]
    fn a_success_in_between_sets_the_counter_to_zero_and_tells_nobody() {
        let mut row = Row::new();
        for (run, verdict) in
            runs::<4>().into_iter().zip([Verdict::Failed, Verdict::Failed, Verdict::Succeeded, Verdict::Failed])
        {
            row.ends(run, verdict, true);
        }
        assert_eq!((row.told.len(), row.value()), (0, 1));
    }

    #[test]
    fn a_report_that_could_not_be_sent_leaves_the_counter_and_comes_with_the_next_run() {
        let mut row = Row::new();
        for (i, run) in runs::<4>().into_iter().enumerate() {
            row.ends(run, Verdict::Failed, i == 3);
        }
        assert_eq!((row.told.as_slice(), row.value()), (&[4][..], 0));
    }

    #[test]
    fn a_run_that_did_not_try_changes_nothing() {
        let mut row = Row::new();
        let [a, b, c] = runs();
        row.ends(a, Verdict::Failed, true);
        row.ends(b, Verdict::NotAttempted, true);
        assert_eq!(row.value(), 1);
        row.ends(c, Verdict::Failed, true);
        assert_eq!(row.value(), 2);
    }

    #[test]
    fn the_same_run_ending_again_is_counted_once() {
        let mut row = Row::new();
        let [a, b] = runs();
        row.ends(a, Verdict::Failed, true);
        for _ in 0..3 {
            row.ends(b, Verdict::Failed, true);
        }
        assert_eq!(row.value(), 2);
        row.ends(b, Verdict::Succeeded, true);
        assert_eq!(row.value(), 0, "the resume mended it");
        row.ends(b, Verdict::Failed, true);
        assert_eq!(row.value(), 2, "and broke it again: counted from before the run");
    }

    #[test]
    fn an_older_run_that_ends_late_changes_nothing() {
        let mut row = Row::new();
        let [old, new] = runs();
        row.ends(new, Verdict::Failed, true);
        row.ends(old, Verdict::Succeeded, true);
        assert_eq!(row.value(), 1);
    }

    #[test]
    fn what_a_run_has_reported_it_neither_counts_nor_reports_again() {
        let mut row = Row::new();
        let [a, b, c, d] = runs();
        for run in [a, b, c] {
            row.ends(run, Verdict::Failed, true);
        }
        row.ends(c, Verdict::Failed, true);
        assert_eq!((row.told.len(), row.value()), (1, 0));
        row.ends(d, Verdict::Failed, true);
        assert_eq!((row.told.len(), row.value()), (1, 1));
    }

    #[test]
    fn a_report_accepted_late_is_subtracted_from_the_row_it_told_of_and_from_no_other() {
        let mut row = Row::new();
        let [a, b, c, d, e] = runs();
        for run in [a, b, c] {
            row.ends(run, Verdict::Failed, false);
        }
        let told = row.counter.clone().unwrap();
        let accept = |row: &mut Row| {
            row.counter = Some(reported(row.counter.as_ref().unwrap(), c, told.value, told.failing_since));
        };
        row.ends(d, Verdict::Failed, false);
        let mut late = Row { counter: row.counter.clone(), told: vec![] };
        accept(&mut late);
        assert_eq!(late.value(), 1, "four failures, three of them told");
        late.ends(d, Verdict::Failed, false);
        assert_eq!(late.value(), 1, "the run that ended once more is counted once");
        row.ends(d, Verdict::Succeeded, false);
        row.counter.as_mut().unwrap().failing_since = None;
        let key = told.key.clone();
        row.counter = count(row.counter.as_ref(), &key, e, Verdict::Failed, Timestamp::MAX);
        accept(&mut row);
        assert_eq!((row.value(), row.counter.unwrap().told), (1, false), "a new row, nobody knows of it");
    }

    #[test]
    fn the_end_of_a_row_that_was_told_is_told_once() {
        let recovered = |row: &Row| row.counter.as_ref().and_then(|c| c.recovered_by);
        let mut row = Row::new();
        let [a, b, c, d, e, f] = runs();
        row.ends(a, Verdict::Failed, true);
        row.ends(b, Verdict::Succeeded, true);
        assert_eq!(recovered(&row), None, "nobody knew that it had failed");
        for run in [b, c, d] {
            row.ends(run, Verdict::Failed, true);
        }
        row.ends(e, Verdict::Succeeded, true);
        assert_eq!(recovered(&row), Some(e));
        let mut unheard = Row { counter: row.counter.clone(), told: vec![] };
        unheard.ends(f, Verdict::Failed, true);
        assert_eq!((recovered(&unheard), unheard.counter.unwrap().told), (None, true), "for people it never worked");
        row.counter = row.counter.as_ref().map(recovery_told);
        row.ends(f, Verdict::Succeeded, true);
        assert_eq!(recovered(&row), None);
    }
}
