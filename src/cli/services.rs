//! `mt services list | show`: the configured services.

use std::io::{self, Write};

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::config::{Around, Effective, not_loaded, object, table};
use super::error::codes;
use super::exit::ExitCode;
use super::output::{self, Cell, OutputFormat, Paint, SCHEMA_VERSION, Style};
use crate::config::{Config, Credds, Service, Source, TokenGetter};

/// `mt services …`
#[derive(Clone, Debug, Subcommand)]
pub enum ServicesCommand {
    /// Every configured service
    List,
    /// One service: every effective value and where it comes from
    Show {
        /// Its name, EXPERIMENT_ROLE
        service: String,
    },
}

/// Runs a subcommand. The exit code: 0, 2 for a service that is not configured, 20 for a configuration that cannot be used.
///
/// # Errors
/// `out` or `err` cannot be written.
pub fn run(command: &ServicesCommand, around: &Around<'_>, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let config = match around.load() {
        Ok(config) => config,
        Err(error) => return not_loaded(&error, err),
    };
    let text = match command {
        ServicesCommand::List => list(&config, around.output, &around.style),
        ServicesCommand::Show { service } => match config.select(std::slice::from_ref(service), &[]).as_deref() {
            Ok([service, ..]) => show(&config, service, around.output, &around.style),
            // One name selects one service.
            Ok([]) => String::new(),
            Err(unknown) => {
                writeln!(err, "error[{}]: {unknown}", codes::NO_SUCH_SERVICE)?;
                return Ok(ExitCode::Usage.number());
            }
        },
    };
    out.write_all(text.as_bytes())?;
    Ok(ExitCode::Success.number())
}

/// What `mt services list` prints.
fn list(config: &Config, format: OutputFormat, style: &Style) -> String {
    let row = |service: &Service| {
        json!({
            "name": service.name,
            "experiment": service.experiment,
            "role": service.role,
            "issuer_service": service.issuer_service,
            "account": service.account,
            "nodes": service.nodes,
            "token_getter": getter(service),
            "notifications": service.notifications,
        })
    };
    match format {
        OutputFormat::Table => {
            let rows = config.services.iter().map(|service| {
                let same = service.issuer_service.as_str() == service.name.as_str();
                let issuer = if same { "-" } else { service.issuer_service.as_str() };
                let notifications =
                    if service.notifications { Cell::plain("on") } else { Cell::new("off", Paint::Warn) };
                vec![
                    Cell::plain(service.name.as_str()),
                    Cell::plain(issuer),
                    Cell::plain(service.account.as_str()),
                    Cell::plain(service.nodes.len().to_string()),
                    Cell::plain(getter(service)),
                    notifications,
                ]
            });
            let header = ["SERVICE", "AT THE ISSUER", "ACCOUNT", "NODES", "TOKEN", "NOTIFICATIONS"];
            output::table(&header, rows.collect(), style)
        }
        OutputFormat::Json => {
            let services: Vec<_> = config.services.iter().map(row).collect();
            output::json(&json!({"schema_version": SCHEMA_VERSION, "services": services}))
        }
        OutputFormat::Ndjson => config.services.iter().map(|service| output::json_line(&row(service))).collect(),
    }
}

/// What `mt services show` prints.
fn show(config: &Config, service: &Service, format: OutputFormat, style: &Style) -> String {
    match format {
        OutputFormat::Table => format!("{}\n{}", service.name, table("FIELD", &fields(config, service), style)),
        OutputFormat::Json => {
            let mut whole = Map::from_iter([("schema_version".to_owned(), json!(SCHEMA_VERSION))]);
            if let Value::Object(fields) = document(config, service) {
                whole.extend(fields);
            }
            output::json(&Value::Object(whole))
        }
        OutputFormat::Ndjson => output::json_line(&document(config, service)),
    }
}

/// A service as one JSON object.
pub(super) fn document(config: &Config, service: &Service) -> Value {
    json!({
        "name": service.name,
        "experiment": service.experiment,
        "role": service.role,
        "issuer_service": service.issuer_service,
        "fields": object(&fields(config, service)),
    })
}

