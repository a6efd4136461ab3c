//! The text of a file into a draft in which every value may be missing or bad, and a draft without mistakes into a workflow.

use std::sync::Arc;
use std::time::Duration;

use super::catalog::{ActionShape, Catalog};
use super::codes;
use super::diagnostic::{Diagnostic, Severity};
use super::lint::lint;
use super::read::{self, Field, Mistake};
use super::source::Source;
use super::types::{ActionSpec, CountsAs, ForEach, Interrupted, Mode, OnFailure, Overlap, Per, Retry, Step, Workflow};
use crate::workflow::id::{StepName, WorkflowName};

/// Larger files are refused: a real one has a few thousand bytes.
pub const MOST_BYTES: usize = 256 << 10;

/// More mistakes than this are not told.
const MOST_DIAGNOSTICS: usize = 500;

/// `parallel` of a step that does not say.
pub const DEFAULT_PARALLEL: u32 = 16;
/// `backoff` of a `Retry` that does not say.
pub const DEFAULT_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// `interrupted` of a workflow that does not say.
pub const DEFAULT_INTERRUPTED: Interrupted = Interrupted::ResumeWithin(Duration::from_secs(30 * 60));

const MODES: &[(&str, Mode)] =
    &[("Normal", Mode::Normal), ("Test", Mode::Test), ("Onboard", Mode::Onboard), ("OnboardPush", Mode::OnboardPush)];
const FOR_EACH: &[(&str, ForEach)] = &[("Service", ForEach::Service), ("Account", ForEach::Account)];
const PER: &[(&str, Per)] = &[("Subject", Per::Subject), ("Credd", Per::Credd), ("Node", Per::Node)];
const ON_FAILURE: &[(&str, OnFailure)] = &[("Stop", OnFailure::Stop), ("Continue", OnFailure::Continue)];
const COUNTS_AS: &[(&str, CountsAs)] =
    &[("Setup", CountsAs::Setup), ("Push", CountsAs::Push), ("Nothing", CountsAs::Nothing)];

const WORKFLOW_FIELDS: &[&str] =
    &["name", "for_each", "deadline", "reserve", "overlap", "interrupted", "steps", "finally"];
const STEP_FIELDS: &[&str] =
    &["name", "action", "per", "timeout", "parallel", "retry", "on_failure", "counts_as", "when"];
const RETRY_FIELDS: &[&str] = &["times", "backoff"];

/// One value of a draft, with the piece of text it was read from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'s, T> {
    /// Not there.
    Absent,
    /// There, and wrong: its mistake is told already.
    Bad,
    /// There.
    Given(T, &'s str),
}

impl<'s, T> Value<'s, T> {
    pub fn given(&self) -> Option<(&T, &'s str)> {
        match self {
            Self::Given(value, at) => Some((value, at)),
            Self::Absent | Self::Bad => None,
        }
    }

