//! The configuration file: what loads, what it means, and what is said when it does not load.

use std::path::{Path, PathBuf};
use std::time::Duration;

use managed_tokens::config::{
    Config, Credds, Email, Environment, Format, LoadError, MailTls, Source, TokenGetter, TracingProtocol, load,
    load_file, parse,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config").join(name)
}

fn nothing() -> Environment {
    Environment::new([("HOME", "/nonexistent")], "/site")
}

fn yaml(text: &str) -> Result<Config, LoadError> {
    parse(text, Format::Yaml, Path::new("test.yml"), &nothing())
}

/// The mistakes of a text, each as `path: what`.
fn mistakes(text: &str) -> Vec<String> {
    match yaml(text) {
        Ok(config) => panic!("it loads: {config:?}"),
        Err(LoadError::Invalid { mistakes, .. }) => {
            mistakes.iter().map(|mistake| format!("{}: {}", mistake.path, mistake.what)).collect()
        }
        Err(other) => panic!("{other}"),
    }
}

/// A configuration that loads, with more keys for the file and for its one role.
fn with(global: &str, role: &str) -> String {
    let role: String = role.lines().map(|line| format!("        {line}\n")).collect();
    format!(
        "keytabPath: /keytabs\nkerberosPrincipalPattern: '{{{{.Account}}}}@REALM'\n{global}\nexperiments:\n  dune:\n    \
         roles:\n      production:\n        account: dunepro\n        destinationNodes: [dune01]\n{role}"
    )
}

fn one(global: &str, role: &str) -> managed_tokens::config::Service {
    yaml(&with(global, role)).unwrap_or_else(|error| panic!("{error}")).services.remove(0)
}

#[test]
fn the_same_configuration_in_json_yaml_and_ron_is_the_same() {
    let load = |name| load_file(&fixture(name), &nothing()).unwrap_or_else(|error| panic!("{error}"));
    let json = load("site.json");
    assert_eq!(json.services.len(), 5);
    assert_eq!(json.warnings, []);
    for name in ["site.yml", "site.ron"] {
        let mut other = load(name);
        assert_eq!(other.file, fixture(name));
        other.file = json.file.clone();
        // Where a value came from may differ: a default that one of them spells out, `push` for `pushTimeout`.
        other.sources = json.sources.clone();
        assert_eq!(other, json, "{name}");
    }
}