/// Every effective value of a service.
pub(super) fn fields(config: &Config, service: &Service) -> Vec<Effective> {
    let words = |words: &[String]| json!(shell_words::join(words));
    let mut values = vec![
        ("issuer", json!(service.issuer)),
        ("account", json!(service.account)),
        ("uid", json!(service.uid_override)),
        ("nodes", json!(service.nodes)),
        ("keytab", json!(service.keytab)),
        ("principal", json!(service.principal)),
        ("token_getter", json!(getter(service))),
        ("vault_server", json!(service.vault_server)),
    ];
    match &service.credds {
        // No credd is asked or told, whatever is configured.
        _ if service.token_getter == TokenGetter::GetToken => {}
        Credds::Fixed(credd) => values.push(("credds", json!([credd]))),
        Credds::Collector { collectors, constraint } => {
            let asked: Vec<_> = collectors.iter().map(|collector| format!("asked of {collector}")).collect();
            values.push(("credds", json!(asked)));
            values.push(("constraint", json!(constraint)));
        }
    }
    values.extend([
        ("token_directory", json!(service.token_directory)),
        ("min_token_lifetime", json!(service.min_token_lifetime)),
        ("default_role_file", json!(service.default_role_file_template)),
        ("ping_options", words(&service.ping_options)),
        ("copier_options", words(&service.copier_options)),
        ("ssh_options", words(&service.ssh_options)),
        ("emails", json!(service.emails)),
        ("notifications", json!(service.notifications)),
    ]);
    let sources = config.sources.services.get(service.name.as_str());
    let source = |field: &str| sources.and_then(|sources| sources.get(field)).cloned().unwrap_or(Source::Default);
    values.into_iter().map(|(key, value)| Effective { key: key.to_owned(), value, source: source(key) }).collect()
}

fn getter(service: &Service) -> &'static str {
    match service.token_getter {
        TokenGetter::StoreAndGetToken => "storeAndGetToken",
        TokenGetter::GetToken => "getToken",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Environment;

    fn run_on(command: &ServicesCommand, output: OutputFormat) -> (u8, String, String) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config/site.json");
        let environment = Environment::new([("HOME", "/nonexistent")], "/site");
        let around = Around { configfile: Some(&file), environment: &environment, output, style: Style::PLAIN };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(command, &around, &mut out, &mut err).unwrap();
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn the_list_has_a_line_for_each_service() {
        let (code, table, _) = run_on(&ServicesCommand::List, OutputFormat::Table);
        assert_eq!(code, 0);
        insta::assert_snapshot!(table);
        let (_, json, _) = run_on(&ServicesCommand::List, OutputFormat::Json);
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["schema_version"], 1);
        assert_eq!(json["services"][0]["name"], "dune-2_production");
        let (_, lines, _) = run_on(&ServicesCommand::List, OutputFormat::Ndjson);
        assert_eq!(lines.lines().count(), 5);
    }

    #[test]
    fn one_service_is_shown_with_the_source_of_each_value() {
        let show = |output| run_on(&ServicesCommand::Show { service: "Dune-2_Production".to_owned() }, output);
        let (code, table, _) = show(OutputFormat::Table);
        assert_eq!(code, 0);
        insta::assert_snapshot!(table);
        let json: Value = serde_json::from_str(&show(OutputFormat::Json).1).unwrap();
        assert_eq!(json["schema_version"], 1);
        let uid = json!({"value": 51234, "source": {"kind": "override", "name": "experiments.dune-2.roles.production.desiredUIDOverride"}});
        assert_eq!(json["fields"]["uid"], uid);
        assert_eq!(json["fields"]["ping_options"]["source"], json!({"kind": "default"}));
    }

    #[test]
    fn a_service_that_is_not_configured_is_a_usage_error_with_the_nearest() {
        let (code, out, err) =
            run_on(&ServicesCommand::Show { service: "dune_productio".to_owned() }, OutputFormat::Table);
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(
            err.starts_with(
                "error[MT0008]: service \"dune_productio\" is not configured (did you mean dune_production?)"
            ),
            "{err}"
        );
    }
}
