//! A command line as the log shows it.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::redact::redact;

/// Words of options after which a secret may stand. Nothing of ours does that; a site's own programs may.
const SECRET_OPTIONS: &[&str] =
    &["password", "passwd", "passphrase", "secret", "apikey", "api-key", "api_key", "token"];
/// More characters are cut off: rsync's options say the same every time.
const LONGEST: usize = 400;

/// The command line without what may be a secret, as a shell would read it.
pub(super) fn shown(program: &OsStr, args: &[OsString]) -> String {
    let mut words = vec![program.to_string_lossy().into_owned()];
    let mut hide_next = false;
    for arg in args {
        let arg = arg.to_string_lossy();
        let (name, value) = arg.split_once('=').map_or((&*arg, None), |(name, value)| (name, Some(value)));
        let secret = name.starts_with('-') && is_secret(name.trim_start_matches('-'));
        words.push(match (hide_next && !arg.starts_with('-'), secret, value) {
            (true, _, _) => "[redacted]".to_owned(),
            (false, true, Some(_)) => format!("{name}=[redacted]"),
            (false, _, _) => arg.clone().into_owned(),
        });
        hide_next = secret && value.is_none();
    }
    let line = redact(&shell_words::join(words)).into_owned();
    match line.char_indices().nth(LONGEST) {
        None => line,
        Some((end, _)) => format!("{}… ({} bytes more)", &line[..end], line.len() - end),
    }
}

/// The program's name without its directory.
pub(super) fn name(program: &OsStr) -> String {
    let name = Path::new(program).file_name().unwrap_or(program);
    redact(&name.to_string_lossy()).into_owned()
}

fn is_secret(option: &str) -> bool {
    let option = option.to_lowercase();
    SECRET_OPTIONS.iter().any(|word| option.ends_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> String {
        let args: Vec<OsString> = words[1..].iter().map(OsString::from).collect();
        shown(OsStr::new(words[0]), &args)
    }

    #[test]
    fn a_command_is_shown_as_a_shell_would_read_it() {
        assert_eq!(line(&["rsync", "-e", "ssh -o A=b", "vt", "n:/tmp"]), "rsync -e 'ssh -o A=b' vt n:/tmp");
        let kept = ["htgettoken", "--vaulttokenfile", "/run/vt", "--credkey", "a/b", "--verbose"];
        assert_eq!(line(&kept), kept.join(" "));
    }

    #[test]
    fn what_follows_an_option_for_secrets_is_not_shown() {
        assert_eq!(line(&["x", "--password", "hunter2", "y"]), "x --password '[redacted]' y");
        assert_eq!(line(&["x", "--db-password=hunter2"]), "x '--db-password=[redacted]'");
        assert_eq!(line(&["x", "-token", "opaque", "--token", "-v"]), "x -token '[redacted]' --token -v");
        assert!(!line(&["x", "hvs.CAESIJlongEnoughToBeOne0123456789"]).contains("hvs"));
    }

    #[test]
    fn a_long_command_is_cut_off() {
        assert!(line(&["x", &"ä".repeat(9_999)]).chars().count() < LONGEST + 30);
    }
}
