//! The whole configuration, every value resolved: what `load` returns.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::redact::Secret;

use super::environment::Environment;
use super::mistake::Warning;
use super::service::{AccountName, Service, Timeouts};
use super::source::Sources;

/// The directory of the store, the locks and the leases when nothing names another.
pub const DEFAULT_STATE_DIRECTORY: &str = "/var/lib/managed-tokens";
/// The directory of the logs without a `logs` entry.
pub const DEFAULT_LOG_DIRECTORY: &str = "/var/log/managed-tokens";

/// The configuration. Two files that mean the same give equal values but for `file` and the lines in `warnings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file it was read from.
    pub file: PathBuf,
    /// Every service, by name.
    pub services: Vec<Service>,
    /// Where each value of each service, and each global value, came from.
    pub sources: Sources,
    /// `timeouts.*`, where given.
    pub timeouts: Timeouts,
    /// `workerType.*`, where given.
    pub worker_types: WorkerTypes,
    /// Consecutive errors before somebody is told; at least 1.
    pub error_count_to_send_message: u32,
    /// `disableNotifications`: the global switch. Each service's own is in [`Service::notifications`].
    pub disable_notifications: bool,
    /// Who is told.
    pub notifications: Recipients,
    /// Who is told in test mode.
    pub notifications_test: Recipients,
    /// How mail is sent; `None`: there is no `email.from`, so no mail can be sent.
    pub email: Option<Email>,
    /// Texts that replace the shipped ones.
    pub templates: TemplateFiles,
    /// The pushgateway.
    pub prometheus: Option<Prometheus>,
    /// Where traces go.
    pub tracing: Option<Tracing>,
    /// Where Loki is.
    pub loki: Option<Loki>,
    /// `logs.<executable>`; keys in lower case.
    pub logs: BTreeMap<String, LogFiles>,
    /// `logs.format`.
    pub log_format: LogFormat,
    /// `ferry.*`.
    pub ferry: Ferry,
    /// `production`, or what the environment or the file says.
    pub dev_environment_label: String,
    /// The Go service's database: a first start takes its UIDs and counters over, and its directory is the state directory's
    /// default.
    pub db_location: Option<PathBuf>,
    /// `stateDir`.
    pub state_dir: Option<PathBuf>,
    /// What is odd but not wrong.
    pub warnings: Vec<Warning>,
}

impl Config {
    /// The state directory: the command line's, else `MT_STATE_DIR`, else `stateDir`, else the directory of
    /// `dbLocation`, else [`DEFAULT_STATE_DIRECTORY`]. Always absolute.
    pub fn state_dir(&self, cli: Option<&Path>, env: &Environment) -> PathBuf {
        let given = cli.map(Path::to_path_buf).or_else(|| env.get("MT_STATE_DIR").map(PathBuf::from));
        let configured = || self.state_dir.clone().or_else(|| Some(self.db_location.as_ref()?.parent()?.to_path_buf()));
        let directory = given.or_else(configured).unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIRECTORY));
        env.absolute(&directory)
    }

    /// The pushgateway's job: `jobname`, with `_<devEnvironmentLabel>` when that is not `production`.
    pub fn prometheus_job(&self) -> String {
        let job = self.prometheus.as_ref().map_or(Prometheus::DEFAULT_JOB, |prometheus| &prometheus.jobname);
        match self.dev_environment_label.as_str() {
            "production" => job.to_owned(),
            label => format!("{job}_{label}"),
        }
    }

    /// The accounts of the selected services, each once, sorted: the subjects of `for_each: Account`.
    pub fn accounts<'a>(services: impl IntoIterator<Item = &'a Service>) -> Vec<AccountName> {
        let accounts: std::collections::BTreeSet<_> = services.into_iter().map(|s| s.account.clone()).collect();
        accounts.into_iter().collect()
    }

    /// How many different nodes the services push to.
    pub fn node_count(&self) -> usize {
        self.services.iter().flat_map(|service| &service.nodes).collect::<std::collections::BTreeSet<_>>().len()
    }
}

/// `workerType.*`: retries, where the file gives them; they override the workflow's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WorkerTypes {
    /// `getKerberosTickets`.
    pub get_kerberos_tickets: WorkerRetry,
    /// `getToken`.
    pub get_token: WorkerRetry,
    /// `storeAndGetToken`.
    pub store_and_get_token: WorkerRetry,
    /// `storeAndGetTokenInteractive`.
    pub store_and_get_token_interactive: WorkerRetry,
    /// `pingAggregator`.
    pub ping_aggregator: WorkerRetry,
    /// `pushTokens`.
    pub push_tokens: WorkerRetry,
}

/// One worker type's retries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WorkerRetry {
    /// `numRetries`: tries after the first.
    pub num_retries: Option<u32>,
    /// `retrySleep`: the pause before each.
    pub retry_sleep: Option<Duration>,
}

