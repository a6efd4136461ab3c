//! One step of one machine: its targets, their attempts, their retries.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, TryStreamExt};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::Instrument;

use crate::workflow::action::{Action, Attempt, AttemptResult, Class, Failure};
use crate::workflow::definition::{Per, Step};
use crate::workflow::event::{AttemptOutcome, Fact};
use crate::workflow::gate::{OLD_AFTER, Pass};
use crate::workflow::id::{Subject, TargetName};
use crate::workflow::resume::{StepPlan, What};
use crate::workflow::retry::{pause, try_again};
use crate::workflow::status::StepStatus;

use super::over::{Over, Why};
use super::{DriveError, Session, codes};

/// A cancelled action has this long to end its children and return: 2 s from SIGTERM to SIGKILL, and a margin.
const GRACE: Duration = Duration::from_secs(4);

/// A stand-in is a look at local files: longer than this and there is none.
pub(crate) const STAND_IN_WITHIN: Duration = Duration::from_secs(5);

pub(super) fn fans_out(step: &Step) -> bool {
    match step.per {
        Per::Subject => false,
        Per::Credd | Per::Node => true,
    }
}

/// What all attempts of one step of one machine share.
struct Work<'a> {
    session: &'a Session,
    over: &'a Over,
    subject: Option<&'a Subject>,
    step: &'a Step,
    action: Arc<dyn Action>,
}

pub(super) async fn run(
    session: &Session,
    over: &Over,
    subject: Option<&Subject>,
    step: &Step,
    plan: Option<&StepPlan>,
) -> Result<(), DriveError> {
    let span = tracing::info_span!("step", run = %session.run, step = %step.name);
    run_in_span(session, over, subject, step, plan).instrument(span).await
}

async fn run_in_span(
    session: &Session,
    over: &Over,
    subject: Option<&Subject>,
    step: &Step,
    plan: Option<&StepPlan>,
) -> Result<(), DriveError> {
    let action = session.actions.get(&step.name).ok_or_else(|| DriveError::NoAction(step.name.clone()))?.clone();
    let work = Work { session, over, subject, step, action };

    let (mut facts, targets) = match work.targets(plan).await {
        Some(Ok(found)) => found,
        Some(Err(failure)) => return work.without_targets(failure).await,
        None => return Ok(()),
    };
    if targets.is_empty() && work.is_pending() && work.known_targets().is_empty() {
        // Such as a service without credds: it has not succeeded at anything.
        let why = "there is nothing for it to work on".to_owned();
        let fact = Fact::StepSkipped { subject: subject.cloned(), step: step.name.clone(), why };
        return Ok(session.recorder.record(vec![fact]).await?);
    }
    facts.push(Fact::StepStarted { subject: subject.cloned(), step: step.name.clone(), targets: targets.clone() });
    session.recorder.record(facts).await?;

    let attempts: FuturesUnordered<_> =
        targets.iter().map(|target| work.target(target).instrument(tracing::info_span!("target", %target))).collect();
    attempts.try_collect::<()>().await?;

    let unfinished = over.why() == Some(Why::Deadline) && work.is_running();
    if unfinished {
        let fact = Fact::StepCut { subject: subject.cloned(), step: step.name.clone() };
        session.recorder.record(vec![fact]).await?;
    }
    Ok(())
}

