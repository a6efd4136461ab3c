//! What a name may be. Names reach command lines, file names and remote shells: what is let in here is all that gets there.

use std::net::IpAddr;
use std::str::FromStr;

use crate::redact::redact_setting;

use super::service::{AccountName, CreddName, ExperimentName, NodeName, RoleName};

/// No name is longer (DNS's limit).
const MAX_LENGTH: usize = 253;
/// No account is longer (what useradd takes).
const MAX_ACCOUNT_LENGTH: usize = 32;

/// A name that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown} is not {kind}: {why}; expected {expected}")]
pub struct BadName {
    /// The name, escaped and quoted.
    pub shown: String,
    /// `a node`.
    pub kind: &'static str,
    /// What is wrong with it.
    pub why: String,
    /// What it may be.
    pub expected: &'static str,
}

struct Rule {
    kind: &'static str,
    expected: &'static str,
    first: fn(char) -> bool,
    rest: fn(char) -> bool,
    longest: usize,
}

const EXPERIMENT: Rule = Rule {
    kind: "an experiment",
    expected: "letters, digits and . _ + -, a letter or digit first",
    first: |c| c.is_ascii_alphanumeric(),
    rest: |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-'),
    longest: MAX_LENGTH,
};
const ROLE: Rule = Rule {
    kind: "a role",
    expected: "letters, digits and . + -, a letter or digit first; no underscore, since a service's role is what follows its last one",
    first: |c| c.is_ascii_alphanumeric(),
    rest: |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-'),
    longest: MAX_LENGTH,
};
const ACCOUNT: Rule = Rule {
    kind: "an account",
    expected: "at most 32 letters, digits and . _ -, a letter or underscore first",
    first: |c| c.is_ascii_alphabetic() || c == '_',
    rest: |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'),
    longest: MAX_ACCOUNT_LENGTH,
};
const NODE: Rule = Rule {
    kind: "a node",
    expected: "a host name such as dune01.fnal.gov, or an IP address",
    first: |c| c.is_ascii_alphanumeric(),
    rest: |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'),
    longest: MAX_LENGTH,
};
const CREDD: Rule = Rule {
    kind: "a credd",
    expected: "a host name such as schedd1.fnal.gov",
    first: |c| c.is_ascii_alphanumeric(),
    rest: |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | ':'),
    longest: MAX_LENGTH,
};
const COLLECTOR: Rule = Rule {
    kind: "a collector",
    expected: "a host name, with or without port: collector.fnal.gov:9618",
    first: |c| c.is_ascii_alphanumeric() || c == '[',
    rest: |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '[' | ']' | '?' | '='),
    longest: MAX_LENGTH,
};
const PRINCIPAL: Rule = Rule {
    kind: "a Kerberos principal",
    expected: "a principal such as dunepro/managedtokens/host.fnal.gov@FNAL.GOV",
    first: |c| c.is_ascii_alphanumeric() || c == '_',
    rest: |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '@' | '+'),
    longest: 280,
};
const VAULT_SERVER: Rule = Rule {
    kind: "a vault server",
    expected: "a host name, with or without port, or a URL: vault.fnal.gov, https://vault.fnal.gov:8200",
    first: |c| c.is_ascii_alphanumeric() || c == '[',
    rest: |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/' | '[' | ']' | ','),
    // A URL around the longest host name.
    longest: 280,
};

const LABEL: Rule = Rule {
    kind: "an environment label",
    expected: "letters, digits and . _ + -, a letter or digit first",
    ..EXPERIMENT
};

impl Rule {
    fn check(&self, text: &str) -> Result<(), BadName> {
        match self.objection(text) {
            None => Ok(()),
            Some(why) => Err(BadName { shown: show(text), kind: self.kind, why, expected: self.expected }),
        }
    }

    fn objection(&self, text: &str) -> Option<String> {
        let Some(first) = text.chars().next() else {
            return Some("it is empty".to_owned());
        };
        if text.len() > self.longest {
            return Some(format!("it has {} bytes, more than {}", text.len(), self.longest));
        }
        if let Some(bad) = text.chars().find(|c| !(self.rest)(*c) && !(self.first)(*c)) {
            return Some(format!("it holds {}", describe(bad)));
        }
        if !(self.first)(first) {
            return Some(format!("it begins with {}", describe(first)));
        }
        text.contains("..").then(|| "it holds `..`".to_owned())
    }
}

