//! One service with every override applied: what the steps work from.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::templates::{self, Field, TemplateError};

macro_rules! word {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(String);

        impl $type {
            /// For text that has been checked (see `names.rs`).
            pub(crate) fn checked(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

word!(/// `dune`: an experiment as configured.
    ExperimentName);
word!(/// `production`: a role.
    RoleName);
word!(/// `dune-2_production`: a service as configured; used in selection, counters, mails and logs.
    ServiceName);
word!(/// `dune_production`: a service as the token issuer knows it; used with htgettoken, the storer and in file names.
    IssuerService);
word!(/// `dunepro`: the UNIX account on the destination nodes.
    AccountName);
word!(/// A destination node.
    NodeName);
word!(/// A host that runs condor_credd.
    CreddName);

/// How the vault token is got and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenGetter {
    /// With htgettoken, then stored in every credd with condor_vault_storer.
    StoreAndGetToken,
    /// With htgettoken alone; no credd.
    GetToken,
}

/// Where the credds of a service come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credds {
    /// `condorCreddHost`: this one.
    Fixed(CreddName),
    /// Asked of the collectors, in order, with the constraint, if any.
    Collector {
        /// `host` or `host:port`, tried in order. Empty: what HTCondor's own configuration says.
        collectors: Vec<String>,
        /// `-constraint` of condor_status.
        constraint: Option<String>,
    },
}

/// One service, every override applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// As configured.
    pub name: ServiceName,
    /// The configured experiment.
    pub experiment: ExperimentName,
    /// The role.
    pub role: RoleName,
    /// The experiment as the issuer knows it (`experimentOverride`).
    pub issuer: ExperimentName,
    /// issuer_role.
    pub issuer_service: IssuerService,
    /// The account on the nodes.
    pub account: AccountName,
    /// `desiredUIDOverride`.
    pub uid_override: Option<u32>,
    /// The destination nodes, without repetition, in order.
    pub nodes: Vec<NodeName>,
    /// The keytab file.
    pub keytab: PathBuf,
    /// The Kerberos principal, with realm.
    pub principal: String,
    /// `host:port`; `None`: ask `condor_config_val SEC_CREDENTIAL_GETTOKEN_OPTS`.
    pub vault_server: Option<String>,
    /// How the vault token is got.
    pub token_getter: TokenGetter,
    /// Where it is stored.
    pub credds: Credds,
    /// Directory of kept tokens; `None`: `tokens/` in the state directory.
    pub token_directory: Option<PathBuf>,
    /// As htgettoken takes it: `10s`, `3d`.
    pub min_token_lifetime: String,
    /// Template of the default role file's path, as configured and tried: see [`Service::default_role_file`].
    pub default_role_file_template: String,
    /// Words after `ping`, before the node.
    pub ping_options: Vec<String>,
    /// Words after `rsync`.
    pub copier_options: Vec<String>,
    /// Words after `ssh`.
    pub ssh_options: Vec<String>,
    /// Stakeholders' addresses.
    pub emails: Vec<String>,
    /// Are its notifications on?
    pub notifications: bool,
}

impl Service {
    /// Where the default role file goes on the nodes: the template filled in. `vault_server` is the one found at run
    /// time, where the configuration names none.
    pub fn default_role_file(&self, uid: u32, vault_server: Option<&str>) -> Result<String, TemplateError> {
        templates::remote_path(&self.default_role_file_template, |field| match field {
            Field::Account => Some(self.account.to_string()),
            Field::DesiredUid => Some(uid.to_string()),
            Field::Experiment => Some(self.experiment.to_string()),
            Field::Role => Some(self.role.to_string()),
            Field::Service => Some(self.issuer_service.to_string()),
            Field::UserPrincipal => Some(self.principal.clone()),
            Field::KeytabPath => Some(self.keytab.to_string_lossy().into_owned()),
            Field::VaultServer => self.vault_server.as_deref().or(vault_server).map(str::to_owned),
        })
    }
}

/// `timeouts.*`: values given in the configuration, which override the workflow's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    /// `globalTimeout`: the run's deadline.
    pub global: Option<Duration>,
    /// `kerberosTimeout`.
    pub kerberos: Option<Duration>,
    /// `vaultStorerTimeout`: get-vault-token and store-in-credd.
    pub vault_storer: Option<Duration>,
    /// `pingTimeout`.
    pub ping: Option<Duration>,
    /// `pushTimeout`.
    pub push: Option<Duration>,
    /// `ferryRequestTimeout`.
    pub ferry_request: Option<Duration>,
    /// `dbTimeout`.
    pub db: Option<Duration>,
}
