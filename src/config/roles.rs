//! A role with every override applied: one [`Service`].

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use super::codes;
use super::environment::Environment;
use super::names::{self, show};
use super::options;
use super::readers::{self, Overridable, Sourced};
use super::section::{Noted, Notes, Read, Section, Value};
use super::service::{AccountName, CreddName, Credds, ExperimentName, IssuerService, NodeName, RoleName};
use super::service::{Service, ServiceName, TokenGetter};
use super::source::Source;
use super::templates;

/// The path of the default role file unless the configuration says otherwise.
const DEFAULT_ROLE_FILE: &str = "/tmp/default_role_{{.Experiment}}_{{.DesiredUID}}";
const DEFAULT_LIFETIME: &str = "10s";
/// Wins over every configured collector.
const COLLECTOR_VARIABLE: &str = "_condor_COLLECTOR_HOST";
/// Its vault server wins over every configured one.
const GETTOKEN_VARIABLE: &str = "_condor_SEC_CREDENTIAL_GETTOKEN_OPTS";
/// Keys that the Go service's newer versions know, and what became of them.
const OBSOLETE: &[(&str, &str)] =
    &[("noCacheOverride", "whether a kept token is used again depends on minTokenLifetime alone")];

/// The global keys that services are made of.
pub(super) struct Globals {
    keytab_path: Overridable<PathBuf>,
    principal_pattern: Overridable<String>,
    collectors: Overridable<Vec<String>>,
    credd: Overridable<CreddName>,
    constraint: Overridable<Option<String>>,
    vault_server: Overridable<String>,
    token_directory: Overridable<PathBuf>,
    role_file: Overridable<String>,
    pub disable_notifications: Overridable<bool>,
    ping: Overridable<Vec<String>>,
    copier: Overridable<Vec<String>>,
    ssh: Overridable<Vec<String>>,
    lifetime: Read<Sourced<String>>,
    environment_collectors: Read<Sourced<Vec<String>>>,
    environment_vault_server: Read<Sourced<String>>,
}

impl Globals {
    /// Reads them all.
    pub fn read(root: &mut Section<'_>, env: &Environment, notes: &mut Notes<'_>) -> Self {
        macro_rules! overridable {
            ($name:literal, $read:path) => {
                Overridable::new($name, concat!($name, "Override"), $read, root, notes)
            };
        }
        Self {
            keytab_path: overridable!("keytabPath", readers::path),
            principal_pattern: overridable!("kerberosPrincipalPattern", readers::principal_pattern),
            collectors: overridable!("condorCollectorHost", readers::collectors),
            credd: overridable!("condorCreddHost", readers::credd),
            constraint: overridable!("condorScheddConstraint", readers::constraint),
            vault_server: overridable!("vaultServer", readers::vault_server),
            token_directory: overridable!("serviceCreddVaultTokenPathRoot", readers::path),
            role_file: overridable!("defaultRoleFileDestinationTemplate", readers::role_file_template),
            disable_notifications: overridable!("disableNotifications", readers::boolean),
            ping: overridable!("pingOptions", readers::ping_words),
            copier: overridable!("fileCopierOptions", readers::words),
            ssh: overridable!("sshOptions", readers::ssh_words),
            lifetime: root
                .get("minTokenLifetime")
                .map(|value| Ok((readers::lifetime(&value, notes)?, Source::File(value.path))))
                .transpose(),
            environment_collectors: environment_collectors(env, notes),
            environment_vault_server: environment_vault_server(env, notes),
        }
    }
}

fn environment_collectors(env: &Environment, notes: &mut Notes<'_>) -> Read<Sourced<Vec<String>>> {
    let Some(text) = env.get(COLLECTOR_VARIABLE) else { return Ok(None) };
    match readers::collector_list(text) {
        Ok(hosts) => Ok(Some((hosts, Source::Environment(COLLECTOR_VARIABLE.to_owned())))),
        Err(bad) => Err(notes.bad_variable(
            COLLECTOR_VARIABLE,
            format!("{} is not {}: {}", bad.shown, bad.kind, bad.why),
            bad.expected,
        )),
    }
}

