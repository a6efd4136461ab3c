//! What children find in their environment: what is on this list and what a step sets, nothing else.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// Passed on as they are.
const NAMES: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "KRB5_CONFIG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "X509_CERT_DIR",
    "X509_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "CONDOR_CONFIG",
];
/// Passed on with whatever follows.
const PREFIXES: &[&str] = &["LC_", "_CONDOR_", "_condor_"];
/// Passed on to a child that talks to a person: htgettoken opens a browser where there is one, and only says the URL where
/// there is none.
const TERMINAL_NAMES: &[&str] = &[
    "TERM",
    "COLORTERM",
    "COLUMNS",
    "LINES",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "BROWSER",
    "SSH_CLIENT",
    "SSH_TTY",
];
/// Where programs are looked for when our own environment has no PATH, as under cron with an empty one.
const FALLBACK_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// The variables of this process, taken once: children see what was there at the start.
#[derive(Clone, Debug, Default)]
pub struct Snapshot(BTreeMap<OsString, OsString>);

impl Snapshot {
    /// That of this process.
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// These variables.
    pub fn new<K: Into<OsString>, V: Into<OsString>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// A variable as text; one that is set to nothing, or is no text, counts as not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(OsStr::new(name)).and_then(|value| value.to_str()).filter(|value| !value.trim().is_empty())
    }

    /// The PATH in which programs are looked for.
    pub fn path(&self) -> &OsStr {
        self.0.get(OsStr::new("PATH")).map_or(OsStr::new(FALLBACK_PATH), OsString::as_os_str)
    }

    /// What every child gets.
    pub fn for_children(&self) -> BTreeMap<OsString, OsString> {
        let mut allowed =
            self.only(|name| NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
        allowed.entry("PATH".into()).or_insert_with(|| FALLBACK_PATH.into());
        allowed
    }

    /// What a child gets beside that when it talks to a person.
    pub fn for_the_terminal(&self) -> BTreeMap<OsString, OsString> {
        self.only(|name| TERMINAL_NAMES.contains(&name))
    }

    fn only(&self, wanted: impl Fn(&str) -> bool) -> BTreeMap<OsString, OsString> {
        let named = |name: &OsString| name.to_str().is_some_and(&wanted);
        self.0.iter().filter(|(name, _)| named(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_get_what_is_on_the_list_and_nothing_else() {
        let ours = Snapshot::new([
            ("PATH", "/opt/condor/bin:/usr/bin"),
            ("LC_ALL", "C"),
            ("_condor_COLLECTOR_HOST", "collector.example.org"),
            ("KRB5_CONFIG", "/etc/krb5.test.conf"),
            ("KRB5CCNAME", "FILE:/tmp/krb5cc_0"),
            ("SSH_AUTH_SOCK", "/tmp/agent"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("LD_PRELOAD", "/tmp/evil.so"),
            ("HTGETTOKENOPTS", "--credkey=other"),
        ]);
        let children: Vec<String> =
            ours.for_children().keys().map(|name| name.to_string_lossy().into_owned()).collect();
        assert_eq!(children, ["KRB5_CONFIG", "LC_ALL", "PATH", "_condor_COLLECTOR_HOST"]);
    }

    #[test]
    fn children_have_a_path_even_when_we_have_none() {
        let children = Snapshot::new([("HOME", "/root")]).for_children();
        assert_eq!(children[OsStr::new("PATH")], FALLBACK_PATH);
    }
}
