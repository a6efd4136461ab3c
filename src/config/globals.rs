//! The parts of the configuration that belong to no service.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::redact::Secret;

use super::codes;
use super::environment::Environment;
use super::names;
use super::readers;
use super::section::{Noted, Notes, Section, Value};
use super::service::Timeouts;
use super::settings::{Ferry, LogFiles, LogFormat, Loki, Prometheus, Recipients, Tracing, TracingProtocol};
use super::settings::{WorkerRetry, WorkerTypes};
use super::source::Source;

/// Wins over `devEnvironmentLabel`.
const LABEL_VARIABLE: &str = "MANAGED_TOKENS_DEV_ENVIRONMENT_LABEL";
const DEFAULT_LABEL: &str = "production";

/// Where global values come from, filled while they are read.
pub(super) type GlobalSources = BTreeMap<String, Source>;

/// Reads a key of a section, and notes its source.
pub(super) fn take<T>(
    section: &mut Section<'_>,
    name: &'static str,
    sources: &mut GlobalSources,
    notes: &mut Notes<'_>,
    read: impl FnOnce(&Value<'_>, &mut Notes<'_>) -> Result<T, Noted>,
) -> Option<T> {
    let path = section.path_of(name);
    let Some(value) = section.get(name) else {
        sources.insert(path, Source::Default);
        return None;
    };
    sources.insert(path.clone(), Source::File(path));
    read(&value, notes).ok()
}

/// `timeouts`: `pushTimeout`, or `push` as the Go service takes it too.
pub(super) fn timeouts(root: &mut Section<'_>, sources: &mut GlobalSources, notes: &mut Notes<'_>) -> Timeouts {
    let mut section = root.section("timeouts", notes);
    let mut timeouts = Timeouts::default();
    let keys: [(&'static str, &'static str, &mut Option<Duration>); 7] = [
        ("globalTimeout", "global", &mut timeouts.global),
        ("kerberosTimeout", "kerberos", &mut timeouts.kerberos),
        ("vaultStorerTimeout", "vaultStorer", &mut timeouts.vault_storer),
        ("pingTimeout", "ping", &mut timeouts.ping),
        ("pushTimeout", "push", &mut timeouts.push),
        ("ferryRequestTimeout", "ferryRequest", &mut timeouts.ferry_request),
        ("dbTimeout", "db", &mut timeouts.db),
    ];
    for (long, short, place) in keys {
        let long_value = take(&mut section, long, sources, notes, readers::timeout);
        let Some(value) = section.get(short) else {
            *place = long_value;
            continue;
        };
        if long_value.is_some() {
            value.wrong(codes::DUPLICATE_KEY, format!("{long} is given too"), "one of the two", notes);
        }
        sources.insert(section.path_of(long), Source::File(value.path.clone()));
        *place = readers::timeout(&value, notes).ok();
    }
    section.finish(&[], notes);
    timeouts
}

/// `workerType`.
pub(super) fn worker_types(root: &mut Section<'_>, sources: &mut GlobalSources, notes: &mut Notes<'_>) -> WorkerTypes {
    let mut section = root.section("workerType", notes);
    let mut retry = |name: &'static str| {
        let mut worker = section.section(name, notes);
        let retry = WorkerRetry {
            num_retries: take(&mut worker, "numRetries", sources, notes, |v, n| v.integer(0, 1_000, n)),
            retry_sleep: take(&mut worker, "retrySleep", sources, notes, readers::pause),
        };
        worker.finish(&[], notes);
        retry
    };
    let types = WorkerTypes {
        get_kerberos_tickets: retry("getKerberosTickets"),
        get_token: retry("getToken"),
        store_and_get_token: retry("storeAndGetToken"),
        store_and_get_token_interactive: retry("storeAndGetTokenInteractive"),
        ping_aggregator: retry("pingAggregator"),
        push_tokens: retry("pushTokens"),
    };
    section.finish(&[], notes);
    types
}

/// `errorCountToSendMessage`: 1, every error at once, unless given; 0 means the same, as in the Go service.
pub(super) fn error_count(root: &mut Section<'_>, sources: &mut GlobalSources, notes: &mut Notes<'_>) -> u32 {
    let count = take(root, "errorCountToSendMessage", sources, notes, |v, n| v.integer(0, u32::MAX, n));
    count.unwrap_or(1).max(1)
}