/// `None` too when the options name no vault server: then the configuration's is taken.
fn environment_vault_server(env: &Environment, notes: &mut Notes<'_>) -> Read<Sourced<String>> {
    let Some(text) = env.get(GETTOKEN_VARIABLE) else { return Ok(None) };
    let words = options::split(text).map_err(|what| {
        notes.bad_variable(
            GETTOKEN_VARIABLE,
            format!("{}: {what}", show(text)),
            "htgettoken's options, as a shell would split them",
        )
    })?;
    let Some(server) = options::vault_server(&words) else { return Ok(None) };
    match names::check_vault_server(server) {
        Ok(()) => Ok(Some((server.to_owned(), Source::Environment(GETTOKEN_VARIABLE.to_owned())))),
        Err(bad) => Err(notes.bad_variable(
            GETTOKEN_VARIABLE,
            format!("{} is not {}: {}", bad.shown, bad.kind, bad.why),
            bad.expected,
        )),
    }
}

/// Global keys that are missing, each with the overrides that would do and the services that need it.
#[derive(Default)]
pub(super) struct Missing(BTreeMap<(&'static str, &'static str), Vec<String>>);

impl Missing {
    fn add(&mut self, key: &'static str, instead: &'static str, service: &ServiceName) -> Noted {
        self.0.entry((key, instead)).or_default().push(service.to_string());
        Noted
    }

    /// One mistake per key, however many services need it.
    pub fn note(self, notes: &mut Notes<'_>) {
        for ((key, instead), services) in self.0 {
            let who = match services.as_slice() {
                [one] => format!("{one} needs it"),
                [first, rest @ ..] => format!("{first} and {} more need it", rest.len()),
                [] => continue,
            };
            let expected = format!("{key} for all roles, or {instead} in each role that needs it");
            notes.mistake(codes::MISSING, None, key, format!("is missing, and {who}"), &expected);
        }
    }
}

/// What the roles of one experiment share.
pub(super) struct Experiment {
    pub name: ExperimentName,
    pub issuer: ExperimentName,
    pub emails: Sourced<Vec<String>>,
    pub issuer_source: Source,
}