/// `notifications` or `notifications_test`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipients {
    /// `admin_email`; each address parses as an RFC 5322 mailbox.
    pub admin_email: Vec<String>,
    /// `slack_alerts_url`: whoever knows it can post.
    pub slack_alerts_url: Option<Secret>,
}

/// `email`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Email {
    /// The sender.
    pub from: String,
    /// The mail server; `localhost` unless given.
    pub smtp_host: String,
    /// Its port; unless given that of the kind of connection: 25, 587 with STARTTLS, 465 with implicit TLS.
    pub smtp_port: u16,
    /// How the connection is made safe.
    pub tls: MailTls,
    /// Who logs in; `None`: nobody does. Never without TLS.
    pub login: Option<MailLogin>,
    /// `caFile`: the authorities that are trusted, instead of the system's.
    pub ca_file: Option<PathBuf>,
}

impl Email {
    /// A mail server that is spoken to in the clear, without a login: what the Go service knows.
    pub fn plain(from: impl Into<String>, smtp_host: impl Into<String>, smtp_port: u16) -> Self {
        Self {
            from: from.into(),
            smtp_host: smtp_host.into(),
            smtp_port,
            tls: MailTls::None,
            login: None,
            ca_file: None,
        }
    }
}

/// `email.tls`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// In the clear.
    #[default]
    None,
    /// It begins in the clear and is made safe before anything is said. A server that cannot is not used.
    Starttls,
    /// TLS from the first byte.
    Implicit,
}

impl MailTls {
    /// Every value.
    pub const ALL: &'static [Self] = &[Self::None, Self::Starttls, Self::Implicit];

    /// As the file writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Starttls => "starttls",
            Self::Implicit => "implicit",
        }
    }

    /// The port that servers have for it.
    pub fn port(self) -> u16 {
        match self {
            Self::None => 25,
            Self::Starttls => 587,
            Self::Implicit => 465,
        }
    }
}

/// `email.username` and `email.passwordFile`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MailLogin {
    /// Who.
    pub username: String,
    /// The file that holds the password and nothing else; only its owner may read it. It is read when mail is sent.
    pub password_file: PathBuf,
}

/// `templates`: files that replace the shipped texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TemplateFiles {
    /// `adminMail`.
    pub admin_mail: Option<PathBuf>,
    /// `stakeholderMail`.
    pub stakeholder_mail: Option<PathBuf>,
    /// `slack`.
    pub slack: Option<PathBuf>,
}

/// `prometheus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prometheus {
    /// The pushgateway's URL.
    pub host: String,
    /// `managed_tokens` unless given. See [`Config::prometheus_job`].
    pub jobname: String,
}

impl Prometheus {
    /// The job without a `jobname`.
    pub const DEFAULT_JOB: &'static str = "managed_tokens";
}

/// `tracing`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tracing {
    /// As configured.
    pub url: String,
    /// `tracing.protocol`, else: a URL whose path ends in `/api/traces` is Jaeger's, any other OTLP's.
    pub protocol: TracingProtocol,
}

/// What the trace collector speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TracingProtocol {
    /// Jaeger's collector, Thrift over HTTP.
    Jaeger,
    /// OTLP over HTTP.
    Otlp,
}

/// `loki`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loki {
    /// Its URL.
    pub host: String,
    /// `response_header_timeout`; 1 s unless given.
    pub response_header_timeout: Duration,
}

/// `logs.<executable>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LogFiles {
    /// The log.
    pub logfile: Option<PathBuf>,
    /// The log with debug lines.
    pub debugfile: Option<PathBuf>,
}

/// `logs.format`: how a line of a log file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// `key=value` for every part.
    Logfmt,
    /// One object a line.
    Json,
}

/// `ferry`. Only ferry-refresh needs it, so nothing here is required of the file; that workflow says what it misses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ferry {
    /// With scheme, as configured.
    pub host: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// The client certificate (tls).
    pub host_cert: Option<PathBuf>,
    /// Its key (tls).
    pub host_key: Option<PathBuf>,
    /// Directory of `*.pem` (both methods).
    pub ca_path: Option<PathBuf>,
    /// The keytab (jwt).
    pub service_keytab_path: Option<PathBuf>,
    /// The principal (jwt).
    pub service_kerberos_principal: Option<String>,
    /// `htgettoken -i` (jwt).
    pub service_experiment: Option<String>,
    /// `htgettoken -r` (jwt).
    pub service_role: Option<String>,
    /// `htgettoken -a` (jwt).
    pub vault_server: Option<String>,
}

impl Ferry {
    /// `https://ferry.example.org:8445`, without a slash at the end. A host without a scheme gets `https://` (there was
    /// a warning).
    pub fn base_url(&self) -> Option<String> {
        let host = self.host.as_deref()?.trim_end_matches('/');
        let scheme = if host.contains("://") { "" } else { "https://" };
        Some(match self.port {
            Some(port) => format!("{scheme}{host}:{port}"),
            None => format!("{scheme}{host}"),
        })
    }
}
