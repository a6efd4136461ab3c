//! `{{.Account}}`: the templates of the configuration, a small part of Go's.

use std::fmt;

/// A field a template can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The account on the nodes.
    Account,
    /// Its numeric id.
    DesiredUid,
    /// The configured experiment.
    Experiment,
    /// The role.
    Role,
    /// The service as the token issuer knows it.
    Service,
    /// The Kerberos principal.
    UserPrincipal,
    /// The keytab.
    KeytabPath,
    /// The vault server.
    VaultServer,
}

impl Field {
    /// Every field.
    pub const ALL: &'static [Self] = &[
        Self::Account,
        Self::DesiredUid,
        Self::Experiment,
        Self::Role,
        Self::Service,
        Self::UserPrincipal,
        Self::KeytabPath,
        Self::VaultServer,
    ];

    /// As a template writes it, without the dot.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Account => "Account",
            Self::DesiredUid => "DesiredUID",
            Self::Experiment => "Experiment",
            Self::Role => "Role",
            Self::Service => "Service",
            Self::UserPrincipal => "UserPrincipal",
            Self::KeytabPath => "KeytabPath",
            Self::VaultServer => "VaultServer",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{{.{}}}}}", self.as_str())
    }
}

/// A template that cannot be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{{` without `}}`.
    #[error("`{{{{` is not closed by `}}}}`")]
    Unclosed,
    /// Something that is not a known field.
    #[error("`{{{{{0}}}}}` is not known here")]
    UnknownField(String),
    /// The field has no value yet.
    #[error("{0} has no value here")]
    NoValue(Field),
    /// The path has a `..`.
    #[error("the path {0:?} holds `..`")]
    DotDot(String),
    /// The path does not begin with `/`.
    #[error("the path {0:?} does not begin with `/`")]
    NotAbsolute(String),
    /// The path has a character that a remote shell or rsync would read.
    #[error("the path {0:?} holds {1:?}")]
    BadCharacter(String, char),
}

/// Fills a template in. `value` gives each field's text; `Err(None)`: the field is not known to this template;
/// `Err(Some(field))`: it is, and has no value yet.
fn fill(template: &str, value: impl Fn(Field) -> Result<String, Option<Field>>) -> Result<String, TemplateError> {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, after) = after.split_once("}}").ok_or(TemplateError::Unclosed)?;
        let unknown = || TemplateError::UnknownField(inside.to_owned());
        let name = inside.trim().strip_prefix('.').ok_or_else(unknown)?;
        let field = Field::ALL.iter().copied().find(|field| field.as_str() == name).ok_or_else(unknown)?;
        filled += before;
        filled += &value(field).map_err(|missing| missing.map_or_else(unknown, TemplateError::NoValue))?;
        rest = after;
    }
    Ok(filled + rest)
}

/// The principal of an account, from `kerberosPrincipalPattern`, which knows `{{.Account}}` alone.
pub(super) fn principal(pattern: &str, account: &str) -> Result<String, TemplateError> {
    fill(pattern, |field| if field == Field::Account { Ok(account.to_owned()) } else { Err(None) })
}

/// A path on a node, which every field can be part of, and which goes through rsync and the node's shell.
pub(super) fn remote_path(template: &str, value: impl Fn(Field) -> Option<String>) -> Result<String, TemplateError> {
    let path = fill(template, |field| value(field).ok_or(Some(field)))?;
    if path.split('/').any(|part| part == "..") {
        return Err(TemplateError::DotDot(path));
    }
    if !path.starts_with('/') {
        return Err(TemplateError::NotAbsolute(path));
    }
    let fits =
        |c: &char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | '@' | ':' | ',' | '=' | '%');
    match path.chars().find(|c| !fits(c)) {
        Some(bad) => Err(TemplateError::BadCharacter(path, bad)),
        None => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(template: &str) -> Result<String, TemplateError> {
        remote_path(template, |field| (field != Field::VaultServer).then(|| format!("<{}>", field.as_str()))).or_else(
            |error| match error {
                // The marks around the names are not fit for a path: what matters here is what is filled in.
                TemplateError::BadCharacter(path, '<') => Ok(path),
                other => Err(other),
            },
        )
    }

    #[test]
    fn fields_are_filled_in_with_or_without_space() {
        assert_eq!(
            path("/tmp/default_role_{{.Experiment}}_{{ .DesiredUID }}").unwrap(),
            "/tmp/default_role_<Experiment>_<DesiredUID>"
        );
        assert_eq!(path("/tmp/{{.Account}}}}").unwrap(), "/tmp/<Account>}}");
        assert_eq!(principal("{{.Account}}/mt@REALM", "dunepro").unwrap(), "dunepro/mt@REALM");
        assert_eq!(principal("fixed@REALM", "dunepro").unwrap(), "fixed@REALM");
    }

    #[test]
    fn what_cannot_be_filled_in_is_an_error() {
        let unknown = |text: &str| Err(TemplateError::UnknownField(text.to_owned()));
        assert_eq!(path("/tmp/{{.Acount}}"), unknown(".Acount"));
        assert_eq!(path("/tmp/{{Account}}"), unknown("Account"));
        assert_eq!(path("/tmp/{{.account}}"), unknown(".account"));
        assert_eq!(path("/tmp/{{if .Account}}"), unknown("if .Account"));
        assert_eq!(path("/tmp/{{}}"), unknown(""));
        assert_eq!(path("/tmp/{{.Account"), Err(TemplateError::Unclosed));
        assert_eq!(path("/tmp/{{.Account}"), Err(TemplateError::Unclosed));
        assert_eq!(path("/tmp/{{.VaultServer}}"), Err(TemplateError::NoValue(Field::VaultServer)));
        assert_eq!(principal("{{.DesiredUID}}", "x"), unknown(".DesiredUID"));
    }

    #[test]
    fn a_remote_path_is_one_that_no_shell_reads() {
        let plain = |template: &str| remote_path(template, |_| Some("..".to_owned()));
        assert!(matches!(plain("/tmp/../etc/x"), Err(TemplateError::DotDot(_))));
        assert!(matches!(plain("/tmp/{{.Account}}/x"), Err(TemplateError::DotDot(_))));
        assert!(matches!(plain("tmp/x"), Err(TemplateError::NotAbsolute(_))));
        for bad in [' ', '$', ';', '*', '\'', '\n', 'ü', '~', '&', '|', '`', '\\'] {
            assert!(matches!(plain(&format!("/tmp/a{bad}b")), Err(TemplateError::BadCharacter(..))), "{bad}");
        }
        assert!(plain("/tmp/..x/y..").is_ok());
    }
}
