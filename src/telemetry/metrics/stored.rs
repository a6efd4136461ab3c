//! What is kept between runs: the last known samples, by workflow and subject, under their configured names. What the
//! token issuer calls a service is looked up when the text is made: the configuration may change in between.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::workflow::definition::ForEach;
use crate::workflow::id::{RunId, Subject, TargetName, WorkflowName};
use crate::workflow::status::RunStatus;

/// Everything that is kept.
#[derive(Clone, Debug, Default, PartialEq)]
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

/// One subject in one workflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TargetSamples {
    /// When it last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded_at: Option<Timestamp>,
    /// How long that took, in seconds, retries included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Failures in the last run.
    #[serde(default)]
    pub failed: u32,
    /// How long each success of the last run took, in seconds, where there is a histogram of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observed: Vec<f64>,
}

/// One workflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// How long that session took, in seconds.
    pub seconds: f64,
    /// By the value of the label `stage`, in seconds.
    pub stages: BTreeMap<String, f64>,
    /// What the admins were sent, by the value of the label `notification_type`.
    #[serde(default)]
    pub admins: BTreeMap<String, Sendings>,
    /// What stakeholders were sent.
    #[serde(default)]
    pub services: BTreeMap<Subject, Sendings>,
    /// How long each mail to stakeholders took in the last run, in seconds.
    #[serde(default)]
    pub service_seconds: Vec<f64>,
}

/// Notifications of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sendings {
    /// When one was last accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded_at: Option<Timestamp>,
    /// When one last failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
    /// How long the last accepted one took, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}
