//! Which credds there are: asked of the collector once per process for all services with the same constraint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::child::run_within;
use super::classify::{TooSlow, condor, not_run_within};
use super::codes::{COLLECTOR_UNREACHABLE, NO_CREDDS};
use super::world::World;
use crate::config::{CreddName, Credds, Service};
use crate::process::RunError;
use crate::workflow::action::{Class, Failure};

/// One collector answers in milliseconds; one that hangs must not eat the run's time.
const ASK_FOR: Duration = Duration::from_secs(10);
/// All of them together get this part of the step's time: a child that hears no SIGTERM takes 2 s more, and there must be
/// time left to say what is wrong, or to go on with the credds of an earlier session.
const SHARE: u32 = 2;
/// So much of an answer that is none is in a message.
const MOST_SHOWN: usize = 80;

/// The credds of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Sorted, each once.
    pub credds: Vec<CreddName>,
    /// The collector that named them, where one was asked for by name.
    pub collector: Option<String>,
}

type Answer = Result<Found, Failure>;
type Question = (Vec<String>, Option<String>);

/// Answers of this process, failures too: fifty services do not wait fifty times for a collector that hangs.
#[derive(Debug, Default)]
pub(super) struct CreddCache(Mutex<BTreeMap<Question, Arc<OnceCell<Answer>>>>);

/// The credds of a service: the configured one, or what the first collector that answers says. `within`: the step's time.
pub(super) async fn of(world: &World, service: &Service, within: Duration, cancel: &CancellationToken) -> Answer {
    let (collectors, constraint) = match &service.credds {
        Credds::Fixed(credd) => return Ok(Found { credds: vec![credd.clone()], collector: None }),
        Credds::Collector { collectors, constraint } => (collectors, constraint),
    };
    let cell = {
        let mut cache = world.credds.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cache.entry((collectors.clone(), constraint.clone())).or_default())
    };
    match cell.get_or_try_init(|| ask_all(world, collectors, constraint.as_deref(), within, cancel)).await {
        Ok(answer) => answer.clone(),
        Err(Stopped(failure)) => Err(failure),
    }
}

/// The asking service's own time was over: no answer for the others.
struct Stopped(Failure);

async fn ask_all(
    world: &World,
    collectors: &[String],
    constraint: Option<&str>,
    within: Duration,
    cancel: &CancellationToken,
) -> Result<Answer, Stopped> {
    let count = u32::try_from(collectors.len()).unwrap_or(u32::MAX).max(1);
    let each = ASK_FOR.min(within / SHARE / count);
    if collectors.is_empty() {
        return ask(world, None, constraint, each, cancel).await;
    }
    let mut failed: Vec<(&str, Failure)> = Vec::new();
    for collector in collectors {
        match ask(world, Some(collector), constraint, each, cancel).await? {
            Ok(found) => return Ok(Ok(found)),
            Err(failure) => {
                tracing::warn!(code = %failure.code, collector, "{}", failure.message);
                failed.push((collector, failure));
            }
        }
    }
    let (_, mut last) = failed.pop().expect("there is at least one collector, and each has failed");
    if !failed.is_empty() {
        let before: Vec<&str> = failed.into_iter().map(|(collector, _)| collector).collect();
        last.message = format!("{}; nor could {}", last.message, before.join(", "));
    }
    Ok(Err(last))
}

async fn ask(
    world: &World,
    collector: Option<&str>,
    constraint: Option<&str>,
    limit: Duration,
    cancel: &CancellationToken,
) -> Result<Answer, Stopped> {
    let pool = collector.map(|host| ["-pool", host]);
    let constraint_words = constraint.map(|text| ["-constraint", text]);
    let command = world
        .command("condor_status")
        .args(pool.into_iter().flatten())
        .args(constraint_words.into_iter().flatten())
        .args(["-schedd", "-af", "Name"]);
    let named = collector.unwrap_or("of HTCondor's configuration");
    let finished = match run_within(command, cancel, limit).await {
        Ok(finished) => finished,
        Err(error) => {
            let stopped = matches!(error, RunError::Cancelled { .. }) && cancel.is_cancelled();
            let cause = format!("the collector {named} cannot be asked");
            let slow = TooSlow::new(COLLECTOR_UNREACHABLE, cause, condor::look_at(named));
            let failure = not_run_within(error, slow, limit);
            return if stopped { Err(Stopped(failure)) } else { Ok(Err(failure)) };
        }
    };
    if !finished.success() {
        let facts =
            [("program", "condor_status"), ("collector", named), ("constraint", constraint.unwrap_or_default())];
        return Ok(Err(condor::status(finished.exit, &finished.output, &facts)));
    }
    let said = String::from_utf8_lossy(&finished.stdout);
    let credds = parse(&said);
    if let (true, Some(line)) = (credds.is_empty(), no_names(&said)) {
        let message = format!("what the collector {named} answers is no list of schedds: {line}");
        let failure = Failure::new(Class::Transient, COLLECTOR_UNREACHABLE, message).with_output(finished.output);
        return Ok(Err(failure.with_next(condor::look_at(named))));
    }
    if credds.is_empty() {
        let fitting = constraint.map(|text| format!(" that fits {text}")).unwrap_or_default();
        let message = format!("the collector {named} names no schedd{fitting}");
        return Ok(Err(Failure::new(Class::Permanent, NO_CREDDS, message).with_output(finished.output)));
    }
    Ok(Ok(Found { credds, collector: collector.map(str::to_owned) }))
}

/// One name a line. What is no name (`undefined`, for an ad without one) is left out.
pub(crate) fn parse(stdout: &str) -> Vec<CreddName> {
    let names: BTreeSet<&str> = stdout.lines().map(str::trim).filter(|name| is_credd_name(name)).collect();
    names.into_iter().map(CreddName::checked).collect()
}

/// The beginning of the first line that is neither a name nor the word for an ad without one, as it can be shown.
fn no_names(stdout: &str) -> Option<String> {
    let visible = |line: &str| line.chars().filter(|c| !c.is_control()).take(MOST_SHOWN).collect::<String>();
    let strange = |line: &&str| !line.is_empty() && *line != "undefined" && !is_credd_name(line);
    stdout.lines().map(str::trim).find(strange).map(visible)
}

/// Can this be the name of a credd? It becomes part of a file's name, and another host said it.
pub(super) fn is_credd_name(name: &str) -> bool {
    name != "undefined" && name.parse::<CreddName>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_collector_says_is_checked_before_it_becomes_a_file_name() {
        let said =
            "b.example.org\na.example.org\n../../etc/x\n-rf\n\nundefined\na.example.org\nslot@c.example.org\n$(x)\n";
        let names: Vec<String> = parse(said).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a.example.org", "b.example.org", "slot@c.example.org"]);
    }
}