#[test]
fn every_key_is_read_and_every_override_wins() {
    let config = load_file(&fixture("every-key.json"), &nothing()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.warnings, []);
    assert_eq!(config.error_count_to_send_message, 2);
    assert!(config.disable_notifications);
    assert_eq!(config.dev_environment_label, "development");
    assert_eq!(config.prometheus_job(), "job_development");
    assert_eq!(config.db_location.as_deref(), Some(Path::new("/db/managed-tokens.db")));
    assert_eq!(config.state_dir.as_deref(), Some(Path::new("/state")));
    let timeouts = &config.timeouts;
    let seconds =
        [timeouts.kerberos, timeouts.vault_storer, timeouts.ping, timeouts.push, timeouts.ferry_request, timeouts.db];
    assert_eq!(seconds, [1, 2, 3, 4, 5, 6].map(|n| Some(Duration::from_secs(n))));
    assert_eq!(timeouts.global, Some(Duration::from_secs(600)));
    let types = config.worker_types;
    let retries = [
        types.get_kerberos_tickets,
        types.get_token,
        types.store_and_get_token,
        types.store_and_get_token_interactive,
        types.ping_aggregator,
        types.push_tokens,
    ];
    for (retry, n) in retries.iter().zip(1_u32..) {
        assert_eq!((retry.num_retries, retry.retry_sleep), (Some(n), Some(Duration::from_secs(n.into()))));
    }
    assert_eq!(config.notifications.admin_email, ["one@example.org", "two@example.org"]);
    assert_eq!(config.notifications.slack_alerts_url.unwrap().expose(), "https://slack.example.org/a");
    assert_eq!(config.notifications_test.admin_email, ["Three <three@example.org>"]);
    assert_eq!(config.notifications_test.slack_alerts_url.unwrap().expose(), "https://slack.example.org/b");
    let email = config.email.unwrap();
    assert_eq!(
        (email.from.as_str(), email.smtp_host.as_str(), email.smtp_port),
        ("mt@example.org", "smtp.example.org", 587)
    );
    let login = email.login.unwrap();
    assert_eq!((email.tls, login.username.as_str()), (MailTls::Starttls, "mt"));
    assert_eq!(login.password_file, Path::new("/etc/mt/mail-password"));
    assert_eq!(email.ca_file.as_deref(), Some(Path::new("/etc/mt/ca.pem")));
    assert_eq!(config.templates.admin_mail.as_deref(), Some(Path::new("/etc/mt/admin.txt")));
    assert_eq!(config.templates.stakeholder_mail.as_deref(), Some(Path::new("/etc/mt/stakeholder.txt")));
    assert_eq!(config.templates.slack.as_deref(), Some(Path::new("/etc/mt/slack.txt")));
    assert_eq!(config.tracing.unwrap().protocol, TracingProtocol::Otlp);
    assert_eq!(config.loki.unwrap().response_header_timeout, Duration::from_millis(1_500));
    assert_eq!(config.log_format, managed_tokens::config::LogFormat::Logfmt);
    assert_eq!(config.logs["token-push"].logfile.as_deref(), Some(Path::new("/log/info")));
    assert_eq!(config.logs["token-push"].debugfile.as_deref(), Some(Path::new("/log/debug")));
    let ferry = config.ferry;
    assert_eq!(ferry.base_url().unwrap(), "https://mt:hunter2@ferry.example.org:8445");
    assert_eq!(ferry.host_cert, Some(PathBuf::from("/cert.pem")));
    assert_eq!(ferry.host_key, Some(PathBuf::from("/key.pem")));
    assert_eq!(ferry.ca_path, Some(PathBuf::from("/ca")));
    assert_eq!(ferry.service_keytab_path, Some(PathBuf::from("/service.keytab")));
    assert_eq!(ferry.service_kerberos_principal.as_deref(), Some("service@REALM"));
    assert_eq!(ferry.service_experiment.as_deref(), Some("fermilab"));
    assert_eq!(ferry.service_role.as_deref(), Some("ferry_role"));
    assert_eq!(ferry.vault_server.as_deref(), Some("vault2.example.org"));

    let [pattern, over, plain] = config.services.as_slice() else { panic!("{:?}", config.services) };
    assert_eq!(pattern.principal, "pattern/own@REALM");

    assert_eq!(plain.name.as_str(), "plain_production");
    assert_eq!(plain.issuer_service.as_str(), "plain_production");
    assert_eq!(plain.keytab, Path::new("/keytabs/plainpro.keytab"));
    assert_eq!(plain.principal, "plainpro/global@REALM");
    assert_eq!(plain.uid_override, None);
    assert!(matches!(&plain.credds, Credds::Fixed(credd) if credd.as_str() == "credd.example.org"));
    assert_eq!(plain.default_role_file(7, None).unwrap(), "/tmp/plainpro_7_plain_production_plain_production");
    assert!(!plain.notifications);
    assert_eq!(plain.token_getter, TokenGetter::StoreAndGetToken);
    assert_eq!(plain.vault_server.as_deref(), Some("vault.example.org"));
    assert_eq!(plain.token_directory.as_deref(), Some(Path::new("/kept")));
    assert_eq!(plain.min_token_lifetime, "12h");
    assert_eq!(plain.ping_options, ["-c", "1", "-W", "2"]);
    assert_eq!(plain.copier_options, ["--perms"]);
    let more = ["-o", "ServerAliveInterval=30", "-o", "ServerAliveCountMax=1"];
    assert_eq!(plain.ssh_options, [&["-o", "ConnectTimeout=5"][..], &more].concat());
    assert_eq!(plain.emails, ["plain@example.org"]);

    assert_eq!(over.name.as_str(), "over_production");
    assert_eq!(over.issuer_service.as_str(), "Issuer_production");
    assert_eq!(over.keytab, Path::new("/own/own.keytab"));
    assert_eq!(over.principal, "own/principal@REALM", "the principal wins over the pattern");
    assert_eq!(over.uid_override, Some(4242));
    assert!(matches!(&over.credds, Credds::Fixed(credd) if credd.as_str() == "credd-own.example.org"));
    let role_file = "/own/own/principal@REALM/own/own.keytab/https://vault-own.example.org:8200";
    assert_eq!(over.default_role_file(7, None).unwrap(), role_file);
    assert!(over.notifications, "a role may switch its own on while they are off for all");
    assert_eq!(over.token_getter, TokenGetter::GetToken);
    assert_eq!(over.vault_server.as_deref(), Some("https://vault-own.example.org:8200"));
    assert_eq!(over.token_directory.as_deref(), Some(Path::new("/own/kept")));
    assert_eq!(over.ping_options, ["-W", "5", "-c", "2"]);
    assert_eq!(over.copier_options, [""; 0], "empty options are no options, not the default");
    assert_eq!(over.ssh_options[..4], ["-o", "Port=2222", "-o", "ConnectTimeout=30"]);
}

