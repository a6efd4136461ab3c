//! The tree into a [`Config`].

use std::collections::BTreeMap;
use std::path::Path;

use super::codes;
use super::environment::Environment;
use super::globals;
use super::mail;
use super::mistake::{Contact, LoadError, Remark};
use super::names::show;
use super::node::{MAX_VALUES, Node, duplicates};
use super::readers::{self, Sourced};
use super::roles::{self, Experiment, Globals, Missing, Resolved};
use super::section::{Noted, Notes, Section, Value};
use super::service::{ExperimentName, RoleName};
use super::settings::Config;
use super::source::{Source, Sources};

/// Makes the configuration of what a file holds.
pub(super) fn resolve(tree: &Node, file: &Path, env: &Environment) -> Result<Config, LoadError> {
    let mut notes = Notes::new(file);
    let Ok(mut root) = root(tree, &mut notes) else {
        let (mistakes, warnings) = notes.sorted();
        return Err(LoadError::Invalid { mistakes, warnings, contact: Box::default() });
    };
    let mut sources = BTreeMap::new();
    let (root_ref, env_ref, notes_ref) = (&mut root, env, &mut notes);

    let shared = Globals::read(root_ref, env_ref, notes_ref);
    let disable_notifications = shared.disable_notifications.global();
    let source = disable_notifications.map_or(Source::Default, |(_, source)| source.clone());
    sources.insert("disableNotifications".to_owned(), source);
    let disable_notifications = disable_notifications.is_some_and(|(disabled, _)| *disabled);
    let (logs, log_format) = globals::logs(root_ref, env_ref, &mut sources, notes_ref);
    let mut config = Config {
        file: file.to_owned(),
        services: Vec::new(),
        sources: Sources::default(),
        timeouts: globals::timeouts(root_ref, &mut sources, notes_ref),
        worker_types: globals::worker_types(root_ref, &mut sources, notes_ref),
        error_count_to_send_message: globals::error_count(root_ref, &mut sources, notes_ref),
        disable_notifications,
        notifications: globals::recipients(root_ref, "notifications", &mut sources, notes_ref),
        notifications_test: globals::recipients(root_ref, "notifications_test", &mut sources, notes_ref),
        email: mail::email(root_ref, env_ref, &mut sources, notes_ref),
        templates: mail::templates(root_ref, env_ref, &mut sources, notes_ref),
        prometheus: globals::prometheus(root_ref, &mut sources, notes_ref),
        tracing: globals::tracing(root_ref, &mut sources, notes_ref),
        loki: globals::loki(root_ref, &mut sources, notes_ref),
        logs,
        log_format,
        ferry: globals::ferry(root_ref, env_ref, &mut sources, notes_ref),
        dev_environment_label: globals::label(root_ref, env_ref, &mut sources, notes_ref),
        db_location: globals::location(root_ref, "dbLocation", env_ref, &mut sources, notes_ref),
        state_dir: globals::location(root_ref, "stateDir", env_ref, &mut sources, notes_ref),
        warnings: Vec::new(),
    };
    let mut services = services(&mut root, &shared, env, &mut notes);
    root.finish(&[], &mut notes);
    warn_of_silence(&config, &services, &mut notes);

    let (mistakes, warnings) = notes.sorted();
    if !mistakes.is_empty() {
        let contact = Box::new(Contact {
            email: config.email,
            admin_email: config.notifications.admin_email,
            slack_alerts_url: config.notifications.slack_alerts_url,
            disabled: config.disable_notifications,
        });
        return Err(LoadError::Invalid { mistakes, warnings, contact });
    }
    // Names cannot clash: experiments and roles are different keys of their maps, and no role holds an underscore.
    services.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    for (service, service_sources) in services {
        config.sources.services.insert(service.name.to_string(), service_sources);
        config.services.push(service);
    }
    config.sources.global = sources;
    config.warnings = warnings;
    Ok(config)
}

/// The whole file, if it can be a configuration.
fn root<'t>(tree: &'t Node, notes: &mut Notes<'_>) -> Result<Section<'t>, Noted> {
    if tree.size().values > MAX_VALUES {
        let what = format!("the file holds more than {MAX_VALUES} values");
        return Err(notes.mistake(codes::OUT_OF_RANGE, None, "", what, "a configuration"));
    }
    note_duplicates(tree, notes);
    Section::root(tree, notes)
}

fn note_duplicates(tree: &Node, notes: &mut Notes<'_>) {
    for duplicate in duplicates(tree) {
        let ((first, first_at), (second, at)) = (duplicate.first, duplicate.second);
        let what = if first == second {
            format!("the key {} is given twice, first in line {}", show(second), first_at.line)
        } else {
            format!("the keys {} (line {}) and {} are the same in lower case", show(first), first_at.line, show(second))
        };
        notes.mistake(codes::DUPLICATE_KEY, Some(at), &duplicate.path, what, "each key once, in whatever case");
    }
}

