//! What is kept between runs: the last known samples, by workflow and subject, under their configured names. What the
//! token issuer calls a service is looked up when the text is made: the configuration may change in between.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::workflow::definition::ForEach;
use crate::workflow::id::{RunId, Subject, TargetName, WorkflowName};
use crate::workflow::status::RunStatus;

/// Everything that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Of each workflow's last run.
    pub workflows: BTreeMap<WorkflowName, WorkflowSamples>,
    /// Of each subject's last run in each workflow.
    pub subjects: BTreeMap<(WorkflowName, Subject), SubjectSamples>,
}

/// What a step is for, by its action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// `Kinit`.
    Kinit,
    /// `GetVaultToken`.
    GetToken,
    /// `StoreInCredd`.
    StoreToken,
    /// `Ping`.
    Ping,
    /// `Push`.
    Push,
    /// `FetchUid`.
    FetchUid,
    /// `StoreUid`.
    StoreUid,
}

impl Stage {
    /// Every stage.
    pub const ALL: &'static [Self] =
        &[Self::Kinit, Self::GetToken, Self::StoreToken, Self::Ping, Self::Push, Self::FetchUid, Self::StoreUid];

    /// The action of its steps.
    pub fn action(self) -> &'static str {
        match self {
            Self::Kinit => "Kinit",
            Self::GetToken => "GetVaultToken",
            Self::StoreToken => "StoreInCredd",
            Self::Ping => "Ping",
            Self::Push => "Push",
            Self::FetchUid => "FetchUid",
            Self::StoreUid => "StoreUid",
        }
    }

    /// The stage of a step with this action; a site's own programs have none.
    pub fn of_action(action: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|stage| stage.action() == action)
    }

    /// The value of the label `stage`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Kinit => "getKerberosTickets",
            Self::GetToken => "getTokens",
            Self::StoreToken => "storeAndGetTokens",
            Self::Ping => "pingNodes",
            Self::Push => "pushTokens",
            Self::FetchUid => "getFERRYData",
            Self::StoreUid => "refreshManagedTokensDB",
        }
    }
}

/// How long something took, in microseconds: kept as a whole number, because a fraction would not come back from the
/// store as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Took(u64);

impl Took {
    /// From one time to a later one; nothing if the clock was set back in between.
    pub fn between(from: Timestamp, to: Timestamp) -> Self {
        Self(u64::try_from(to.duration_since(from).as_micros()).unwrap_or(0))
    }

    /// The same in seconds.
    pub fn seconds(self) -> f64 {
        Duration::from_micros(self.0).as_secs_f64()
    }
}

impl From<Duration> for Took {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}

/// One subject in one workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectSamples {
    /// The workflow.
    pub workflow: WorkflowName,
    /// The subject.
    pub subject: Subject,
    /// A service, or an account: both may bear the same name.
    pub for_each: ForEach,
    /// The run that said so.
    pub run: RunId,
    /// By what was done and on what; `-` for what does not fan out.
    pub stages: BTreeMap<Stage, BTreeMap<TargetName, TargetSamples>>,
    /// Did its token miss a node in that run?
    pub push_failed: bool,
    /// When its vault token expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_expires_at: Option<Timestamp>,
    /// When a run last succeeded for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded_at: Option<Timestamp>,
}

/// One target of one stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetSamples {
    /// When it last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded_at: Option<Timestamp>,
    /// How long that took, retries included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<Took>,
    /// Failures in the last run.
    #[serde(default)]
    pub failed: u32,
    /// How long each success of the last run took, where there is a histogram of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observed: Vec<Took>,
}

/// One workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowSamples {
    /// Which.
    pub workflow: WorkflowName,
    /// Its last run.
    pub run: RunId,
    /// How that stands.
    pub status: RunStatus,
    /// Where it was made.
    pub host: String,
    /// When its last session ended.
    pub ended_at: Timestamp,
    /// How long that session took.
    pub took: Took,
    /// By the value of the label `stage`.
    pub stages: BTreeMap<String, Took>,
    /// What the admins were sent, by the value of the label `notification_type`.
    #[serde(default)]
    pub admins: BTreeMap<String, Sendings>,
    /// What stakeholders were sent.
    #[serde(default)]
    pub services: BTreeMap<Subject, Sendings>,
    /// How long each mail to stakeholders took in the last run.
    #[serde(default)]
    pub service_took: Vec<Took>,
}

/// Notifications of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sendings {
    /// When one was last accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded_at: Option<Timestamp>,
    /// When one last failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
    /// How long the last accepted one took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<Took>,
}