/// The service with where each of its values comes from.
pub(super) type Resolved = (Service, BTreeMap<&'static str, Source>);

/// Resolves one role. `Err`: something is wrong with it, and noted.
pub(super) fn resolve(
    experiment: &Experiment,
    role: RoleName,
    value: &Value<'_>,
    globals: &Globals,
    missing: &mut Missing,
    env: &Environment,
    notes: &mut Notes<'_>,
) -> Result<Resolved, Noted> {
    let name = ServiceName::checked(format!("{}_{role}", experiment.name));
    let issuer_service = IssuerService::checked(format!("{}_{role}", experiment.issuer));
    let mut section = value.section(notes)?;

    // Everything is read before anything is given up, so that all mistakes of a role are told at once.
    let account = account(&mut section, value, notes);
    let nodes = nodes(&mut section, value, notes);
    let keytab_path = globals.keytab_path.of(&mut section, notes);
    let own_principal =
        section.get("userPrincipalOverride").map(|v| Ok((readers::principal(&v, notes)?, v.path))).transpose();
    let pattern = globals.principal_pattern.of(&mut section, notes);
    let uid = section.get("desiredUIDOverride").map(|v| Ok((v.integer(1, u32::MAX - 1, notes)?, v.path))).transpose();
    let getter =
        section.get("tokenGetterOverride").map(|v| Ok((readers::token_getter(&v, notes)?, v.path))).transpose();
    let collectors = globals.collectors.of(&mut section, notes);
    let credd = globals.credd.of(&mut section, notes);
    let constraint = globals.constraint.of(&mut section, notes);
    let vault_server = globals.vault_server.of(&mut section, notes);
    let token_directory = globals.token_directory.of(&mut section, notes);
    let role_file_given = section.get("defaultRoleFileDestinationTemplateOverride");
    let role_file = globals.role_file.of(&mut section, notes);
    let disabled = globals.disable_notifications.of(&mut section, notes);
    let ping = globals.ping.of(&mut section, notes);
    let copier = globals.copier.of(&mut section, notes);
    let ssh = globals.ssh.of(&mut section, notes);
    section.finish(OBSOLETE, notes);

    let account_name = account.as_ref().ok().map(|(account, _)| account.clone());
    let keytab = match (keytab_path, &account_name) {
        (Ok(Some((path, source @ Source::Override(_)))), _) => Ok((path, source)),
        (Ok(Some((directory, source))), Some(account)) => Ok((directory.join(format!("{account}.keytab")), source)),
        (Ok(None), _) => Err(missing.add("keytabPath", "keytabPathOverride", &name)),
        (Ok(Some(_)), None) | (Err(Noted), _) => Err(Noted),
    };
    let principal = match (own_principal, pattern, &account_name) {
        (Ok(Some((principal, path))), _, _) => Ok((principal, Source::Override(path))),
        (Ok(None), Ok(Some((pattern, source))), Some(account)) => {
            // The pattern was tried when it was read, and an account cannot spoil it.
            templates::principal(&pattern, account.as_str()).map(|principal| (principal, source)).map_err(|_| Noted)
        }
        (Ok(None), Ok(None), _) => Err(missing.add(
            "kerberosPrincipalPattern",
            "kerberosPrincipalPatternOverride or userPrincipalOverride",
            &name,
        )),
        (Err(Noted), _, _) | (Ok(None), Err(Noted), _) | (Ok(None), Ok(Some(_)), None) => Err(Noted),
    };

    let mut sources = BTreeMap::new();
    let (account, account_source) = account?;
    let (nodes, nodes_source) = nodes?;
    let (keytab, keytab_source) = keytab?;
    let (principal, principal_source) = principal?;
    let (uid_override, uid_source) = own(uid?);
    let (token_getter, getter_source) = own(getter?);
    let collectors = or_default(first(globals.environment_collectors.clone()?, collectors?));
    let (credds, credds_source) = match credd? {
        Some((credd, source)) => (Credds::Fixed(credd), source),
        None => {
            let (constraint, constraint_source) = or_default(constraint?);
            sources.insert("constraint", constraint_source);
            (Credds::Collector { collectors: collectors.0, constraint }, collectors.1)
        }
    };
    let (vault_server, vault_source) = optional(first(globals.environment_vault_server.clone()?, vault_server?));
    let (token_directory, token_directory_source) = optional(token_directory?);
    let (min_token_lifetime, lifetime_source) =
        globals.lifetime.clone()?.unwrap_or_else(|| (DEFAULT_LIFETIME.to_owned(), Source::Default));
    let (template, template_source) = role_file?.unwrap_or_else(|| (DEFAULT_ROLE_FILE.to_owned(), Source::Default));
    let (disabled, disabled_source) = or_default(disabled?);
    let (ping_options, ping_source) = ping?.unwrap_or_else(|| (options::ping(&[]), Source::Default));
    let copier_defaults = || options::COPIER_DEFAULTS.iter().map(|word| (*word).to_owned()).collect();
    let (copier_options, copier_source) = copier?.unwrap_or_else(|| (copier_defaults(), Source::Default));
    let (ssh_options, ssh_source) = match ssh? {
        Some(words) => words,
        None => (options::ssh(&[]).unwrap_or_default(), Source::Default),
    };

    sources.extend([
        ("issuer", experiment.issuer_source.clone()),
        ("account", account_source),
        ("uid", uid_source),
        ("nodes", nodes_source),
        ("keytab", keytab_source),
        ("principal", principal_source),
        ("vault_server", vault_source),
        ("token_getter", getter_source),
        ("credds", credds_source),
        ("token_directory", token_directory_source),
        ("min_token_lifetime", lifetime_source),
        ("default_role_file", template_source),
        ("ping_options", ping_source),
        ("copier_options", copier_source),
        ("ssh_options", ssh_source),
        ("emails", experiment.emails.1.clone()),
        ("notifications", disabled_source),
    ]);
    let service = Service {
        name,
        experiment: experiment.name.clone(),
        role,
        issuer: experiment.issuer.clone(),
        issuer_service,
        account,
        uid_override,
        nodes,
        keytab: env.absolute(&keytab),
        principal,
        vault_server,
        token_getter: token_getter.unwrap_or(TokenGetter::StoreAndGetToken),
        credds,
        token_directory: token_directory.map(|path| env.absolute(&path)),
        min_token_lifetime,
        default_role_file_template: template,
        ping_options,
        copier_options,
        ssh_options,
        emails: experiment.emails.0.clone(),
        notifications: !disabled,
    };
    // With the real values: a keytab's path, say, may hold what a remote path may not.
    let tried = service.default_role_file(1, Some(service.vault_server.as_deref().unwrap_or("x")));
    if let Err(error) = tried {
        let at = role_file_given.unwrap_or_else(|| value.clone());
        return Err(readers::bad_template(&at, &service.default_role_file_template, &error, notes));
    }
    Ok((service, sources))
}

fn account(section: &mut Section<'_>, role: &Value<'_>, notes: &mut Notes<'_>) -> Result<Sourced<AccountName>, Noted> {
    let expected = "the account on the destination nodes, as text";
    match section.get("account") {
        Some(value) => {
            let text = value.full_text(expected, notes)?;
            Ok((readers::name(&value, text, notes)?, Source::File(value.path)))
        }
        None => Err(notes.mistake(codes::MISSING, Some(role.at), &section.path_of("account"), "is missing", expected)),
    }
}

fn nodes(section: &mut Section<'_>, role: &Value<'_>, notes: &mut Notes<'_>) -> Result<Sourced<Vec<NodeName>>, Noted> {
    let expected = "a list of host names";
    let Some(value) = section.get("destinationNodes") else {
        let path = section.path_of("destinationNodes");
        return Err(notes.mistake(codes::MISSING, Some(role.at), &path, "is missing", expected));
    };
    let (mut nodes, mut seen) = (Vec::new(), HashSet::new());
    let mut failed = None;
    for (item, text) in value.texts(expected, notes)? {
        match readers::name::<NodeName>(&item, text, notes) {
            Ok(node) if !seen.insert(node.clone()) => {
                notes.warning(
                    codes::ODD_VALUE,
                    Some(item.at),
                    &item.path,
                    format!("{node} is listed twice; once is enough"),
                    "",
                );
            }
            Ok(node) => nodes.push(node),
            Err(noted) => failed = Some(noted),
        }
    }
    if nodes.is_empty() && failed.is_none() {
        notes.warning(
            codes::ODD_VALUE,
            Some(value.at),
            &value.path,
            "is empty: the token is stored and pushed nowhere",
            "",
        );
    }
    failed.map_or(Ok((nodes, Source::File(value.path))), Err)
}

fn first<T>(wins: Option<Sourced<T>>, otherwise: Option<Sourced<T>>) -> Option<Sourced<T>> {
    wins.or(otherwise)
}

fn or_default<T: Default>(found: Option<Sourced<T>>) -> Sourced<T> {
    found.unwrap_or_else(|| (T::default(), Source::Default))
}

fn optional<T>(found: Option<Sourced<T>>) -> (Option<T>, Source) {
    found.map_or((None, Source::Default), |(value, source)| (Some(value), source))
}

fn own<T>(found: Option<(T, String)>) -> (Option<T>, Source) {
    found.map_or((None, Source::Default), |(value, path)| (Some(value), Source::Override(path)))
}