/// Quoted, escaped, without secrets, and not endless.
pub(super) fn show(text: &str) -> String {
    // Before it is cut: half a secret looks like none.
    let text = redact_setting(text);
    let mut shown: String = text.chars().take(80).map(escape).collect();
    if text.chars().nth(80).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

/// Nothing that a terminal or a reader could take for something else.
fn escape(character: char) -> String {
    match character {
        '"' | '\\' => character.escape_default().to_string(),
        c if c.is_ascii_graphic() || c == ' ' => c.to_string(),
        c => c.escape_default().to_string(),
    }
}

fn describe(character: char) -> String {
    match character {
        ' ' => "a space".to_owned(),
        c if c.is_ascii_graphic() => format!("`{c}`"),
        c if c.is_control() => format!("a control character ({})", c.escape_default()),
        c => format!("a character that is not ASCII ({})", c.escape_default()),
    }
}

macro_rules! from_str {
    ($type:ident, $check:expr) => {
        impl FromStr for $type {
            type Err = BadName;

            /// For names from outside: refused unless they can go on a command line and into a file name.
            fn from_str(text: &str) -> Result<Self, BadName> {
                let check: fn(&str) -> Result<(), BadName> = $check;
                check(text).map(|()| Self::checked(text))
            }
        }
    };
}

from_str!(ExperimentName, |text| EXPERIMENT.check(text));
from_str!(RoleName, |text| ROLE.check(text));
from_str!(AccountName, check_account);
from_str!(NodeName, check_node);
from_str!(CreddName, |text| CREDD.check(text));

/// A `$` at the end is what Samba gives machines' accounts.
fn check_account(text: &str) -> Result<(), BadName> {
    ACCOUNT.check(text.strip_suffix('$').filter(|name| !name.is_empty()).unwrap_or(text))
}

/// RFC 1123, with the underscores that hosts files have; an IP address of either kind.
fn check_node(text: &str) -> Result<(), BadName> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    NODE.check(text)?;
    let wrong = text.strip_suffix('.').unwrap_or(text).split('.').find_map(|label| match label {
        label if label.len() > 63 => Some("it has a label of more than 63 characters"),
        label if label.starts_with('-') || label.ends_with('-') => Some("it has a label that begins or ends with `-`"),
        _ => None,
    });
    match wrong {
        None => Ok(()),
        Some(why) => Err(BadName { shown: show(text), kind: NODE.kind, why: why.to_owned(), expected: NODE.expected }),
    }
}

/// An experiment as the issuer knows it.
pub(super) fn check_experiment(text: &str) -> Result<(), BadName> {
    EXPERIMENT.check(text)
}

/// `devEnvironmentLabel`, which becomes part of a job's name in a URL.
pub(super) fn check_label(text: &str) -> Result<(), BadName> {
    LABEL.check(text)
}

/// `ferry.serviceRole`: no configured service has it, so an underscore is fine.
pub(super) fn check_ferry_role(text: &str) -> Result<(), BadName> {
    Rule { rest: EXPERIMENT.rest, expected: EXPERIMENT.expected, ..ROLE }.check(text)
}

/// `host`, `host:port`, `host:port?sock=collector`.
pub(super) fn check_collector(text: &str) -> Result<(), BadName> {
    COLLECTOR.check(text)
}

/// A Kerberos principal, with or without realm.
pub(super) fn check_principal(text: &str) -> Result<(), BadName> {
    PRINCIPAL.check(text)
}

/// `ferry.serviceKerberosPrincipal`, in which the Go service's own example has a leading slash.
pub(super) fn check_ferry_principal(text: &str) -> Result<(), BadName> {
    PRINCIPAL.check(text.strip_prefix('/').unwrap_or(text))
}