    pub fn get(&self) -> Option<&T> {
        self.given().map(|(value, _)| value)
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<T: Copy> Value<'_, T> {
    /// The value, or the default where none is given; `None` if it is bad.
    pub fn or(&self, default: T) -> Option<T> {
        match self {
            Self::Absent => Some(default),
            Self::Bad => None,
            Self::Given(value, _) => Some(*value),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct StepDraft<'s> {
    /// What to underline where something is missing.
    pub at: &'s str,
    pub name: Value<'s, String>,
    pub action: Value<'s, ActionDraft<'s>>,
    pub per: Value<'s, Per>,
    pub timeout: Value<'s, Duration>,
    pub parallel: Value<'s, u32>,
    pub retry: Value<'s, RetryDraft<'s>>,
    pub on_failure: Value<'s, OnFailure>,
    pub counts_as: Value<'s, CountsAs>,
    pub when: Value<'s, Vec<Mode>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ActionDraft<'s> {
    pub name: &'s str,
    pub arguments: Option<&'s str>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct RetryDraft<'s> {
    pub times: Value<'s, u32>,
    pub backoff: Value<'s, (Duration, Duration)>,
}

#[derive(Clone, Debug)]
pub(super) struct Draft<'s> {
    pub at: &'s str,
    pub name: Value<'s, String>,
    pub for_each: Value<'s, ForEach>,
    pub deadline: Value<'s, Duration>,
    pub reserve: Value<'s, Duration>,
    pub overlap: Value<'s, Overlap>,
    pub interrupted: Value<'s, Interrupted>,
    pub steps: Value<'s, Vec<StepDraft<'s>>>,
    pub finally: Value<'s, Vec<StepDraft<'s>>>,
}

impl StepDraft<'_> {
    /// What the step will retry; `None` if that cannot be known.
    pub fn retries(&self) -> Option<Retry> {
        match &self.retry {
            Value::Absent => Some(Retry { times: 0, backoff: DEFAULT_BACKOFF }),
            Value::Bad => None,
            Value::Given(retry, _) => {
                Some(Retry { times: retry.times.or(0)?, backoff: retry.backoff.or(DEFAULT_BACKOFF)? })
            }
        }
    }

    pub fn runs_in(&self, mode: Mode) -> bool {
        match &self.when {
            Value::Absent | Value::Bad => true,
            Value::Given(modes, _) => modes.contains(&mode),
        }
    }
}

/// The reserve of a workflow that does not say: a tenth of the deadline, 30 s at most.
pub(super) fn default_reserve(deadline: Duration) -> Duration {
    (deadline / 10).min(Duration::from_secs(30))
}

impl Workflow {
    /// Reads and checks a workflow. `file` is only for messages.
    ///
    /// # Errors
    /// Every mistake, in the order of the text; warnings among them.
    pub fn parse(text: &str, file: &str, catalog: &dyn Catalog) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        if text.len() > MOST_BYTES {
            let message = format!("the file has {} bytes: a workflow has at most {MOST_BYTES}", text.len());
            return Err(vec![Diagnostic::new(codes::TOO_LARGE, Severity::Error, file, message)]);
        }
        let mut source = Source::new(file, text);
        let (mut diagnostics, readable) = source.repair();
        let mut workflow = None;
        if readable {
            let (draft, mut mistakes) = read_draft(&source);
            let warnings = lint(&draft, catalog, &mut mistakes);
            // What is beyond the limit is not even looked up: finding a line and column takes time.
            diagnostics.extend(mistakes.iter().take(MOST_DIAGNOSTICS).map(|m| source.diagnostic(Severity::Error, m)));
            diagnostics.extend(warnings.iter().take(MOST_DIAGNOSTICS).map(|m| source.diagnostic(Severity::Warning, m)));
            workflow = build(&draft, catalog, text);
        }
        diagnostics.sort_by_key(|d| (d.line, d.column, d.code));
        match workflow {
            Some(workflow) if !diagnostics.iter().any(Diagnostic::is_error) => Ok((workflow, diagnostics)),
            Some(_) | None => Err(diagnostics),
        }
    }
}

/// The draft and the mistakes found while reading it.
pub(super) fn read_draft(source: &Source) -> (Draft<'_>, Vec<Mistake<'_>>) {
    let mut reader = Reader { mistakes: Vec::new() };
    let mut draft = Draft {
        at: source.start(),
        name: Value::Absent,
        for_each: Value::Absent,
        deadline: Value::Absent,
        reserve: Value::Absent,
        overlap: Value::Absent,
        interrupted: Value::Absent,
        steps: Value::Absent,
        finally: Value::Absent,
    };
    let fields = source.fields().unwrap_or_else(|mistake| {
        reader.mistakes.push(mistake);
        Vec::new()
    });
    for Field { key, value } in reader.known(fields, "a workflow", WORKFLOW_FIELDS) {
        match key {
            "name" => draft.name = reader.keep(name(value), value),
            "for_each" => draft.for_each = reader.keep(read::word(value, FOR_EACH), value),
            "deadline" => draft.deadline = reader.keep(read::some_time(value), value),
            "reserve" => draft.reserve = reader.keep(read::some_time(value), value),
            "overlap" => draft.overlap = reader.keep(overlap(value), value),
            "interrupted" => draft.interrupted = reader.keep(interrupted(value), value),
            "steps" => draft.steps = reader.steps(value),
            "finally" => draft.finally = reader.steps(value),
            _ => {}
        }
    }
    (draft, reader.mistakes)
}

struct Reader<'s> {
    mistakes: Vec<Mistake<'s>>,
}

impl<'s> Reader<'s> {
    fn keep<T>(&mut self, read: Result<T, Mistake<'s>>, value: &'s str) -> Value<'s, T> {
        match read {
            Ok(read) => Value::Given(read, value),
            Err(mistake) => {
                self.mistakes.push(mistake);
                Value::Bad
            }
        }
    }