#[test]
fn collectors_and_constraint_are_overridden_where_there_is_no_credd() {
    let global = "condorCollectorHost: 'one, two:9618'\ncondorScheddConstraint: Global == 1";
    let of = |role| match one(global, role).credds {
        Credds::Collector { collectors, constraint } => (collectors, constraint),
        Credds::Fixed(credd) => panic!("{credd}"),
    };
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(of(""), (text(&["one", "two:9618"]), Some("Global == 1".to_owned())));
    let own = "condorCollectorHostOverride: three\ncondorScheddConstraintOverride: Own == 1";
    assert_eq!(of(own), (text(&["three"]), Some("Own == 1".to_owned())));
    assert_eq!(of("condorScheddConstraintOverride: ''").1, None);
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let service = one("", "");
    assert_eq!(service.min_token_lifetime, "10s");
    assert_eq!(service.default_role_file(42, None).unwrap(), "/tmp/default_role_dune_42");
    assert_eq!(service.ping_options, ["-W", "5", "-c", "1"]);
    assert_eq!(service.copier_options, ["--perms", "--chmod=u=r,go="]);
    let ssh = ["-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=30", "-o", "ServerAliveCountMax=1"];
    assert_eq!(service.ssh_options, ssh);
    assert_eq!(service.token_getter, TokenGetter::StoreAndGetToken);
    assert_eq!(service.credds, Credds::Collector { collectors: Vec::new(), constraint: None });
    assert_eq!((service.vault_server, service.token_directory), (None, None));
    assert!(service.notifications);
    let config = yaml(&with("", "")).unwrap();
    assert_eq!(config.error_count_to_send_message, 1);
    assert_eq!(config.dev_environment_label, "production");
    assert_eq!(config.prometheus_job(), "managed_tokens");
    assert_eq!(config.warnings, []);
}

#[test]
fn the_environment_wins_as_it_does_today() {
    let text = with(
        "condorCollectorHost: file\nvaultServer: file",
        "condorCollectorHostOverride: role\nvaultServerOverride: role",
    );
    let load = |variables: &[(&str, &str)]| {
        let env = Environment::new(variables.iter().copied(), "/site");
        parse(&text, Format::Yaml, Path::new("x.yml"), &env)
    };
    let collectors = |config: &Config| match &config.services[0].credds {
        Credds::Collector { collectors, .. } => collectors.join(","),
        Credds::Fixed(credd) => panic!("{credd}"),
    };
    let config = load(&[("_condor_COLLECTOR_HOST", "env1,env2")]).unwrap();
    assert_eq!(collectors(&config), "env1,env2");
    let source = &config.sources.services["dune_production"]["credds"];
    assert_eq!(*source, Source::Environment("_condor_COLLECTOR_HOST".to_owned()));
    assert_eq!(collectors(&load(&[("_condor_COLLECTOR_HOST", "")]).unwrap()), "role");

    let vault = |options| {
        load(&[("_condor_SEC_CREDENTIAL_GETTOKEN_OPTS", options)]).map(|c| c.services[0].vault_server.clone())
    };
    assert_eq!(vault("-a env").unwrap().as_deref(), Some("env"));
    assert_eq!(vault("--credkey=x --vaultserver=env").unwrap().as_deref(), Some("env"));
    assert_eq!(
        vault("--credkey=x").unwrap().as_deref(),
        Some("role"),
        "options without a vault server leave it to the file"
    );
    let error = vault("-a '").unwrap_err().to_string();
    assert!(error.contains("_condor_SEC_CREDENTIAL_GETTOKEN_OPTS") && error.contains("the environment"), "{error}");
    assert!(vault("-a 'a b'").is_err());
    assert!(load(&[("_condor_COLLECTOR_HOST", "a;b")]).is_err());

    let config = load(&[("MANAGED_TOKENS_DEV_ENVIRONMENT_LABEL", "laptop")]).unwrap();
    assert_eq!(config.dev_environment_label, "laptop");
    assert_eq!(config.prometheus_job(), "managed_tokens_laptop");
}

