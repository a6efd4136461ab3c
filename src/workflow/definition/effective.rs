//! Values of the configuration laid over those of the file, each with where it comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::codes;
use super::diagnostic::{Diagnostic, Severity};
use super::lint::{finally_takes, finally_too_long, too_long};
use super::parse::{Draft, StepDraft, default_reserve, read_draft};
use super::read::{Mistake, first_token};
use super::source::Source;
use super::types::{Step, Workflow};
use crate::workflow::code::Code;
use crate::workflow::duration;
use crate::workflow::id::StepName;

/// A value given outside the file, and where: `timeouts.pushTimeout`.
pub type Given<T> = Option<(T, String)>;

/// What the configuration says about every step of one action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionOverride {
    /// Instead of `timeout`.
    pub timeout: Given<Duration>,
    /// Instead of `times`.
    pub retries: Given<u32>,
    /// Instead of `backoff`: every pause is this long.
    pub sleep: Given<Duration>,
}

/// What the configuration says about a workflow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Instead of `deadline`.
    pub deadline: Given<Duration>,
    /// By the name of the action.
    pub by_action: BTreeMap<String, ActionOverride>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It stands in the file.
    File,
    /// The file does not say.
    Default,
    /// The configuration says so, here.
    Configuration(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.pad("file"),
            Self::Default => f.pad("default"),
            Self::Configuration(key) => f.pad(key),
        }
    }
}

/// Where the values of a step come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepOrigins {
    /// Of `timeout`.
    pub timeout: Origin,
    /// Of `times`.
    pub times: Origin,
    /// Of `backoff`.
    pub backoff: Origin,
    /// Of `parallel`.
    pub parallel: Origin,
}

/// Where the values of a workflow come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    /// Of `deadline`.
    pub deadline: Origin,
    /// Of `reserve`.
    pub reserve: Origin,
    /// Of `overlap`.
    pub overlap: Origin,
    /// Of `interrupted`.
    pub interrupted: Origin,
    /// Of the values of each step, those of `finally` included.
    pub steps: BTreeMap<StepName, StepOrigins>,
}

/// A workflow as it will run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// With every override in place. Its `source` is still the file's text.
    pub workflow: Workflow,
    /// Where its values come from.
    pub origins: Origins,
    /// What does not fit together any more. Never an error: what cannot fit is cut at the deadline.
    pub warnings: Vec<Diagnostic>,
}

/// Lays the configuration's values over the workflow's. `file` is only for messages.
///
/// A reserve that the file does not give follows the deadline; one that it gives stays, unless the configured deadline
/// would leave no time for the steps: then it, too, follows the deadline, with a warning.
pub fn effective(workflow: &Workflow, overrides: &Overrides, file: &str) -> Effective {
    // The workflow has been read from this text, so reading it again finds everything in its place.
    let mut source = Source::new(file, &workflow.source);
    let readable = source.repair().1;
    let draft = readable.then(|| read_draft(&source).0);
    let draft = draft.as_ref();
    let mut changed = workflow.clone();
    let mut warnings = Vec::new();

    let mut reserve = origin(draft.map(|draft| draft.reserve.is_absent()));
    let deadline = replace(&mut changed.deadline, &overrides.deadline, Origin::File);
    if let Origin::Configuration(key) = &deadline {
        if reserve == Origin::Default {
            changed.reserve = default_reserve(changed.deadline);
        } else if changed.reserve >= changed.deadline {
            let message = format!(
                "the reserve, {}, leaves nothing of the configured deadline, {} ({key}): {} is kept instead",
                duration::format(changed.reserve),
                duration::format(changed.deadline),
                duration::format(default_reserve(changed.deadline)),
            );
            changed.reserve = default_reserve(changed.deadline);
            reserve = Origin::Default;
            let at = draft.and_then(|draft| draft.reserve.given()).map(|(_, at)| at);
            warnings.push(warning(&source, codes::RESERVE, at, message, "leave `reserve` out of the file"));
        }
    }

    let mut steps = BTreeMap::new();
    for step in changed.steps.iter_mut().chain(&mut changed.finally) {
        let origins = override_step(step, draft.and_then(|draft| draft_of(draft, &step.name)), overrides);
        steps.insert(step.name.clone(), origins);
    }
    let origins = Origins {
        deadline,
        reserve,
        overlap: origin(draft.map(|draft| draft.overlap.is_absent())),
        interrupted: origin(draft.map(|draft| draft.interrupted.is_absent())),
        steps,
    };
    budgets(&changed, &origins, &source, draft, &mut warnings);
    Effective { workflow: changed, origins, warnings }
}