fn services(root: &mut Section<'_>, globals: &Globals, env: &Environment, notes: &mut Notes<'_>) -> Vec<Resolved> {
    let expected = "a map from experiments to their emails and roles";
    let Some(value) = root.get("experiments") else {
        notes.mistake(codes::MISSING, None, "experiments", "is missing", expected);
        return Vec::new();
    };
    let Ok(experiments) = value.section(notes) else { return Vec::new() };
    let mut services = Vec::new();
    let mut missing = Missing::default();
    let mut any = false;
    for (entry, value) in experiments.values() {
        any = true;
        let name = entry.key.parse::<ExperimentName>().map_err(|bad| {
            let what = format!("{} is not {}: {}", bad.shown, bad.kind, bad.why);
            notes.mistake(codes::BAD_NAME, Some(entry.at), "experiments", what, bad.expected)
        });
        let Some(value) = value else {
            notes.warning(codes::ODD_VALUE, Some(entry.at), &experiments.path_of(&entry.key), "has no roles", "");
            continue;
        };
        // A name that is none is no reason to say nothing about the roles below it.
        let name = name.unwrap_or_else(|_| ExperimentName::checked(entry.key.clone()));
        services.extend(experiment(name, &value, globals, &mut missing, env, notes));
    }
    if !any {
        notes.warning(codes::ODD_VALUE, Some(value.at), "experiments", "is empty: there is nothing to do", expected);
    }
    missing.note(notes);
    services
}

fn experiment(
    name: ExperimentName,
    value: &Value<'_>,
    globals: &Globals,
    missing: &mut Missing,
    env: &Environment,
    notes: &mut Notes<'_>,
) -> Vec<Resolved> {
    let Ok(mut section) = value.section(notes) else { return Vec::new() };
    let emails = section.get("emails").and_then(|v| Some((readers::addresses(&v, notes).ok()?, Source::File(v.path))));
    let issuer = issuer(&name, &mut section, notes);
    let roles = section.section("roles", notes);
    section.finish(&[], notes);

    let (issuer, issuer_source) = issuer.unwrap_or_else(|| (name.clone(), Source::Default));
    let emails = emails.unwrap_or_else(|| (Vec::new(), Source::Default));
    let experiment = Experiment { name, issuer, emails, issuer_source };
    let mut services = Vec::new();
    let mut any = false;
    for (entry, value) in roles.values() {
        any = true;
        let role = entry.key.parse::<RoleName>().map_err(|bad| {
            let what = format!("{} is not {}: {}", bad.shown, bad.kind, bad.why);
            notes.mistake(codes::BAD_NAME, Some(entry.at), roles.path(), what, bad.expected)
        });
        let Some(value) = value else {
            let what = "is null: a role needs an account and destinationNodes";
            notes.mistake(codes::MISSING, Some(entry.at), &roles.path_of(&entry.key), what, "a map, or no such role");
            continue;
        };
        let role = role.unwrap_or_else(|_| RoleName::checked(entry.key.clone()));
        services.extend(roles::resolve(&experiment, role, &value, globals, missing, env, notes));
    }
    if !any {
        notes.warning(codes::ODD_VALUE, Some(value.at), &value.path, "has no roles", "");
    }
    services
}

/// `experimentOverride`; empty counts as absent, as in the Go service.
fn issuer(name: &ExperimentName, section: &mut Section<'_>, notes: &mut Notes<'_>) -> Option<Sourced<ExperimentName>> {
    let value = section.get("experimentOverride")?;
    let text = readers::optional_text(&value, notes).ok()??;
    let issuer: ExperimentName = readers::name(&value, &text, notes).ok()?;
    (issuer != *name).then_some((issuer, Source::Override(value.path)))
}

/// Somebody is to be told, and cannot be.
fn warn_of_silence(config: &Config, services: &[Resolved], notes: &mut Notes<'_>) {
    let on = |(service, _): &&Resolved| service.notifications;
    let anybody =
        !config.notifications.admin_email.is_empty() || services.iter().filter(on).any(|(s, _)| !s.emails.is_empty());
    if config.email.is_none() && anybody && services.iter().any(|resolved| on(&resolved)) {
        let what = "is missing: notifications are on, and no mail can be sent";
        notes.warning(codes::ODD_VALUE, None, "email.from", what, "a sender, or disableNotifications: true");
    }
}

/// A syntax error as the one mistake of its file.
pub(super) fn syntax_error(error: super::node::SyntaxError, format: &str, file: &Path) -> LoadError {
    let mistake = Remark {
        code: codes::SYNTAX,
        file: Some(file.to_owned()),
        at: Some(error.at),
        path: String::new(),
        what: format!("not {format}: {}", crate::redact::redact(&error.what)),
        expected: None,
    };
    LoadError::Invalid { mistakes: vec![mistake], warnings: Vec::new(), contact: Box::default() }
}
