//! Every metric that is pushed: the one table of names, types, labels and meanings.

/// Before every name.
pub const NAMESPACE: &str = "managed_tokens";

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Without the namespace.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// What it means, for its `# HELP` line.
    pub help: &'static str,
}

/// The type of a metric, and what becomes of two values for the same labels: two services may share one issuer name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A gauge; the greater value wins: the longer duration, the later time.
    Greatest,
    /// A gauge; values are added: failures, errors.
    Sum,
    /// A histogram with Prometheus's default buckets; both count.
    Histogram,
}

impl Family {
    /// With the namespace.
    pub fn full_name(&self) -> String {
        format!("{NAMESPACE}_{}", self.name)
    }

    /// As in `# TYPE`.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Greatest | Kind::Sum => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

macro_rules! families {
    ($($constant:ident = $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: Family =
            Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// All of them.
        pub const FAMILIES: &[Family] = &[$($constant),*];
    };
}

families! {
    STAGE_DURATION = "stage_duration_seconds" Greatest ["executable", "stage"]
        "Time from the first start to the last end of a stage in the last run that had it";
    LAST_FERRY_REFRESH = "last_ferry_refresh" Greatest []
        "When a UID from FERRY was last stored, in Unix time";
    FERRY_REQUEST_DURATION = "ferry_request_duration_seconds" Histogram []
        "Time that FERRY took to answer a request of the last run";
    FERRY_REQUEST_ERRORS = "ferry_request_error_count" Sum []
        "Accounts for which FERRY could not be asked in the last run";
    FAILED_SERVICES_PUSH = "failed_services_push_count" Sum []
        "Services whose token did not reach all their nodes in their last run";
    KINIT_DURATION = "kinit_duration_seconds" Greatest ["service"]
        "Time to get a Kerberos ticket, when it last succeeded";
    FAILED_KINIT = "failed_kinit_count" Sum ["service"]
        "Failures to get a Kerberos ticket in the last run";
    LAST_TOKEN_GET = "last_token_get_timestamp" Greatest ["service"]
        "When a vault token was last obtained, in Unix time";
    TOKEN_GET_DURATION = "token_get_duration_seconds" Greatest ["service"]
        "Time to obtain a vault token, when it last succeeded";
    FAILED_TOKEN_GET = "failed_vault_token_get_count" Sum ["service"]
        "Failures to obtain a vault token in the last run";
    LAST_TOKEN_STORE = "last_token_store_timestamp" Greatest ["service", "credd"]
        "When a vault token was last stored in the credd, in Unix time";
    TOKEN_STORE_DURATION = "token_store_duration_seconds" Greatest ["service", "credd"]
        "Time to store a vault token in the credd, when it last succeeded";
    FAILED_TOKEN_STORE = "failed_vault_token_store_count" Sum ["service", "credd"]
        "Failures to store a vault token in the credd in the last run";
    PING_DURATION = "ping_duration_seconds" Histogram ["node"]
        "Time to ping the node in the last run";
    FAILED_PING = "failed_ping_count" Sum ["node"]
        "Pings that the node did not answer in the last run, one for each service";
    LAST_TOKEN_PUSH = "last_token_push_timestamp" Greatest ["service", "node"]
        "When the service's token was last pushed to the node, in Unix time";
    TOKEN_PUSH_DURATION = "token_push_duration_seconds" Greatest ["service", "node"]
        "Time to push the service's token to the node, retries included, when it last succeeded";
    FAILED_TOKEN_PUSH = "failed_token_push_count" Sum ["service", "node"]
        "Failures to push the service's token to the node in the last run";
    ADMIN_LAST_SENT = "admin_error_email_last_sent_timestamp" Greatest ["notification_type", "success"]
        "When the admins were last sent a notification of that kind, with or without success, in Unix time";
    ADMIN_SEND_DURATION = "admin_error_email_send_duration_seconds" Greatest ["notification_type"]
        "Time to send the admins a notification of that kind, when it last succeeded";
    SERVICE_LAST_SENT = "service_error_email_last_sent_timestamp" Greatest ["service", "success"]
        "When the service's stakeholders were last sent a mail, with or without success, in Unix time";
    SERVICE_SEND_DURATION = "service_error_email_send_duration_seconds" Histogram []
        "Time to send each mail to stakeholders in the last run";
    SETUP_ERRORS = "current_setup_error_count" Sum ["service"]
        "Runs in a row with an error before the push that nobody has been told of";
    PUSH_ERRORS = "current_push_error_count" Sum ["service", "node"]
        "Runs in a row that could not push to the node and that nobody has been told of";
    RUN_INFO = "run_info" Greatest ["workflow", "run", "status", "host"]
        "The last run of the workflow: always 1";
    RUN_DURATION = "run_duration_seconds" Greatest ["workflow"]
        "How long the last session of the workflow's last run took";
    LAST_RUN = "last_run_timestamp" Greatest ["workflow"]
        "When the last run of the workflow ended, in Unix time";
    TOKEN_EXPIRES = "token_expires_timestamp" Greatest ["service"]
        "When the vault token that the service's last run worked with expires, in Unix time";
    LAST_SUCCESS = "last_success_timestamp" Greatest ["service"]
        "When a run last succeeded for the service with every step, in Unix time";
}
