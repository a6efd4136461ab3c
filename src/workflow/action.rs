//! What the engine asks of the work it drives.

use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::code::Code;
use super::definition::Mode;
use super::id::{Product, RunId, StepName, Subject, TargetName};
use crate::redact::redact;

/// What kind of failure it was, which decides who does something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// May go away by itself: the engine tries again.
    Transient,
    /// Will not go away by trying again.
    Permanent,
    /// Only a person can mend it; the message says how.
    NeedsHuman,
    /// It did not end in its time: tried again like a transient one.
    Timeout,
}

impl Class {
    /// Every class.
    pub const ALL: &'static [Self] = &[Self::Transient, Self::Permanent, Self::NeedsHuman, Self::Timeout];

    /// The public spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::NeedsHuman => "needs-human",
            Self::Timeout => "timeout",
        }
    }

    /// Is another attempt worth it?
    pub fn is_retried(self) -> bool {
        match self {
            Self::Transient | Self::Timeout => true,
            Self::Permanent | Self::NeedsHuman => false,
        }
    }
}

/// Why an attempt failed. Holds no secret: output is redacted before it gets here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Who does something about it.
    pub class: Class,
    /// What `mt explain` knows about it.
    pub code: Code,
    /// The cause in one line, lower case, without a full stop.
    pub message: String,
    /// The end of what the child said (at most 8 KiB, redacted).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// The command or deed that mends it, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// No further attempt in this session, whatever the class (a push to a node that did not answer a ping).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last: bool,
}

impl Failure {
    /// A failure with no output and no advice of its own. The message is redacted here, because it often ends with what a
    /// server has said.
    pub fn new(class: Class, code: Code, message: impl Into<String>) -> Self {
        let message = redact(&message.into()).into_owned();
        Self { class, code, message, output: None, next: None, last: false }
    }

    /// The same with the end of the child's output.
    pub fn with_output(mut self, output: impl Into<String>) -> Self {
        let output = output.into();
        self.output = (!output.trim().is_empty()).then_some(output);
        self
    }

    /// The same with the deed that mends it, without secrets, too: it may name what is configured.
    pub fn with_next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(redact(&next.into()).into_owned());
        self
    }
}

/// What a successful attempt leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Success {
    /// What a later session needs to know to reuse the product (a fingerprint, an expiry). Recorded; never a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
    /// A remark for `mt runs show`: "the kept file could not be replaced: ...".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Success {
    /// What there is to remark, if anything. It is redacted here, because it may hold what a server has said.
    pub fn with_notes(mut self, notes: &[String]) -> Self {
        self.note = (!notes.is_empty()).then(|| redact(&notes.join("; ")).into_owned());
        self
    }
}

/// How one attempt ended.
pub type AttemptResult = Result<Success, Failure>;

/// One attempt, as the action sees it.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The run.
    pub run: RunId,
    /// The session of the run, counted from 1.
    pub session: u32,
    /// Whom the machine works for; `None` for a run-wide (`finally`) step.
    pub subject: Option<Subject>,
    /// The step.
    pub step: StepName,
    /// The target; `-` for a step that does not fan out.
    pub target: TargetName,
    /// The mode of the run.
    pub mode: Mode,
    /// Which try this is in this session, from 1.
    pub number: u32,
    /// How long it may take. The engine cancels `cancel` then; the action need not watch the clock.
    pub timeout: Duration,
    /// Cancelled at the timeout, at the deadline and on a signal. The action ends its children and returns within 2.5 s.
    pub cancel: CancellationToken,
}

/// Whether what a step provided in an earlier session can still be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProductState {
    /// It can; the text says what is known ("kept token unchanged, valid for 6d 22h").
    Usable(String),
    /// It cannot; the text says why ("its ticket died with the process").
    Lost(String),
}

/// What a step provides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provision {
    /// The product.
    pub product: Product,
    /// Can it be used by a later process? A Kerberos ticket cannot; a kept vault token can.
    pub outlives_process: bool,
}

/// What the engine knows about an action without running it: the one table that lint, resume and `--explain` use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionInfo {
    /// What it uses.
    pub needs: Vec<Product>,
    /// What it makes.
    pub provides: Vec<Provision>,
}

/// The work of one step. Implementations hold what they share between steps (tickets, staged files) themselves.
pub trait Action: Send + Sync {
    /// What it needs and provides.
    fn info(&self) -> ActionInfo;

    /// The targets of this step for this subject, asked once per session when the step starts, before
    /// `StepStarted` is recorded. `recorded` is the list of an earlier session, empty if there was none. A step that does not
    /// fan out is not asked.
    fn targets<'a>(
        &'a self,
        _attempt: &'a Attempt,
        _recorded: &'a [TargetName],
    ) -> BoxFuture<'a, Result<Vec<TargetName>, Failure>> {
        Box::pin(async { Ok(vec![TargetName::only()]) })
    }

    /// One try on one target.
    fn attempt<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, AttemptResult>;

    /// All tries ended transient or timed out: is there an older product that serves? `Some` makes the target stale.
    fn stand_in<'a>(&'a self, _attempt: &'a Attempt, _failure: &'a Failure) -> BoxFuture<'a, Option<Success>> {
        Box::pin(async { None })
    }

    /// Can what an earlier session recorded (`detail` of the target's success) still be used? Reads, changes nothing.
    fn product_state(&self, _subject: Option<&Subject>, _detail: Option<&Value>) -> ProductState {
        ProductState::Lost("it does not outlive its process".to_owned())
    }

    /// Is this recorded target still configured, as far as can be known without asking anybody?
    fn is_configured(&self, _subject: Option<&Subject>, _target: &TargetName) -> bool {
        true
    }

    /// Makes a product that `product_state` called usable available to the later steps of this process.
    fn adopt(&self, _subject: Option<&Subject>, _detail: Option<&Value>) -> Result<(), Failure> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_kept_of_what_people_are_told() {
        const TOKEN: &str = "hvs.CAESIJlongEnoughToBeOne0123456789";
        let failure = Failure::new(Class::Permanent, Code(1), TOKEN).with_next(format!("try {TOKEN}"));
        let success = Success::default().with_notes(&[TOKEN.to_owned(), "https://me:hunter2@ferry".to_owned()]);
        assert_eq!((failure.message.as_str(), failure.next.as_deref()), ("[redacted]", Some("try [redacted]")));
        assert_eq!(success.note.as_deref(), Some("[redacted]; https://[redacted]@ferry"));
        assert_eq!(Success::default().with_notes(&[]).note, None);
    }
}