/// What htgettoken takes after `-a`.
pub(super) fn check_vault_server(text: &str) -> Result<(), BadName> {
    VAULT_SERVER.check(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &[&str] = &[
        "",
        "-oProxyCommand=x",
        "a b",
        "a\tb",
        "a\nb",
        "a'b",
        "a\"b",
        "$(id)",
        "a`id`",
        "a;b",
        "a|b",
        "a&b",
        "a<b",
        "a>b",
        "a\\b",
        "a\u{7}b",
        "a\0b",
        "dün",
        "..",
        "a..b",
        "a*",
        "a?",
        "{a}",
        "a#b",
        "a!b",
        "~root",
        "a%b",
    ];

    #[test]
    fn no_name_lets_in_what_a_shell_or_a_path_would_read() {
        for text in HOSTILE {
            assert!(text.parse::<ExperimentName>().is_err(), "experiment {text:?}");
            assert!(text.parse::<RoleName>().is_err(), "role {text:?}");
            assert!(text.parse::<AccountName>().is_err(), "account {text:?}");
            assert!(text.parse::<NodeName>().is_err(), "node {text:?}");
            assert!(text.parse::<CreddName>().is_err(), "credd {text:?}");
            assert!(check_principal(text).is_err(), "principal {text:?}");
            assert!(check_vault_server(text).is_err(), "vault server {text:?}");
            assert!(check_collector(text).is_err() || *text == "a?", "collector {text:?}");
        }
        for text in ["a/b", "/etc", "a/../b"] {
            assert!(text.parse::<ExperimentName>().is_err());
            assert!(text.parse::<RoleName>().is_err());
            assert!(text.parse::<AccountName>().is_err());
            assert!(text.parse::<NodeName>().is_err());
            assert!(text.parse::<CreddName>().is_err());
        }
        let long = "a".repeat(254);
        assert!(long.parse::<ExperimentName>().is_err());
        assert!(long.parse::<CreddName>().is_err());
    }

    #[test]
    fn real_names_are_let_in() {
        for text in ["dune", "dune-2", "gm2", "mu2e", "e1039", "lariat_test", "sbnd.dev", "LArSoft"] {
            assert!(text.parse::<ExperimentName>().is_ok(), "{text}");
        }
        for text in ["production", "Analysis", "prod-2", "test.role"] {
            assert!(text.parse::<RoleName>().is_ok(), "{text}");
        }
        for text in ["dunepro", "_apt", "mu2e-pro", "g.minus.2", "machine$", "uboonepro", "X1"] {
            assert!(text.parse::<AccountName>().is_ok(), "{text}");
        }
        let label = "a".repeat(63);
        for text in
            ["dunegpvm01.fnal.gov", "dune01", "127.0.0.1", "::1", "fe80::1", "0host", "my_node", "host.", &label]
        {
            assert!(text.parse::<NodeName>().is_ok(), "{text}");
        }
        for text in ["schedd1.fnal.gov", "jobsub01.fnal.gov:9615", "schedd@host.fnal.gov"] {
            assert!(text.parse::<CreddName>().is_ok(), "{text}");
        }
        assert!(check_principal("dunepro/managedtokens/host.fnal.gov@FNAL.GOV").is_ok());
        assert!(check_vault_server("https://vault.fnal.gov:8200").is_ok());
        assert!(check_collector("collector.fnal.gov:9618?sock=collector").is_ok());
    }

    #[test]
    fn nodes_and_accounts_have_shapes_of_their_own() {
        for text in ["-dune01", "dune01-.fnal.gov", ".fnal.gov", "user@dune01", "dune01:22", "::1:x", &"a".repeat(64)] {
            assert!(text.parse::<NodeName>().is_err(), "{text}");
        }
        for text in ["1dune", "$", "dune$pro", &"a".repeat(33), ".dune", "-dune"] {
            assert!(text.parse::<AccountName>().is_err(), "{text}");
        }
        assert!(
            "prod_uction".parse::<RoleName>().is_err(),
            "the role of a service is what follows its last underscore"
        );
    }

    #[test]
    fn the_message_shows_the_value_escaped() {
        let error = "du\u{1b}[31mne".parse::<AccountName>().unwrap_err().to_string();
        assert!(error.starts_with(r#""du\u{1b}[31mne" is not an account: it holds a control character"#), "{error}");
        assert!(!error.contains('\u{1b}'));
    }

    #[test]
    fn a_password_in_a_url_is_not_shown_however_long_it_is() {
        for (text, expected) in [
            ("admin:hunter2@push:9091", r#""[redacted]@push:9091""#.to_owned()),
            (&format!("https://admin:{}@push", "hunter2".repeat(20)), r#""https://[redacted]@push""#.to_owned()),
            ("me@example.org", r#""me@example.org""#.to_owned()),
            (&"ä".repeat(100), format!("\"{}…\"", "\\u{e4}".repeat(80))),
        ] {
            assert_eq!(show(text), expected);
        }
    }
}
