//! How the value of each kind of key is read: one function per kind, the same for a global key and its override.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::codes;
use super::duration;
use super::names::{self, BadName, show};
use super::options;
use super::section::{Noted, Notes, Read, Section, Value};
use super::service::{CreddName, TokenGetter};
use super::source::Source;
use super::templates::{self, Field, TemplateError};

/// A value with its source.
pub(super) type Sourced<T> = (T, Source);

/// A key that a role can override as `<key>Override`.
pub(super) struct Overridable<T> {
    over: &'static str,
    read: fn(&Value<'_>, &mut Notes<'_>) -> Result<T, Noted>,
    global: Read<Sourced<T>>,
}

impl<T: Clone> Overridable<T> {
    /// Reads the global value.
    pub fn new(
        name: &'static str,
        over: &'static str,
        read: fn(&Value<'_>, &mut Notes<'_>) -> Result<T, Noted>,
        root: &mut Section<'_>,
        notes: &mut Notes<'_>,
    ) -> Self {
        let global = root.get(name).map(|value| Ok((read(&value, notes)?, Source::File(value.path)))).transpose();
        Self { over, read, global }
    }

    /// The role's own value, else the global one.
    pub fn of(&self, role: &mut Section<'_>, notes: &mut Notes<'_>) -> Read<Sourced<T>> {
        match role.get(self.over) {
            Some(value) => Ok(Some(((self.read)(&value, notes)?, Source::Override(value.path)))),
            None => self.global.clone(),
        }
    }

    /// The global value.
    pub fn global(&self) -> Option<&Sourced<T>> {
        self.global.as_ref().ok()?.as_ref()
    }
}