/// `notifications` or `notifications_test`.
pub(super) fn recipients(
    root: &mut Section<'_>,
    name: &'static str,
    sources: &mut GlobalSources,
    notes: &mut Notes<'_>,
) -> Recipients {
    let mut section = root.section(name, notes);
    let admin_email = take(&mut section, "admin_email", sources, notes, readers::addresses).unwrap_or_default();
    let url = take(&mut section, "slack_alerts_url", sources, notes, slack_url).flatten();
    section.finish(&[], notes);
    Recipients { admin_email, slack_alerts_url: url }
}

fn slack_url(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<Option<Secret>, Noted> {
    let expected = "the URL of Slack's incoming webhook, https://…";
    let text = value.secret(expected, notes)?.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let url = reqwest::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    match url {
        Some(url) => {
            if url.scheme() == "http" && !is_this_host(&url) {
                let what = "is without TLS: the URL, which is a secret, goes over the network as it is";
                notes.warning(codes::ODD_VALUE, Some(value.at), &value.path, what.to_owned(), expected);
            }
            Ok(Some(Secret::new(text.to_owned())))
        }
        None => Err(value.wrong(codes::WRONG_TYPE, "is not a URL (not shown: it is a secret)", expected, notes)),
    }
}

fn is_this_host(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(super) fn port(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<u16, Noted> {
    // The range makes the conversion one that cannot fail.
    value.integer(1, u32::from(u16::MAX), notes).map(|port| u16::try_from(port).unwrap_or(u16::MAX))
}

/// A URL that names a service of the site. Without a scheme it is taken with a warning: the Go service takes it, too,
/// and then fails to reach it.
fn url(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<Option<String>, Noted> {
    let Some(text) = readers::optional_text(value, notes)? else { return Ok(None) };
    if !text.contains("://") {
        let what = format!("{} has no scheme", names::show(&text));
        notes.warning(
            codes::ODD_VALUE,
            Some(value.at),
            &value.path,
            what,
            "a URL such as https://host.example.org:8443",
        );
    }
    Ok(Some(text))
}

/// `prometheus`.
pub(super) fn prometheus(
    root: &mut Section<'_>,
    sources: &mut GlobalSources,
    notes: &mut Notes<'_>,
) -> Option<Prometheus> {
    let mut section = root.section("prometheus", notes);
    let host = take(&mut section, "host", sources, notes, url).flatten();
    let jobname = take(&mut section, "jobname", sources, notes, readers::optional_text).flatten();
    section.finish(&[], notes);
    Some(Prometheus { host: host?, jobname: jobname.unwrap_or_else(|| Prometheus::DEFAULT_JOB.to_owned()) })
}

/// `tracing`.
pub(super) fn tracing(root: &mut Section<'_>, sources: &mut GlobalSources, notes: &mut Notes<'_>) -> Option<Tracing> {
    let mut section = root.section("tracing", notes);
    let url = take(&mut section, "url", sources, notes, url).flatten();
    let given = take(&mut section, "protocol", sources, notes, |value, notes| {
        let expected = "\"jaeger\" or \"otlp\"";
        match value.text(expected, notes)? {
            "jaeger" => Ok(TracingProtocol::Jaeger),
            "otlp" => Ok(TracingProtocol::Otlp),
            other => {
                let what = format!("{} is not known", names::show(other));
                Err(value.wrong(codes::UNKNOWN_VALUE, what, expected, notes))
            }
        }
    });
    section.finish(&[], notes);
    let url = url?;
    let path = url.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let guessed = if path.ends_with("/api/traces") { TracingProtocol::Jaeger } else { TracingProtocol::Otlp };
    Some(Tracing { protocol: given.unwrap_or(guessed), url })
}

/// `loki`.
pub(super) fn loki(root: &mut Section<'_>, sources: &mut GlobalSources, notes: &mut Notes<'_>) -> Option<Loki> {
    let mut section = root.section("loki", notes);
    let host = take(&mut section, "host", sources, notes, url).flatten();
    let timeout = take(&mut section, "response_header_timeout", sources, notes, readers::timeout);
    section.finish(&[], notes);
    Some(Loki { host: host?, response_header_timeout: timeout.unwrap_or(Duration::from_secs(1)) })
}

/// `logs`: the files of every executable, and the format of all.
pub(super) fn logs(
    root: &mut Section<'_>,
    env: &Environment,
    sources: &mut GlobalSources,
    notes: &mut Notes<'_>,
) -> (BTreeMap<String, LogFiles>, LogFormat) {
    let mut section = root.section("logs", notes);
    let format = take(&mut section, "format", sources, notes, |value, notes| {
        let expected = "\"text\", \"logfmt\" or \"json\"";
        match value.text(expected, notes)? {
            "text" => Ok(LogFormat::Text),
            "logfmt" => Ok(LogFormat::Logfmt),
            "json" => Ok(LogFormat::Json),
            other => {
                let what = format!("{} is not known", names::show(other));
                Err(value.wrong(codes::UNKNOWN_VALUE, what, expected, notes))
            }
        }
    });
    let mut logs = BTreeMap::new();
    for (entry, value) in section.values().filter(|(entry, _)| entry.key != "format") {
        let Some(Ok(mut files)) = value.map(|value| value.section(notes)) else { continue };
        let mut file =
            |name| take(&mut files, name, sources, notes, optional_path).flatten().map(|path| env.absolute(&path));
        let found = LogFiles { logfile: file("logfile"), debugfile: file("debugfile") };
        files.finish(&[], notes);
        logs.insert(entry.key.clone(), found);
    }
    (logs, format.unwrap_or_default())
}

pub(super) fn optional_path(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<Option<PathBuf>, Noted> {
    readers::optional_text(value, notes).map(|text| text.map(PathBuf::from))
}

/// `ferry`.
pub(super) fn ferry(
    root: &mut Section<'_>,
    env: &Environment,
    sources: &mut GlobalSources,
    notes: &mut Notes<'_>,
) -> Ferry {
    let mut section = root.section("ferry", notes);
    let file =
        |section: &mut Section<'_>, name, sources: &mut GlobalSources, notes: &mut Notes<'_>| -> Option<PathBuf> {
            take(section, name, sources, notes, optional_path).flatten().map(|path| env.absolute(&path))
        };
    let ferry = Ferry {
        host: take(&mut section, "host", sources, notes, url).flatten(),
        port: take(&mut section, "port", sources, notes, port),
        host_cert: file(&mut section, "hostCert", sources, notes),
        host_key: file(&mut section, "hostKey", sources, notes),
        ca_path: file(&mut section, "caPath", sources, notes),
        service_keytab_path: file(&mut section, "serviceKeytabPath", sources, notes),
        service_kerberos_principal: take(&mut section, "serviceKerberosPrincipal", sources, notes, |v, n| {
            checked(v, names::check_ferry_principal, n)
        })
        .flatten(),
        service_experiment: take(&mut section, "serviceExperiment", sources, notes, |v, n| {
            checked(v, names::check_experiment, n)
        })
        .flatten(),
        service_role: take(&mut section, "serviceRole", sources, notes, |v, n| checked(v, names::check_ferry_role, n))
            .flatten(),
        vault_server: take(&mut section, "vaultServer", sources, notes, |v, n| {
            checked(v, names::check_vault_server, n)
        })
        .flatten(),
    };
    section.finish(&[], notes);
    ferry
}

fn checked(
    value: &Value<'_>,
    check: fn(&str) -> Result<(), names::BadName>,
    notes: &mut Notes<'_>,
) -> Result<Option<String>, Noted> {
    let Some(text) = readers::optional_text(value, notes)? else { return Ok(None) };
    check(&text).map(|()| Some(text)).map_err(|bad| value.bad_name(&bad, notes))
}

/// The label: the environment's, else the file's, else `production`.
pub(super) fn label(
    root: &mut Section<'_>,
    env: &Environment,
    sources: &mut GlobalSources,
    notes: &mut Notes<'_>,
) -> String {
    let given = take(root, "devEnvironmentLabel", sources, notes, |v, n| checked(v, names::check_label, n)).flatten();
    let Some(label) = env.get(LABEL_VARIABLE) else {
        return given.unwrap_or_else(|| DEFAULT_LABEL.to_owned());
    };
    if let Err(bad) = names::check_label(label) {
        notes.bad_variable(LABEL_VARIABLE, format!("{} is not {}: {}", bad.shown, bad.kind, bad.why), bad.expected);
    }
    sources.insert("devEnvironmentLabel".to_owned(), Source::Environment(LABEL_VARIABLE.to_owned()));
    label.to_owned()
}

/// `dbLocation` or `stateDir`, seen from the working directory.
pub(super) fn location(
    root: &mut Section<'_>,
    name: &'static str,
    env: &Environment,
    sources: &mut GlobalSources,
    notes: &mut Notes<'_>,
) -> Option<PathBuf> {
    take(root, name, sources, notes, readers::path).map(|path| env.absolute(&path))
}