#[test]
fn the_state_directory_is_the_first_that_is_named() {
    let env = |value: &str| Environment::new([("MT_STATE_DIR", value)], "/site");
    let directory = |global: &str, cli: Option<&str>, variable: &str| {
        yaml(&with(global, "")).unwrap().state_dir(cli.map(Path::new), &env(variable)).display().to_string()
    };
    let both = "dbLocation: /db/x.db\nstateDir: /state";
    assert_eq!(directory(both, Some("cli"), "/env"), "/site/cli");
    assert_eq!(directory(both, None, "/env"), "/env");
    assert_eq!(directory(both, None, ""), "/state");
    assert_eq!(directory("dbLocation: /db/x.db", None, ""), "/db");
    assert_eq!(directory("dbLocation: x.db", None, ""), "/site");
    assert_eq!(directory("", None, ""), "/var/lib/managed-tokens");
}

#[test]
fn every_mistake_is_told_at_once_with_file_line_path_and_expected_form() {
    let Err(error) = load_file(&fixture("mistakes.yml"), &nothing()) else { panic!("it loads") };
    let LoadError::Invalid { mistakes, warnings, .. } = &error else { panic!("{error}") };
    let mut text = error.render() + "\n\n";
    for warning in warnings {
        text += &(warning.render("warning") + "\n");
    }
    insta::with_settings!({filters => vec![(r"--> .*/tests/fixtures", "--> tests/fixtures")]}, {
        insta::assert_snapshot!(text);
    });
    assert!(!text.contains("not-a-url"), "a webhook's URL is a secret");
    for mistake in mistakes {
        assert!(mistake.expected.is_some(), "{mistake}");
    }
}

#[test]
fn a_syntax_error_names_line_and_column_in_every_format() {
    let cases = [
        (Format::Json, "{\n  \"a\": 1,\n}", 3),
        (Format::Json, "{\"a\": \"\\ud800\"}", 1),
        (Format::Json, "", 1),
        (Format::Yaml, "a: [1\nb: 2\n", 2),
        (Format::Yaml, "a: 1\n---\nb: 1\n", 2),
        (Format::Yaml, "a: !secret x\n", 1),
        (Format::Yaml, "a: *nowhere\n", 1),
        (Format::Yaml, "<<: 5\n", 1),
        (Format::Ron, "(\n  a: 1,\n  b 2,\n)", 3),
        (Format::Ron, "(\n  a: bare,\n)", 2),
        (Format::Ron, "(\n  a: 'c',\n)", 2),
        (Format::Ron, "(1: 2)", 1),
    ];
    for (format, text, line) in cases {
        let Err(LoadError::Invalid { mistakes, .. }) = parse(text, format, Path::new("x"), &nothing()) else {
            panic!("{text:?} loads")
        };
        assert_eq!(mistakes.len(), 1, "{text:?}: {mistakes:?}");
        assert_eq!(mistakes[0].at.map(|at| at.line), Some(line), "{text:?}: {}", mistakes[0]);
        assert!(mistakes[0].what.starts_with(&format!("not {}: ", format.as_str())), "{}", mistakes[0]);
    }
}