pub(super) fn path(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<PathBuf, Noted> {
    value.file_path(notes)
}

pub(super) fn boolean(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<bool, Noted> {
    value.boolean(notes)
}

/// A name of a type that checks itself.
pub(super) fn name<T: FromStr<Err = BadName>>(
    value: &Value<'_>,
    text: &str,
    notes: &mut Notes<'_>,
) -> Result<T, Noted> {
    text.parse().map_err(|bad| value.bad_name(&bad, notes))
}

pub(super) fn credd(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<CreddName, Noted> {
    let text = value.full_text("a host name", notes)?;
    name(value, text, notes)
}

pub(super) fn collectors(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<Vec<String>, Noted> {
    let text = value.full_text("one or more host names, comma separated", notes)?;
    collector_list(text).map_err(|bad| value.bad_name(&bad, notes))
}

/// `one,two`; white space separates too, as in HTCondor.
pub(super) fn collector_list(text: &str) -> Result<Vec<String>, BadName> {
    let mut hosts = Vec::new();
    for host in text.split([',', ' ', '\t']).filter(|host| !host.is_empty()) {
        names::check_collector(host)?;
        hosts.push(host.to_owned());
    }
    if hosts.is_empty() { names::check_collector("").map(|()| hosts) } else { Ok(hosts) }
}

/// Passed to condor_status as one word, so anything HTCondor understands may be in it. Empty: no constraint.
pub(super) fn constraint(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<Option<String>, Noted> {
    let expected = "an expression of HTCondor's, as text";
    if value.text(expected, notes)?.trim().is_empty() {
        return Ok(None);
    }
    value.full_text(expected, notes).map(|text| Some(text.to_owned()))
}

pub(super) fn vault_server(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<String, Noted> {
    let text = value.full_text("a host name or URL", notes)?;
    names::check_vault_server(text).map_err(|bad| value.bad_name(&bad, notes))?;
    Ok(text.to_owned())
}

pub(super) fn principal(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<String, Noted> {
    let text = value.full_text("a Kerberos principal", notes)?;
    names::check_principal(text).map_err(|bad| value.bad_name(&bad, notes))?;
    Ok(text.to_owned())
}

/// A template of principals, tried with a harmless account.
pub(super) fn principal_pattern(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<String, Noted> {
    let text = value.full_text("a pattern such as {{.Account}}/host@REALM", notes)?;
    let filled = templates::principal(text, "account").map_err(|error| bad_template(value, text, &error, notes))?;
    names::check_principal(&filled).map_err(|bad| value.bad_name(&bad, notes))?;
    Ok(text.to_owned())
}

/// A template of paths on nodes, tried with harmless values.
pub(super) fn role_file_template(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<String, Noted> {
    let text = value.full_text("a path such as /tmp/default_role_{{.Experiment}}_{{.DesiredUID}}", notes)?;
    templates::remote_path(text, |_| Some("x".to_owned())).map_err(|error| bad_template(value, text, &error, notes))?;
    Ok(text.to_owned())
}

/// Notes what is wrong with a template.
pub(super) fn bad_template(value: &Value<'_>, text: &str, error: &TemplateError, notes: &mut Notes<'_>) -> Noted {
    let expected = match error {
        TemplateError::UnknownField(_) if value.path.contains("kerberosPrincipalPattern") => {
            "no field but {{.Account}}".to_owned()
        }
        TemplateError::UnknownField(_) => {
            let fields: Vec<_> = Field::ALL.iter().map(Field::to_string).collect();
            format!("one of {}", fields.join(" "))
        }
        TemplateError::Unclosed => "a field such as {{.Account}}".to_owned(),
        TemplateError::NoValue(_) => "fields that have a value".to_owned(),
        TemplateError::DotDot(_) | TemplateError::NotAbsolute(_) | TemplateError::BadCharacter(..) => {
            "an absolute path of letters, digits and / . _ - + @ : , = %".to_owned()
        }
    };
    value.wrong(codes::BAD_TEMPLATE, format!("{}: {error}", show(text)), &expected, notes)
}

/// Words for a command line. Empty: none.
pub(super) fn words(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<Vec<String>, Noted> {
    let expected = "words as a shell would split them";
    let text = value.text(expected, notes)?;
    options::split(text)
        .map_err(|what| value.wrong(codes::BAD_OPTIONS, format!("{}: {what}", show(text)), expected, notes))
}

/// `ping_words`, `words` and this one give what goes on the command line, defaults included.
pub(super) fn ssh_words(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<Vec<String>, Noted> {
    let words = words(value, notes)?;
    let expected = "options such as \"-o ConnectTimeout=10\" or \"ConnectTimeout=10\"";
    options::ssh(&words).map_err(|what| value.wrong(codes::BAD_OPTIONS, what, expected, notes))
}

pub(super) fn ping_words(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<Vec<String>, Noted> {
    words(value, notes).map(|words| options::ping(&words))
}

pub(super) fn token_getter(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<TokenGetter, Noted> {
    let expected = "\"storeAndGetToken\" or \"getToken\"";
    match value.text(expected, notes)? {
        "storeAndGetToken" => Ok(TokenGetter::StoreAndGetToken),
        "getToken" => Ok(TokenGetter::GetToken),
        other => Err(value.wrong(codes::UNKNOWN_VALUE, format!("{} is not known", show(other)), expected, notes)),
    }
}

/// A Go duration; `least`: `Duration::ZERO` where zero makes sense.
fn go_duration(value: &Value<'_>, zero: bool, notes: &mut Notes<'_>) -> Result<Duration, Noted> {
    let text = value.text_or_zero(duration::EXPECTED, notes)?;
    let Some(read) = duration::parse_duration(text) else {
        let what = format!("{} is not a duration", show(text));
        return Err(value.wrong(codes::BAD_DURATION, what, duration::EXPECTED, notes));
    };
    if read.is_zero() && !zero {
        return Err(value.wrong(codes::OUT_OF_RANGE, "is no time at all", "a duration of more than nothing", notes));
    }
    Ok(read)
}

/// A duration that may be nothing.
pub(super) fn pause(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<Duration, Noted> {
    go_duration(value, true, notes)
}

/// A duration of more than nothing.
pub(super) fn timeout(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<Duration, Noted> {
    go_duration(value, false, notes)
}

/// So long htgettoken's vault tokens live if it is not told otherwise.
const TOKENS_LIVE: Duration = Duration::from_secs(7 * 86_400);

/// As htgettoken takes it; kept as text.
pub(super) fn lifetime(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<String, Noted> {
    let text = value.text(duration::EXPECTED_LIFETIME, notes)?;
    match duration::parse_lifetime(text) {
        Some(least) => {
            if least >= TOKENS_LIVE {
                // No error: a site may ask for longer tokens in HTCondor's options.
                let what = format!(
                    "{} is not less than the 7d that htgettoken's tokens live unless --vaulttokenttl says otherwise: \
                     htgettoken refuses that, and no token is got",
                    show(text)
                );
                notes.warning(codes::ODD_VALUE, Some(value.at), &value.path, what, "less than 7d, such as 3d");
            }
            Ok(text.to_owned())
        }
        None => {
            let what = format!("{} is not a lifetime", show(text));
            Err(value.wrong(codes::BAD_DURATION, what, duration::EXPECTED_LIFETIME, notes))
        }
    }
}

/// Mail addresses: a list, or one text, which is an address as a whole or else split at white space.
pub(super) fn addresses(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<Vec<String>, Noted> {
    let expected = "an address such as dune@example.org, or a list of them";
    if let Some(text) = value.as_text().filter(|text| is_mail_address(text)) {
        return Ok(vec![text.to_owned()]);
    }
    let mut addresses = Vec::new();
    let mut failed = None;
    for (item, text) in value.texts(expected, notes)? {
        if is_mail_address(text) {
            addresses.push(text.to_owned());
        } else {
            failed =
                Some(item.wrong(codes::BAD_ADDRESS, format!("{} is not a mail address", show(text)), expected, notes));
        }
    }
    failed.map_or(Ok(addresses), Err)
}

/// Is it one, as RFC 5322 has it?
pub fn is_mail_address(text: &str) -> bool {
    !text.chars().any(char::is_control) && text.parse::<lettre::message::Mailbox>().is_ok()
}

/// A mail address that mail comes from.
pub(super) fn sender(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<Option<String>, Noted> {
    let expected = "an address such as managed-tokens@example.org";
    match value.text(expected, notes)? {
        "" => Ok(None),
        text if is_mail_address(text) => Ok(Some(text.to_owned())),
        text => Err(value.wrong(codes::BAD_ADDRESS, format!("{} is not a mail address", show(text)), expected, notes)),
    }
}

/// A text that means nothing when it is empty.
pub(super) fn optional_text(value: &Value<'_>, notes: &mut Notes<'_>) -> Result<Option<String>, Noted> {
    if value.text("text", notes)?.trim().is_empty() {
        return Ok(None);
    }
    value.full_text("text", notes).map(|text| Some(text.to_owned()))
}
