//! `mt config check | show`: is the configuration right, and what does it come to?

use std::io::{self, Write};
use std::path::Path;

use clap::Subcommand;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::exit::ExitCode;
use super::output::{self, Cell, OutputFormat, Paint, SCHEMA_VERSION, Style};
use super::services;
use crate::config::{self, Config, Environment, LoadError, Remark, Source, show_duration};
use crate::redact::without_password;

/// `mt config …`
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Every mistake and every oddity of the file, each with its place and the expected form
    Check,
    /// Every effective value and where it comes from; no secrets
    Show,
}

/// What the commands about the configuration work with.
pub struct Around<'a> {
    /// `-c`.
    pub configfile: Option<&'a Path>,
    /// What the process was given.
    pub environment: &'a Environment,
    /// `--output`.
    pub output: OutputFormat,
    /// What stdout can show.
    pub style: Style,
}

impl Around<'_> {
    pub(super) fn load(&self) -> Result<Config, LoadError> {
        config::load(self.configfile, self.environment)
    }
}

/// Runs a subcommand. The exit code: 0, or 20 for a configuration that cannot be used.
///
/// # Errors
/// `out` or `err` cannot be written.
pub fn run(command: ConfigCommand, around: &Around<'_>, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    match command {
        ConfigCommand::Check => {
            let loaded = around.load().and_then(with_templates);
            out.write_all(check(&loaded, around.output).as_bytes())?;
            Ok(if loaded.is_ok() { ExitCode::Success } else { ExitCode::Invalid }.number())
        }
        ConfigCommand::Show => match around.load() {
            Ok(config) => {
                out.write_all(show(&config, around.output, &around.style).as_bytes())?;
                Ok(ExitCode::Success.number())
            }
            Err(error) => not_loaded(&error, err),
        },
    }
}

/// Template files are read when a message is made, so a bad one does not keep a run from going; a check wants to know.
fn with_templates(config: Config) -> Result<Config, LoadError> {
    let mistakes = crate::notify::templates::check(&config.templates);
    if mistakes.is_empty() {
        return Ok(config);
    }
    Err(LoadError::Invalid { mistakes, warnings: config.warnings, contact: Box::default() })
}

/// Says on stderr that there is no configuration to work with.
pub(super) fn not_loaded(error: &LoadError, err: &mut dyn Write) -> io::Result<u8> {
    writeln!(err, "{}", error.render())?;
    Ok(ExitCode::Invalid.number())
}

#[derive(Serialize)]
struct Finding {
    severity: &'static str,
    code: String,
    /// Null: the value is from the environment.
    file: Option<String>,
    line: Option<usize>,
    column: Option<usize>,
    path: String,
    message: String,
    expected: Option<String>,
}

impl Finding {
    fn of(remark: &Remark, severity: &'static str) -> Self {
        Self {
            severity,
            code: remark.code.to_string(),
            file: remark.file.as_ref().map(|file| file.display().to_string()),
            line: remark.at.map(|at| at.line),
            column: remark.at.map(|at| at.column),
            path: remark.path.clone(),
            message: remark.what.clone(),
            expected: remark.expected.clone(),
        }
    }
}

/// What `mt config check` prints.
fn check(loaded: &Result<Config, LoadError>, format: OutputFormat) -> String {
    let none: &[Remark] = &[];
    let (mistakes, warnings) = match loaded {
        Ok(config) => (none, config.warnings.as_slice()),
        Err(LoadError::Invalid { mistakes, warnings, .. }) => (mistakes.as_slice(), warnings.as_slice()),
        Err(LoadError::NotFound { .. } | LoadError::Unreadable { .. } | LoadError::UnknownFormat { .. }) => {
            (none, none)
        }
    };
    let mut findings: Vec<_> = mistakes.iter().map(|mistake| Finding::of(mistake, "error")).collect();
    if let (Err(error), []) = (loaded, mistakes) {
        let message = error.to_string();
        let code = error.code().to_string();
        let nowhere = Finding {
            severity: "error",
            code,
            file: None,
            line: None,
            column: None,
            path: String::new(),
            message,
            expected: None,
        };
        findings.push(nowhere);
    }
    let errors = findings.len();
    findings.extend(warnings.iter().map(|warning| Finding::of(warning, "warning")));
    match format {
        OutputFormat::Ndjson => findings.iter().map(output::json_line).collect(),
        OutputFormat::Json => {
            let config = loaded.as_ref().ok();
            output::json(&json!({
                "schema_version": SCHEMA_VERSION,
                "valid": config.is_some(),
                "file": config.map(|config| config.file.display().to_string()),
                "services": config.map(|config| config.services.len()),
                "nodes": config.map(Config::node_count),
                "findings": findings,
            }))
        }
        OutputFormat::Table => {
            let mut text = String::new();
            if let Err(error) = loaded {
                text += &format!("{}\n", error.render());
            }
            for warning in warnings {
                text += &format!("{}\n", warning.render("warning"));
            }
            text + &summary(loaded, errors, warnings.len()) + "\n"
        }
    }
}