    /// The fields that exist, each once.
    fn known(&mut self, fields: Vec<Field<'s>>, of: &str, names: &[&'static str]) -> Vec<Field<'s>> {
        read::known_fields(fields, of, names, &mut self.mistakes)
    }

    fn steps(&mut self, value: &'s str) -> Value<'s, Vec<StepDraft<'s>>> {
        match read::list(value) {
            Ok(items) => Value::Given(items.into_iter().map(|item| self.step(item)).collect(), value),
            Err(mistake) => {
                self.mistakes.push(mistake);
                Value::Bad
            }
        }
    }

    fn step(&mut self, item: &'s str) -> StepDraft<'s> {
        let mut step = StepDraft {
            at: read::first_token(item),
            name: Value::Absent,
            action: Value::Absent,
            per: Value::Absent,
            timeout: Value::Absent,
            parallel: Value::Absent,
            retry: Value::Absent,
            on_failure: Value::Absent,
            counts_as: Value::Absent,
            when: Value::Absent,
        };
        let fields = match read::fields(item, "Step") {
            Ok(fields) => fields,
            Err(mistake) => {
                self.mistakes.push(mistake);
                // So that nothing is called missing.
                return StepDraft { name: Value::Bad, action: Value::Bad, timeout: Value::Bad, ..step };
            }
        };
        for Field { key, value } in self.known(fields, "a step", STEP_FIELDS) {
            match key {
                "name" => step.name = self.keep(name(value), value),
                "action" => step.action = self.keep(action(value), value),
                "per" => step.per = self.keep(read::word(value, PER), value),
                "timeout" => step.timeout = self.keep(read::some_time(value), value),
                "parallel" => step.parallel = self.keep(read::number(value, 1, 10_000), value),
                "retry" => step.retry = self.retry(value),
                "on_failure" => step.on_failure = self.keep(read::word(value, ON_FAILURE), value),
                "counts_as" => step.counts_as = self.keep(read::word(value, COUNTS_AS), value),
                "when" => step.when = self.modes(value),
                _ => {}
            }
        }
        step
    }

    fn retry(&mut self, value: &'s str) -> Value<'s, RetryDraft<'s>> {
        let fields = match read::fields(value, "Retry") {
            Ok(fields) => fields,
            Err(mistake) => {
                self.mistakes.push(mistake.with_help("write Retry(times: 2, backoff: (\"1s\", \"10s\"))"));
                return Value::Bad;
            }
        };
        let mut retry = RetryDraft { times: Value::Absent, backoff: Value::Absent };
        for Field { key, value } in self.known(fields, "Retry", RETRY_FIELDS) {
            match key {
                "times" => retry.times = self.keep(read::number(value, 0, 1000), value),
                "backoff" => retry.backoff = self.backoff(value),
                _ => {}
            }
        }
        if retry.times.is_absent() {
            let mistake = Mistake::new(codes::MISSING_FIELD, read::first_token(value), "Retry has no `times`");
            self.mistakes.push(mistake.with_help("say how often a failed try is repeated: times: 2"));
            retry.times = Value::Bad;
        }
        Value::Given(retry, value)
    }

    fn backoff(&mut self, value: &'s str) -> Value<'s, (Duration, Duration)> {
        const EXPECTED: &str = "the first and the longest pause, such as (\"1s\", \"10s\")";
        let pauses = match read::group(value, EXPECTED) {
            Ok(pauses) => pauses,
            Err(mistake) => {
                self.mistakes.push(mistake);
                return Value::Bad;
            }
        };
        let [first, longest] = pauses[..] else {
            let message = format!("expected {EXPECTED}, found {} values", pauses.len());
            self.mistakes.push(Mistake::new(codes::WRONG_FORM, read::first_token(value), message));
            return Value::Bad;
        };
        match (self.keep(read::duration(first), first), self.keep(read::duration(longest), longest)) {
            (Value::Given(first, _), Value::Given(longest, _)) => Value::Given((first, longest), value),
            _ => Value::Bad,
        }
    }

    fn modes(&mut self, value: &'s str) -> Value<'s, Vec<Mode>> {
        let items = match read::list(value) {
            Ok(items) => items,
            Err(mistake) => {
                self.mistakes.push(mistake.with_help("write when: [Normal, OnboardPush]"));
                return Value::Bad;
            }
        };
        let before = self.mistakes.len();
        if items.is_empty() {
            let mistake =
                Mistake::new(codes::WHEN, read::first_token(value), "with no mode in `when` the step never runs");
            self.mistakes.push(mistake.with_help("leave `when` out to run in every mode; to drop the step, delete it"));
        }
        let mut modes = Vec::new();
        for item in items {
            match read::word(item, MODES) {
                Ok(mode) if modes.contains(&mode) => {
                    let word = read::first_token(item);
                    self.mistakes.push(Mistake::new(codes::WHEN, word, format!("`when` names {word} twice")));
                }
                Ok(mode) => modes.push(mode),
                Err(mistake) => self.mistakes.push(mistake),
            }
        }
        if self.mistakes.len() > before { Value::Bad } else { Value::Given(modes, value) }
    }
}

fn name(value: &str) -> Result<String, Mistake<'_>> {
    const MOST: usize = 40;
    let name = read::text(value)?;
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    if starts && name.len() <= MOST && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        return Ok(name);
    }
    let message = format!(
        "\"{}\" is no name: expected a lower-case letter, then lower-case letters, digits and hyphens, at most {MOST}",
        read::shortened(&name)
    );
    Err(Mistake::new(codes::BAD_NAME, read::first_token(value), message))
}

