//! `email` and `templates`: how mail is sent, and what replaces the shipped texts.

use std::path::PathBuf;

use super::codes;
use super::environment::Environment;
use super::globals::{GlobalSources, optional_path, port, take};
use super::names::show;
use super::readers;
use super::section::{Noted, Notes, Section, Value};
use super::settings::{Email, MailLogin, MailTls, TemplateFiles};

/// `email`.
pub(super) fn email(
    root: &mut Section<'_>,
    env: &Environment,
    sources: &mut GlobalSources,
    notes: &mut Notes<'_>,
) -> Option<Email> {
    let mut section = root.section("email", notes);
    let from = take(&mut section, "from", sources, notes, readers::sender).flatten();
    let smtp_host = take(&mut section, "smtpHost", sources, notes, readers::optional_text).flatten();
    let smtp_port = take(&mut section, "smtpPort", sources, notes, port);
    let tls = take(&mut section, "tls", sources, notes, tls).unwrap_or_default();
    let login = login(&mut section, tls, env, sources, notes);
    let ca_file = file(&mut section, "caFile", env, sources, notes);
    section.finish(&[], notes);
    Some(Email {
        from: from?,
        smtp_host: smtp_host.unwrap_or_else(|| "localhost".to_owned()),
        smtp_port: smtp_port.unwrap_or_else(|| tls.port()),
        tls,
        login,
        ca_file,
    })
}

fn tls(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<MailTls, Noted> {
    let expected = "\"none\", \"starttls\" or \"implicit\"";
    let text = value.text(expected, notes)?;
    let known = MailTls::ALL.iter().copied().find(|tls| tls.as_str().eq_ignore_ascii_case(text));
    known.ok_or_else(|| value.wrong(codes::UNKNOWN_VALUE, format!("{} is not known", show(text)), expected, notes))
}

/// A name and a password file, or neither; and a password never goes over a line that others can read.
fn login(
    section: &mut Section<'_>,
    tls: MailTls,
    env: &Environment,
    sources: &mut GlobalSources,
    notes: &mut Notes<'_>,
) -> Option<MailLogin> {
    let at = section.get("username").map(|value| value.at);
    let username = take(section, "username", sources, notes, readers::optional_text).flatten();
    let password_at = section.get("passwordFile").map(|value| value.at);
    let password_file = file(section, "passwordFile", env, sources, notes);
    match (username, password_file) {
        (None, None) => None,
        (Some(_), Some(_)) if tls == MailTls::None => {
            let what = "is missing: with a username the password would go over the line in the clear";
            notes.mistake(codes::MISSING, at, &section.path_of("tls"), what, "\"starttls\" or \"implicit\"");
            None
        }
        (Some(username), Some(password_file)) => Some(MailLogin { username, password_file }),
        (Some(_), None) => {
            notes.mistake(codes::MISSING, at, &section.path_of("passwordFile"), "is missing", "it goes with username");
            None
        }
        (None, Some(_)) => {
            let path = section.path_of("username");
            notes.mistake(codes::MISSING, password_at, &path, "is missing", "it goes with passwordFile");
            None
        }
    }
}

fn file(
    section: &mut Section<'_>,
    name: &'static str,
    env: &Environment,
    sources: &mut GlobalSources,
    notes: &mut Notes<'_>,
) -> Option<PathBuf> {
    take(section, name, sources, notes, optional_path).flatten().map(|path| env.absolute(&path))
}

/// `templates`.
pub(super) fn templates(
    root: &mut Section<'_>,
    env: &Environment,
    sources: &mut GlobalSources,
    notes: &mut Notes<'_>,
) -> TemplateFiles {
    let mut section = root.section("templates", notes);
    let templates = TemplateFiles {
        admin_mail: file(&mut section, "adminMail", env, sources, notes),
        stakeholder_mail: file(&mut section, "stakeholderMail", env, sources, notes),
        slack: file(&mut section, "slack", env, sources, notes),
    };
    section.finish(&[], notes);
    templates
}