#[test]
fn places_are_the_same_line_and_column_in_every_format() {
    let cases = [
        (Format::Json, "{\n  \"ü\": 1, \"vaultServer\": 5,\n  \"experiments\": {}}"),
        (Format::Yaml, "\n{ \"ü\": 1, \"vaultServer\": 5,\n  \"experiments\": {}}"),
        (Format::Ron, "{\n  \"ü\": 1, \"vaultServer\": 5,\n  \"experiments\": {}}"),
    ];
    for (format, text) in cases {
        let Err(LoadError::Invalid { mistakes, .. }) = parse(text, format, Path::new("x"), &nothing()) else {
            panic!()
        };
        let at = mistakes[0].at.unwrap();
        assert_eq!((at.line, at.column), (2, 26), "{format:?}: {}", mistakes[0]);
    }
}

#[test]
fn two_keys_that_are_the_same_in_lower_case_are_an_error_in_every_format() {
    let json = r#"{"experiments": {"dune": {}, "Dune": {}}}"#;
    for format in [Format::Json, Format::Yaml, Format::Ron] {
        let error = parse(json, format, Path::new("x"), &nothing()).unwrap_err().to_string();
        assert!(
            error.contains(r#"experiments: the keys "dune" (line 1) and "Dune" are the same in lower case"#),
            "{error}"
        );
    }
    let error = yaml("vaultServer: a\nvaultServer: b\nexperiments: {}").unwrap_err().to_string();
    assert!(error.contains("given twice, first in line 1"), "{error}");
    assert!(error.contains("test.yml:2:1"), "{error}");
}

#[test]
fn what_the_go_service_reads_without_loss_is_read() {
    let text = with(
        "errorCountToSendMessage: 4.0\nferry: {port: '8445'}\ndisableNotifications: 'TRUE'\nworkerType: {pushTokens: {retrySleep: 0}}",
        "desiredUIDOverride: '77'\ndisableNotificationsOverride: 0",
    );
    let config = yaml(&text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.error_count_to_send_message, 4);
    assert_eq!(yaml(&with("errorCountToSendMessage: 0", "")).unwrap().error_count_to_send_message, 1);
    assert_eq!(config.ferry.port, Some(8445));
    assert!(config.disable_notifications);
    assert_eq!(config.worker_types.push_tokens.retry_sleep, Some(Duration::ZERO));
    assert_eq!(config.services[0].uid_override, Some(77));
    assert!(config.services[0].notifications);
    let nulls = with("vaultServer: ~\nminTokenLifetime: null\ntimeouts: ~", "desiredUIDOverride:");
    assert_eq!(yaml(&nulls).unwrap().services[0].min_token_lifetime, "10s");
}

#[test]
fn what_would_be_read_with_loss_is_an_error() {
    let cases = [
        ("errorCountToSendMessage: 1.5", "errorCountToSendMessage: 1.5 is a number"),
        ("errorCountToSendMessage: '010'", "errorCountToSendMessage: \"010\" is text"),
        ("ferry: {port: 0}", "ferry.port: 0 is out of range"),
        ("ferry: {port: 65536}", "ferry.port: 65536 is out of range"),
        ("disableNotifications: yes", "disableNotifications: \"yes\" is text"),
        ("disableNotifications: 2", "disableNotifications: 2 is a number"),
        ("vaultServer: [a]", "vaultServer: is a list"),
        ("vaultServer: ''", "vaultServer: is empty"),
        ("pingOptions: 5", "pingOptions: 5 is a number"),
        ("timeouts: 300s", "timeouts: \"300s\" is text"),
        ("timeouts: {push: 3d}", "timeouts.push: \"3d\" is not a duration"),
        ("timeouts: {push: 1s, pushTimeout: 1s}", "timeouts.push: pushTimeout is given too"),
        ("minTokenLifetime: 1d12h", "minTokenLifetime: \"1d12h\" is not a lifetime"),
        ("minTokenLifetime: 0", "minTokenLifetime: 0 is a number"),
        ("logs: {format: xml}", "logs.format: \"xml\" is not known"),
        ("logs: {token-push: /log}", "logs.token-push: \"/log\" is text"),
        ("ferry: {vaultServer: 'a b'}", "ferry.vaultServer: \"a b\" is not a vault server: it holds a space"),
    ];
    for (global, expected) in cases {
        assert_eq!(mistakes(&with(global, "")), [expected], "{global}");
    }
}

#[test]
fn a_global_value_may_be_absent_if_every_role_has_its_own() {
    let roles = |first: &str, second: &str| {
        format!(
            "experiments:\n  dune:\n    roles:\n      one: {{account: a, destinationNodes: [n]{first}}}\n      \
             two: {{account: b, destinationNodes: [n]{second}}}\n"
        )
    };
    let (keytab, principal) = (", keytabPathOverride: /k", ", userPrincipalOverride: p@R");
    let both = format!("{keytab}{principal}");
    assert!(yaml(&roles(&both, &both)).is_ok());
    assert_eq!(mistakes(&roles(&both, principal)), ["keytabPath: is missing, and dune_two needs it"]);
    let all = mistakes(&roles("", ""));
    assert_eq!(
        all,
        [
            "kerberosPrincipalPattern: is missing, and dune_one and 1 more need it",
            "keytabPath: is missing, and dune_one and 1 more need it",
        ]
    );
    let error = yaml(&roles(&both, principal)).unwrap_err().to_string();
    assert!(
        error.contains("= expected: keytabPath for all roles, or keytabPathOverride in each role that needs it"),
        "{error}"
    );
}

#[test]
fn a_lifetime_that_htgettoken_refuses_is_a_warning() {
    for refused in ["7d", "168h", "604800s", "28d"] {
        let config = yaml(&with(&format!("minTokenLifetime: {refused}"), "")).unwrap();
        let warnings: Vec<_> = config.warnings.iter().map(|w| w.render("warning")).collect();
        let [warning] = warnings.as_slice() else { panic!("{refused}: {warnings:?}") };
        assert!(warning.contains("MT0163") && warning.contains("not less than the 7d"), "{warning}");
        assert_eq!(config.services[0].min_token_lifetime, refused);
    }
    for fine in ["604799s", "6d", "167h"] {
        assert_eq!(yaml(&with(&format!("minTokenLifetime: {fine}"), "")).unwrap().warnings, [], "{fine}");
    }
}

#[test]
fn odd_things_are_warnings_and_load() {
    let cases = [
        ("timeuots: {}", "", "timeuots: unknown key, ignored (did you mean timeouts?)"),
        ("nothingLikeIt: 1", "", "nothingLikeIt: unknown key, ignored"),
        ("timeouts: {pushTimeot: 3s}", "", "timeouts.pushTimeot: unknown key, ignored (did you mean pushTimeout?)"),
        (
            "",
            "keytabPath: /x",
            "experiments.dune.roles.production.keytabPath: unknown key, ignored (did you mean keytabPathOverride?)",
        ),
        ("", "noCacheOverride: true", "experiments.dune.roles.production.noCacheOverride: has no effect"),
        ("ferry: {host: ferry.example.org}", "", "ferry.host: \"ferry.example.org\" has no scheme"),
        ("notifications: {admin_email: a@example.org}", "", "email.from: is missing"),
        (
            "notifications: {slack_alerts_url: 'http://hooks.example.org/T0/B0/opaque'}",
            "",
            "notifications.slack_alerts_url: is without TLS",
        ),
    ];
    for (global, role, expected) in cases {
        let config = yaml(&with(global, role)).unwrap_or_else(|error| panic!("{global}{role}: {error}"));
        assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
        let warning = config.warnings[0].to_string();
        assert!(warning.starts_with(expected) && !warning.contains("opaque"), "{warning}");
    }
    let config = yaml("experiments: {dune: {roles: {x: {account: a, destinationNodes: [], keytabPathOverride: /k, userPrincipalOverride: p}}}, nova: ~}").unwrap();
    let warnings: Vec<_> = config.warnings.iter().map(|w| format!("{}: {}", w.path, w.what)).collect();
    assert_eq!(
        warnings,
        [
            "experiments.dune.roles.x.destinationNodes: is empty: the token is stored and pushed nowhere",
            "experiments.nova: has no roles",
        ]
    );
}

#[test]
fn services_are_selected_by_name_in_any_case() {
    let config = load_file(&fixture("site.json"), &nothing()).unwrap();
    let names = |services: &[&str], experiments: &[&str]| {
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        config
            .select(&text(services), &text(experiments))
            .map(|found| found.iter().map(|service| service.name.to_string()).collect::<Vec<_>>())
    };
    let all = ["dune-2_production", "dune_calibration", "dune_production", "lariat_production", "mu2e_production"];
    assert_eq!(names(&[], &[]).unwrap(), all);
    assert_eq!(
        names(&["Mu2e_Production", "dune_calibration", "mu2e_production"], &[]).unwrap(),
        ["dune_calibration", "mu2e_production"]
    );
    assert_eq!(
        names(&["mu2e_production"], &["DUNE"]).unwrap(),
        ["dune_calibration", "dune_production", "mu2e_production"]
    );
    let error = names(&["mu2e_prodution"], &[]).unwrap_err();
    assert_eq!(error.nearest.as_deref(), Some("mu2e_production"));
    assert_eq!(
        error.to_string(),
        r#"service "mu2e_prodution" is not configured (did you mean mu2e_production?); see `mt services list`"#
    );
    assert_eq!(names(&[], &["zzz"]).unwrap_err().nearest, None);

    let text = with("", "").replace("production:", "Analysis:");
    let config = yaml(&text).unwrap();
    let found = config.select(&["dune".to_owned()], &[]).unwrap();
    assert_eq!(found[0].name.as_str(), "dune_analysis", "a name without underscore means the role Analysis");
}

#[test]
fn relative_paths_are_seen_from_the_working_directory() {
    let service = one("serviceCreddVaultTokenPathRoot: kept", "keytabPathOverride: own.keytab");
    assert_eq!(service.keytab, Path::new("/site/own.keytab"));
    assert_eq!(service.token_directory.as_deref(), Some(Path::new("/site/kept")));
}

#[test]
fn a_file_that_cannot_be_loaded_says_which_and_why() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.json");
    let error = load(Some(&missing), &nothing()).unwrap_err();
    assert!(matches!(error, LoadError::Unreadable { .. }));
    assert!(error.render().starts_with("error[MT0081]: cannot read the configuration /"), "{}", error.render());
    let error = load(Some(Path::new("x.toml")), &nothing()).unwrap_err();
    assert_eq!(
        error.render(),
        "error[MT0082]: cannot tell the format of /site/x.toml: its name must end in .json, .yml, .yaml or .ron"
    );
    for empty in ["", "# nothing\n", "~"] {
        let error = yaml(empty).unwrap_err().to_string();
        assert!(error.contains("the file is empty"), "{error}");
    }
}