fn action(value: &str) -> Result<ActionDraft<'_>, Mistake<'_>> {
    let (name, arguments) = read::variant(value, "an action, such as Kinit, without quotes")?;
    Ok(ActionDraft { name, arguments })
}

fn overlap(value: &str) -> Result<Overlap, Mistake<'_>> {
    const EXPECTED: &str = "Skip or Wait(\"2m\")";
    match read::variant(value, EXPECTED)? {
        ("Skip", None) => Ok(Overlap::Skip),
        ("Wait", Some(arguments)) => Ok(Overlap::Wait(one_duration(arguments, EXPECTED)?)),
        (word, arguments) => Err(not_among(word, arguments, &[("Skip", ()), ("Wait", ())], EXPECTED)),
    }
}

fn interrupted(value: &str) -> Result<Interrupted, Mistake<'_>> {
    const EXPECTED: &str = "ResumeWithin(\"30m\") or Supersede";
    match read::variant(value, EXPECTED)? {
        ("Supersede", None) => Ok(Interrupted::Supersede),
        ("ResumeWithin", Some(arguments)) => Ok(Interrupted::ResumeWithin(one_duration(arguments, EXPECTED)?)),
        (word, arguments) => Err(not_among(word, arguments, &[("ResumeWithin", ()), ("Supersede", ())], EXPECTED)),
    }
}

fn one_duration<'a>(arguments: &'a str, expected: &str) -> Result<Duration, Mistake<'a>> {
    match read::group(arguments, expected)?[..] {
        [duration] => read::some_time(duration),
        _ => Err(Mistake::new(codes::WRONG_FORM, read::first_token(arguments), format!("expected {expected}"))),
    }
}

/// An unknown word, or a known one with or without the arguments it should have.
fn not_among<'a>(
    word: &'a str,
    arguments: Option<&str>,
    choices: &[(&'static str, ())],
    expected: &str,
) -> Mistake<'a> {
    if choices.iter().any(|(name, ())| *name == word) {
        let has = if arguments.is_some() { "takes no arguments" } else { "needs a duration" };
        return Mistake::new(codes::WRONG_FORM, word, format!("{word} {has}: expected {expected}"));
    }
    let mistake = read::unknown_word(word, choices);
    Mistake { message: format!("unknown value {}: expected {expected}", read::shortened(word)), ..mistake }
}

/// A draft in which nothing is missing or bad.
fn build(draft: &Draft<'_>, catalog: &dyn Catalog, text: &str) -> Option<Workflow> {
    let deadline = *draft.deadline.get()?;
    let steps =
        |steps: &[StepDraft<'_>]| steps.iter().map(|step| build_step(step, catalog)).collect::<Option<Vec<_>>>();
    let finally = match &draft.finally {
        Value::Absent => Vec::new(),
        Value::Bad => return None,
        Value::Given(finally, _) => steps(finally)?,
    };
    Some(Workflow {
        name: WorkflowName::new(draft.name.get()?),
        for_each: *draft.for_each.get()?,
        deadline,
        reserve: draft.reserve.or(default_reserve(deadline))?,
        overlap: draft.overlap.or(Overlap::Skip)?,
        interrupted: draft.interrupted.or(DEFAULT_INTERRUPTED)?,
        steps: steps(draft.steps.get()?)?,
        finally,
        source: Arc::from(text),
    })
}

fn build_step(draft: &StepDraft<'_>, catalog: &dyn Catalog) -> Option<Step> {
    let action = draft.action.get()?;
    let ActionShape { per, counts_as, place, .. } = catalog.action(action.name)?;
    let on_failure = match place {
        super::catalog::Place::Steps => OnFailure::Stop,
        // A mail that cannot be sent is no reason to leave out what comes after it.
        super::catalog::Place::Finally => OnFailure::Continue,
    };
    Some(Step {
        name: StepName::new(draft.name.get()?),
        action: ActionSpec { name: action.name.to_owned(), arguments: action.arguments.map(str::to_owned) },
        per: draft.per.or(*per.first()?)?,
        timeout: *draft.timeout.get()?,
        parallel: draft.parallel.or(DEFAULT_PARALLEL)?,
        retry: draft.retries()?,
        on_failure: draft.on_failure.or(on_failure)?,
        counts_as: draft.counts_as.or(counts_as)?,
        when: match &draft.when {
            Value::Absent => Mode::ALL.to_vec(),
            Value::Bad => return None,
            Value::Given(modes, _) => modes.clone(),
        },
    })
}