/// `/etc/…/managedTokens.json: 50 services, 212 nodes`, or how many errors there are.
fn summary(loaded: &Result<Config, LoadError>, errors: usize, warnings: usize) -> String {
    let also = if warnings == 0 { String::new() } else { format!(", {}", count(warnings, "warning")) };
    match loaded {
        Ok(config) => {
            let (services, nodes) = (count(config.services.len(), "service"), count(config.node_count(), "node"));
            format!("{}: {services}, {nodes}{also}", config.file.display())
        }
        Err(_) => format!("{}{also}; mt explain CODE says more", count(errors, "error")),
    }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// One effective value.
pub(super) struct Effective {
    pub key: String,
    pub value: Value,
    pub source: Source,
}

/// What `mt config show` prints.
fn show(config: &Config, format: OutputFormat, style: &Style) -> String {
    let global = global(config);
    match format {
        OutputFormat::Table => {
            let mut text = format!("{}\n\n{}", config.file.display(), table("KEY", &global, style));
            for service in &config.services {
                text += &format!("\n{}\n{}", service.name, table("FIELD", &services::fields(config, service), style));
            }
            text
        }
        OutputFormat::Json => output::json(&json!({
            "schema_version": SCHEMA_VERSION,
            "file": config.file.display().to_string(),
            "global": object(&global),
            "services": config.services.iter().map(|service| services::document(config, service)).collect::<Vec<_>>(),
        })),
        OutputFormat::Ndjson => {
            let global = json!({"schema_version": SCHEMA_VERSION, "global": object(&global)});
            let lines = config.services.iter().map(|service| services::document(config, service));
            std::iter::once(global).chain(lines).map(|line| output::json_line(&line)).collect()
        }
    }
}

/// `{"keytab": {"value": …, "source": …}, …}`.
pub(super) fn object(values: &[Effective]) -> Value {
    let entry = |e: &Effective| (e.key.clone(), json!({"value": e.value, "source": e.source}));
    Value::Object(values.iter().map(entry).collect::<Map<_, _>>())
}

/// Key, value and source of each; a list has a line for each of its items.
pub(super) fn table(heading: &str, values: &[Effective], style: &Style) -> String {
    let mut rows = Vec::new();
    for value in values {
        let source = Cell::new(value.source.to_string(), Paint::Faint);
        let mut lines = lines(&value.value).into_iter();
        let first = lines.next().unwrap_or_else(|| "-".to_owned());
        rows.push(vec![Cell::plain(&value.key), Cell::plain(first), source]);
        rows.extend(lines.map(|line| vec![Cell::plain(""), Cell::plain(line), Cell::plain("")]));
    }
    output::table(&[heading, "VALUE", "FROM"], rows, style)
}

fn lines(value: &Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(lines).collect(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => vec![value.to_string()],
    }
}

/// Every global value; `null` where nothing is configured and something else decides (the workflow, say).
fn global(config: &Config) -> Vec<Effective> {
    let duration = |duration: Option<std::time::Duration>| json!(duration.map(show_duration));
    // Whoever knows the webhook's URL can post.
    let hidden =
        |recipients: &config::Recipients| json!(recipients.slack_alerts_url.as_ref().map(|_| "(set, not shown)"));
    let login = config.email.as_ref().and_then(|email| email.login.as_ref());
    let (email, ferry, timeouts) = (config.email.as_ref(), &config.ferry, &config.timeouts);
    let mut values: Vec<(String, Value)> = vec![
        ("errorCountToSendMessage".into(), json!(config.error_count_to_send_message)),
        ("disableNotifications".into(), json!(config.disable_notifications)),
        ("devEnvironmentLabel".into(), json!(config.dev_environment_label)),
        ("dbLocation".into(), json!(config.db_location)),
        ("stateDir".into(), json!(config.state_dir)),
        ("timeouts.globalTimeout".into(), duration(timeouts.global)),
        ("timeouts.kerberosTimeout".into(), duration(timeouts.kerberos)),
        ("timeouts.vaultStorerTimeout".into(), duration(timeouts.vault_storer)),
        ("timeouts.pingTimeout".into(), duration(timeouts.ping)),
        ("timeouts.pushTimeout".into(), duration(timeouts.push)),
        ("timeouts.ferryRequestTimeout".into(), duration(timeouts.ferry_request)),
        ("timeouts.dbTimeout".into(), duration(timeouts.db)),
    ];
    let types = &config.worker_types;
    for (name, retry) in [
        ("getKerberosTickets", types.get_kerberos_tickets),
        ("getToken", types.get_token),
        ("storeAndGetToken", types.store_and_get_token),
        ("storeAndGetTokenInteractive", types.store_and_get_token_interactive),
        ("pingAggregator", types.ping_aggregator),
        ("pushTokens", types.push_tokens),
    ] {
        values.push((format!("workerType.{name}.numRetries"), json!(retry.num_retries)));
        values.push((format!("workerType.{name}.retrySleep"), duration(retry.retry_sleep)));
    }
    values.extend([
        ("notifications.admin_email".into(), json!(config.notifications.admin_email)),
        ("notifications.slack_alerts_url".into(), hidden(&config.notifications)),
        ("notifications_test.admin_email".into(), json!(config.notifications_test.admin_email)),
        ("notifications_test.slack_alerts_url".into(), hidden(&config.notifications_test)),
        ("email.from".into(), json!(email.map(|email| &email.from))),
        ("email.smtpHost".into(), json!(email.map(|email| &email.smtp_host))),
        ("email.smtpPort".into(), json!(email.map(|email| email.smtp_port))),
        ("email.tls".into(), json!(email.map(|email| email.tls))),
        ("email.username".into(), json!(login.map(|login| &login.username))),
        ("email.passwordFile".into(), json!(login.map(|login| &login.password_file))),
        ("email.caFile".into(), json!(email.map(|email| &email.ca_file))),
        ("templates.adminMail".into(), json!(config.templates.admin_mail)),
        ("templates.stakeholderMail".into(), json!(config.templates.stakeholder_mail)),
        ("templates.slack".into(), json!(config.templates.slack)),
        (
            "prometheus.host".into(),
            json!(config.prometheus.as_ref().map(|prometheus| without_password(&prometheus.host))),
        ),
        ("prometheus.jobname".into(), json!(config.prometheus_job())),
        ("tracing.url".into(), json!(config.tracing.as_ref().map(|tracing| without_password(&tracing.url)))),
        ("tracing.protocol".into(), json!(config.tracing.as_ref().map(|tracing| tracing.protocol))),
        ("loki.host".into(), json!(config.loki.as_ref().map(|loki| without_password(&loki.host)))),
        (
            "loki.response_header_timeout".into(),
            duration(config.loki.as_ref().map(|loki| loki.response_header_timeout)),
        ),
        ("ferry.host".into(), json!(ferry.host.as_deref().map(without_password))),
        ("ferry.port".into(), json!(ferry.port)),
        ("ferry.hostCert".into(), json!(ferry.host_cert)),
        ("ferry.hostKey".into(), json!(ferry.host_key)),
        ("ferry.caPath".into(), json!(ferry.ca_path)),
        ("ferry.serviceKeytabPath".into(), json!(ferry.service_keytab_path)),
        ("ferry.serviceKerberosPrincipal".into(), json!(ferry.service_kerberos_principal)),
        ("ferry.serviceExperiment".into(), json!(ferry.service_experiment)),
        ("ferry.serviceRole".into(), json!(ferry.service_role)),
        ("ferry.vaultServer".into(), json!(ferry.vault_server)),
    ]);
    values.push(("logs.format".into(), json!(config.log_format)));
    for (executable, files) in &config.logs {
        values.push((format!("logs.{executable}.logfile"), json!(files.logfile)));
        values.push((format!("logs.{executable}.debugfile"), json!(files.debugfile)));
    }
    let source = |key: &str| config.sources.global.get(key).cloned().unwrap_or(Source::Default);
    values.into_iter().map(|(key, value)| Effective { source: source(&key), key, value }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config").join(name)
    }

    fn run_on(file: &Path, command: ConfigCommand, output: OutputFormat) -> (u8, String, String) {
        let environment = Environment::new([("_condor_COLLECTOR_HOST", "env.example.org")], "/site");
        let around = Around { configfile: Some(file), environment: &environment, output, style: Style::PLAIN };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(command, &around, &mut out, &mut err).unwrap();
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    fn insta_settings() -> insta::Settings {
        let mut settings = insta::Settings::clone_current();
        settings.add_filter(r"/\S*/tests/fixtures", "tests/fixtures");
        settings
    }

    #[test]
    fn a_good_file_is_summed_up_in_one_line() {
        let (code, out, err) = run_on(&fixture("site.json"), ConfigCommand::Check, OutputFormat::Table);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.ends_with("tests/fixtures/config/site.json: 5 services, 7 nodes\n"), "{out}");
        assert_eq!(out.lines().count(), 1);
    }

    #[test]
    fn a_bad_file_exits_20_with_every_finding() {
        let (code, out, err) = run_on(&fixture("mistakes.yml"), ConfigCommand::Check, OutputFormat::Table);
        assert_eq!((code, err.as_str()), (20, ""));
        assert_eq!(out.lines().last(), Some("28 errors, 6 warnings; mt explain CODE says more"));
        let (code, json, _) = run_on(&fixture("mistakes.yml"), ConfigCommand::Check, OutputFormat::Json);
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(code, 20);
        assert_eq!((&json["schema_version"], &json["valid"]), (&json!(1), &json!(false)));
        let findings = json["findings"].as_array().unwrap();
        assert_eq!(findings.len(), 34);
        assert_eq!((&findings[0]["path"], &findings[0]["line"]), (&json!("keytabPath"), &json!(1)));
    }

    #[test]
    fn a_file_that_is_not_there_exits_20_and_says_so() {
        let missing = Path::new("/nonexistent/mt.json");
        for output in [OutputFormat::Table, OutputFormat::Json, OutputFormat::Ndjson] {
            let (code, out, _) = run_on(missing, ConfigCommand::Check, output);
            assert_eq!(code, 20);
            assert!(out.contains("/nonexistent/mt.json") && out.contains("MT0081"), "{out}");
        }
        let (code, out, err) = run_on(missing, ConfigCommand::Show, OutputFormat::Table);
        assert_eq!((code, out.as_str()), (20, ""));
        assert!(err.starts_with("error[MT0081]"), "{err}");
    }

    #[test]
    fn a_template_file_with_a_mistake_is_named_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let (file, template) = (directory.path().join("c.yml"), directory.path().join("slack.txt"));
        std::fs::write(&template, "{{ summary }}\n{{ sumary }}\n").unwrap();
        let text = format!("experiments: {{}}\ntemplates: {{slack: {}}}\n", template.display());
        std::fs::write(&file, text).unwrap();
        let (code, out, _) = run_on(&file, ConfigCommand::Check, OutputFormat::Table);
        assert_eq!(code, 20, "{out}");
        assert!(out.starts_with("error[MT0235]: templates.slack: undefined value"), "{out}");
        assert!(out.contains(&format!("--> {}:2:1", template.display())), "{out}");
        std::fs::write(&template, "{{ summary }}\n").unwrap();
        assert_eq!(run_on(&file, ConfigCommand::Check, OutputFormat::Table).0, 0);
    }

    #[test]
    fn show_says_where_every_value_comes_from_and_shows_no_secret() {
        let (code, table, _) = run_on(&fixture("every-key.json"), ConfigCommand::Show, OutputFormat::Table);
        assert_eq!(code, 0);
        insta_settings().bind(|| insta::assert_snapshot!(table));
        let (_, json, _) = run_on(&fixture("every-key.json"), ConfigCommand::Show, OutputFormat::Json);
        insta_settings().bind(|| insta::assert_snapshot!(json));
        for secret in ["slack.example.org", "hunter2"] {
            assert!(!table.contains(secret) && !json.contains(secret), "{secret}");
        }
    }

    #[test]
    fn a_variable_of_the_environment_is_named_as_a_source() {
        let (_, table, _) = run_on(&fixture("site.json"), ConfigCommand::Show, OutputFormat::Table);
        assert!(table.contains("environment _condor_COLLECTOR_HOST"), "{table}");
    }
}