fn override_step(step: &mut Step, draft: Option<&StepDraft<'_>>, overrides: &Overrides) -> StepOrigins {
    let retry = draft.and_then(|draft| draft.retry.get());
    let mut origins = StepOrigins {
        timeout: Origin::File,
        times: origin(draft.map(|_| retry.is_none())),
        backoff: origin(draft.map(|_| retry.is_none_or(|retry| retry.backoff.is_absent()))),
        parallel: origin(draft.map(|draft| draft.parallel.is_absent())),
    };
    if let Some(given) = overrides.by_action.get(&step.action.name) {
        origins.timeout = replace(&mut step.timeout, &given.timeout, origins.timeout);
        origins.times = replace(&mut step.retry.times, &given.retries, origins.times);
        let sleep = given.sleep.clone().map(|(sleep, key)| ((sleep, sleep), key));
        origins.backoff = replace(&mut step.retry.backoff, &sleep, origins.backoff);
    }
    origins
}

/// What fitted in the file and does not fit any more.
fn budgets(
    workflow: &Workflow,
    origins: &Origins,
    source: &Source,
    draft: Option<&Draft<'_>>,
    warnings: &mut Vec<Diagnostic>,
) {
    let of_step = |step: &Step| {
        let of = origins.steps.get(&step.name);
        of.into_iter().flat_map(|of| [&of.timeout, &of.times, &of.backoff])
    };
    let available = workflow.deadline.saturating_sub(workflow.reserve);
    for step in &workflow.steps {
        if let Some(takes) = too_long(step.timeout, step.retry, available) {
            let message = format!(
                "step \"{}\" can take {takes}, more than the {} that the deadline leaves for it",
                step.name,
                duration::format(available)
            );
            let at = draft
                .and_then(|draft| draft_of(draft, &step.name))
                .map(|step| step.timeout.given().map_or(step.at, |(_, at)| at));
            let help = set_by(of_step(step).chain([&origins.deadline]));
            warnings.push(warning(source, codes::RETRIES_DO_NOT_FIT, at, message, &help));
        }
    }
    let needed = finally_takes(|mode| {
        let steps = workflow.finally.iter().filter(|step| step.when.contains(&mode));
        steps.map(|step| (step.timeout, step.retry)).collect()
    });
    if let Some(message) = finally_too_long(needed, workflow.reserve) {
        let at =
            draft.and_then(|draft| draft.reserve.given().map(|(_, at)| at).or(draft.finally.given().map(|(_, at)| at)));
        let help = set_by(workflow.finally.iter().flat_map(of_step).chain([&origins.deadline]));
        warnings.push(warning(source, codes::FINALLY_DOES_NOT_FIT, at, message, &help));
    }
}

/// The keys of the configuration among these, as advice.
fn set_by<'o>(origins: impl Iterator<Item = &'o Origin>) -> String {
    let mut keys = Vec::new();
    for origin in origins {
        match origin {
            Origin::Configuration(key) if !keys.contains(&key.as_str()) => keys.push(key.as_str()),
            Origin::Configuration(_) | Origin::File | Origin::Default => {}
        }
    }
    match keys[..] {
        [] => "the file fits by itself".to_owned(),
        _ => format!("the configuration sets {}", keys.join(", ")),
    }
}

fn warning(source: &Source, code: Code, at: Option<&str>, message: String, help: &str) -> Diagnostic {
    let at = at.map_or_else(|| source.start(), first_token);
    source.diagnostic(Severity::Warning, &Mistake::new(code, at, message).with_help(help))
}

fn draft_of<'d, 's>(draft: &'d Draft<'s>, name: &StepName) -> Option<&'d StepDraft<'s>> {
    let steps = draft.steps.get().into_iter().chain(draft.finally.get()).flatten();
    steps.into_iter().find(|step| step.name.get().is_some_and(|given| given == name.as_str()))
}

/// Where a value comes from that the file may leave out. A workflow that was not read from a text has given everything.
fn origin(absent: Option<bool>) -> Origin {
    match absent {
        Some(true) => Origin::Default,
        Some(false) | None => Origin::File,
    }
}

fn replace<T: Clone>(value: &mut T, given: &Given<T>, origin: Origin) -> Origin {
    match given {
        None => origin,
        Some((given, key)) => {
            *value = given.clone();
            Origin::Configuration(key.clone())
        }
    }
}