#[test]
fn secrets_are_not_in_the_debug_output() {
    let config = load_file(&fixture("site.json"), &nothing()).unwrap();
    assert!(!format!("{config:?}").contains("T000"));
}

#[test]
fn a_mail_server_is_spoken_to_as_before_unless_the_file_says_more() {
    let email = |extra: &str| {
        let text = format!("email: {{from: mt@example.org{extra}}}\nexperiments: {{}}\n");
        parse(&text, Format::Yaml, Path::new("x.yml"), &nothing()).map(|config| config.email.unwrap())
    };
    assert_eq!(email("").unwrap(), Email::plain("mt@example.org", "localhost", 25));
    assert_eq!(email(", tls: StartTLS").unwrap().smtp_port, 587);
    assert_eq!(email(", tls: implicit").unwrap().smtp_port, 465);
    assert_eq!(email(", tls: implicit, smtpPort: 25").unwrap().smtp_port, 25);
    let wrong = |extra: &str| email(extra).unwrap_err().to_string();
    assert!(wrong(", tls: ssl").contains("email.tls: \"ssl\" is not known"));
    assert!(wrong(", username: mt, passwordFile: /p").contains("in the clear"));
    assert!(wrong(", tls: starttls, username: mt").contains("email.passwordFile: is missing"));
    assert!(wrong(", tls: starttls, passwordFile: /p").contains("email.username: is missing"));
}

#[test]
fn a_broken_file_still_says_who_is_to_be_told() {
    let text = "email: {from: mt@example.org}\nnotifications: {admin_email: admin@example.org}\ntimeouts: {pushTimeout: soon}\nexperiments: {}\n";
    let error = parse(text, Format::Yaml, Path::new("x.yml"), &nothing()).unwrap_err();
    let LoadError::Invalid { contact, .. } = error else { panic!("{error}") };
    assert_eq!(contact.admin_email, ["admin@example.org"]);
    assert_eq!(contact.email.unwrap().from, "mt@example.org");
}