impl Work<'_> {
    /// What is gone, and what is worked on. `None`: the session is over.
    async fn targets(&self, plan: Option<&StepPlan>) -> Option<Result<(Vec<Fact>, Vec<TargetName>), Failure>> {
        if !fans_out(self.step) {
            return Some(Ok((Vec::new(), vec![TargetName::only()])));
        }
        let listed = plan.filter(|p| p.listed).map(|p| p.targets.as_slice()).unwrap_or_default();
        // `-`: an earlier session could not learn the targets.
        let recorded: Vec<TargetName> =
            listed.iter().filter(|t| t.what != What::Gone && !t.name.is_only()).map(|t| t.name.clone()).collect();
        let attempt = self.attempt(TargetName::only(), 1);
        let found = tokio::select! {
            found = self.action.targets(&attempt, &recorded) => found,
            () = sleep(self.step.timeout) => Err(self.timed_out(None)),
            () = self.over.wait() => return None,
        };
        let found = match found {
            Ok(found) => found,
            Err(failure) if recorded.is_empty() => return Some(Err(failure)),
            Err(failure) => {
                let why = &failure.message;
                tracing::warn!(code = %failure.code, "the targets are those of the session before: {why}");
                recorded.clone()
            }
        };
        let is_gone = |name: &TargetName, what: What| what == What::Gone || !found.contains(name);
        let known = self.known_targets();
        let mut gone: Vec<&TargetName> = listed.iter().filter(|t| is_gone(&t.name, t.what)).map(|t| &t.name).collect();
        gone.extend(known.iter().filter(|t| t.is_only()));
        let facts = gone.into_iter().filter(|t| known.contains(t)).map(|target| Fact::TargetGone {
            subject: self.subject.cloned(),
            step: self.step.name.clone(),
            target: target.clone(),
        });
        let facts = facts.collect();
        let work = if listed.is_empty() {
            found
        } else {
            // Targets that are new since the list was recorded wait for the next run.
            let redo = listed.iter().filter(|t| t.what == What::Redo && found.contains(&t.name));
            redo.map(|t| t.name.clone()).collect()
        };
        Some(Ok((facts, work)))
    }

    /// The step fails as a whole: it does not even know its targets.
    async fn without_targets(&self, failure: Failure) -> Result<(), DriveError> {
        let (subject, step, target) = (self.subject.cloned(), self.step.name.clone(), TargetName::only());
        let started = Fact::StepStarted { subject: subject.clone(), step: step.clone(), targets: vec![target.clone()] };
        let mut facts = vec![started];
        facts.extend(self.ended_at_once(&target, 1, failure));
        Ok(self.session.recorder.record(facts).await?)
    }

    /// Works on one target until it has an outcome, or the session is over.
    async fn target(&self, target: &TargetName) -> Result<(), DriveError> {
        let gate = &self.session.gates[&self.step.name];
        let mut number = 1;
        loop {
            let pass = tokio::select! {
                biased;
                () = self.over.wait() => return Ok(()),
                pass = gate.enter(target) => pass,
            };
            let Ok(pass) = pass else {
                let message =
                    format!("{target} timed out {} times in this run", crate::workflow::gate::TIMEOUTS_IN_A_ROW);
                let failure = Failure { last: true, ..Failure::new(Class::Timeout, codes::TARGET_CLOSED, message) };
                self.session.recorder.record(self.ended_at_once(target, number, failure)).await?;
                return Ok(());
            };
            self.session.recorder.record(vec![self.started(target, number)]).await?;
            let attempt = self.attempt(target.clone(), number);
            let span = tracing::info_span!("attempt", number);
            let result = self.watch(&attempt, &pass).instrument(span).await;
            drop(pass);
            let timed_out = matches!(&result, Some(Err(f)) if f.class == Class::Timeout);
            gate.note(target, timed_out && self.over.why().is_none());

            let retry = match &result {
                Some(Err(failure)) => try_again(self.step.retry, number, failure) && self.over.why().is_none(),
                Some(Ok(_)) | None => false,
            };
            let outcome = match result {
                None => AttemptOutcome::Interrupted,
                Some(Ok(success)) => AttemptOutcome::Succeeded(success),
                Some(Err(failure)) if retry => AttemptOutcome::Failed(failure),
                Some(Err(failure)) => self.or_stand_in(&attempt, failure).await,
            };
            let ended = Fact::AttemptEnded {
                subject: self.subject.cloned(),
                step: self.step.name.clone(),
                target: target.clone(),
                outcome,
                retry,
            };
            self.session.recorder.record(vec![ended]).await?;
            if !retry {
                return Ok(());
            }
            tokio::select! {
                () = self.over.wait() => return Ok(()),
                () = sleep(pause(self.step.retry, number, rand::random())) => {}
            }
            number += 1;
        }
    }

    /// Watches one attempt: its time, the session's end, its age at the gate, and a panic. `None`: interrupted.
    async fn watch(&self, attempt: &Attempt, pass: &Pass) -> Option<AttemptResult> {
        let started = Instant::now();
        let mut work = std::pin::pin!(AssertUnwindSafe(self.action.attempt(attempt)).catch_unwind());
        let (mut timed_out, mut old) = (false, false);
        let mut give_up: Option<Instant> = None;
        let result = loop {
            tokio::select! {
                biased;
                result = &mut work => break Some(result),
                () = sleep_until(give_up.unwrap_or(started)), if give_up.is_some() => break None,
                () = attempt.cancel.cancelled(), if give_up.is_none() => give_up = Some(Instant::now() + GRACE),
                () = sleep_until(started + attempt.timeout), if !timed_out => {
                    timed_out = true;
                    attempt.cancel.cancel();
                }
                () = sleep_until(started + OLD_AFTER), if !old => {
                    old = true;
                    pass.grow_old();
                }
            }
        };
        let failure = match result {
            Some(Ok(Ok(success))) => return Some(Ok(success)),
            Some(Ok(Err(failure))) => Some(failure),
            Some(Err(_panic)) => {
                let message = format!("defect: the action of step {} panicked", self.step.name);
                return Some(Err(Failure::new(Class::Permanent, codes::PANIC, message)));
            }
            None => None,
        };
        if timed_out {
            return Some(Err(self.timed_out(failure)));
        }
        match (self.over.why(), failure) {
            (Some(Why::Stopped), _) => None,
            (Some(Why::Deadline), failure) => {
                let took = started.elapsed().as_secs_f64();
                let message = format!("the run's deadline struck after {took:.1}s of this attempt");
                let output = failure.and_then(|f| f.output);
                Some(Err(Failure { output, ..Failure::new(Class::Timeout, codes::DEADLINE, message) }))
            }
            (None, Some(failure)) => Some(Err(failure)),
            (None, None) => Some(Err(self.timed_out(None))),
        }
    }

    fn timed_out(&self, failure: Option<Failure>) -> Failure {
        // The action knows who did not answer, and what to do about it.
        if let Some(failure) = failure.as_ref().filter(|failure| failure.class == Class::Timeout) {
            return failure.clone();
        }
        let message = format!("no answer within {}", show(self.step.timeout));
        let (output, next) = failure.map(|f| (f.output, f.next)).unwrap_or_default();
        Failure { output, next, ..Failure::new(Class::Timeout, codes::ATTEMPT_TIMED_OUT, message) }
    }

    async fn or_stand_in(&self, attempt: &Attempt, failure: Failure) -> AttemptOutcome {
        if !failure.class.is_retried() || self.over.why().is_some() {
            return AttemptOutcome::Failed(failure);
        }
        let attempt = Attempt { cancel: self.over.child(), ..attempt.clone() };
        let found = tokio::select! {
            found = self.action.stand_in(&attempt, &failure) => found,
            () = sleep(STAND_IN_WITHIN) => None,
            () = self.over.wait() => None,
        };
        match found {
            Some(success) => AttemptOutcome::Stale { success, failure },
            None => AttemptOutcome::Failed(failure),
        }
    }

    fn attempt(&self, target: TargetName, number: u32) -> Attempt {
        Attempt {
            run: self.session.run,
            session: self.session.number,
            subject: self.subject.cloned(),
            step: self.step.name.clone(),
            target,
            mode: self.session.recorder.with(|s| s.run.mode),
            number,
            timeout: self.step.timeout,
            cancel: self.over.child(),
        }
    }

    fn started(&self, target: &TargetName, number: u32) -> Fact {
        Fact::AttemptStarted {
            subject: self.subject.cloned(),
            step: self.step.name.clone(),
            target: target.clone(),
            number,
        }
    }

    fn ended_at_once(&self, target: &TargetName, number: u32, failure: Failure) -> Vec<Fact> {
        let ended = Fact::AttemptEnded {
            subject: self.subject.cloned(),
            step: self.step.name.clone(),
            target: target.clone(),
            outcome: AttemptOutcome::Failed(failure),
            retry: false,
        };
        vec![self.started(target, number), ended]
    }

    fn state<T>(&self, read: impl FnOnce(&crate::workflow::run::StepState) -> T) -> Option<T> {
        self.session.recorder.with(|state| {
            let steps = match self.subject {
                None => &state.run.steps,
                Some(subject) => &state.machines.get(subject)?.steps,
            };
            steps.iter().find(|s| s.name == self.step.name).map(read)
        })
    }

    fn known_targets(&self) -> Vec<TargetName> {
        self.state(|s| s.targets.iter().map(|t| t.name.clone()).collect()).unwrap_or_default()
    }

    fn is_running(&self) -> bool {
        self.state(|s| s.status) == Some(StepStatus::Running)
    }

    fn is_pending(&self) -> bool {
        self.state(|s| s.status) == Some(StepStatus::Pending)
    }
}

fn show(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{:.1}s", duration.as_secs_f64())
    }
}
