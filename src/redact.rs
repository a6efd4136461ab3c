//! Secrets out of text that people or disks will see.
//!
//! In doubt it takes too much: a word lost from a message is a smaller loss than a token in a mail.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use percent_encoding::percent_decode_str;
use regex::{Captures, Regex};
use reqwest::Url;

use patterns::{BARE_URL, IN_URL, KEY, NAMED, TOKEN, UNFINISHED};

mod patterns;

/// What stands in a secret's place.
const REDACTED: &str = "[redacted]";

/// A value that cannot be printed: no `Display`, and `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value read from where secrets may live.
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value, for the one place that must use it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A text of somebody who knows the value, such as a server that was just told it, without it: as it is, and in base64
    /// with whatever before and behind it (`AUTH PLAIN …`).
    pub fn out_of(&self, text: &str) -> String {
        if self.0.is_empty() {
            return text.to_owned();
        }
        let mut text = text.replace(&self.0, REDACTED);
        for (place, digits) in [(0, 0), (1, 2), (2, 3)] {
            // What depends on the neighbours is left out.
            let mut bytes = vec![0; place];
            bytes.extend(self.0.bytes());
            let encoded = STANDARD_NO_PAD.encode(&bytes);
            let core = &encoded[digits..(bytes.len() * 8 / 6).max(digits)];
            // Shorter ones stand in ordinary words, too.
            if core.len() >= 4 {
                text = without_word_around(&text, core);
            }
        }
        text
    }
}

/// Replaces every word of base64 that holds this.
fn without_word_around(text: &str, core: &str) -> String {
    let is_other = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '='));
    let (mut done, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(core) {
        let from = rest[..at]
            .rfind(is_other)
            .map_or(0, |other| other + rest[other..].chars().next().map_or(1, char::len_utf8));
        let end = at + core.len();
        let to = rest[end..].find(is_other).map_or(rest.len(), |other| end + other);
        done.push_str(&rest[..from]);
        done.push_str(REDACTED);
        rest = &rest[to..];
    }
    done + rest
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A quote that is not closed pairs with the next one, and what follows that is a value only once the first is gone.
const MOST_PASSES: usize = 8;

/// Terminal control: CSI and OSC sequences, then any other escape.
static ESCAPE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]P^_X][^\x07\x1b\n]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?")
        .expect("as above")
});

/// The text without vault tokens (`hvs.…`, `s.…`, `b.…`), JWTs and authorization headers, and without terminal control:
/// of control characters only newline and tab stay, and a lone carriage return becomes a newline. Text with nothing of that kind comes back
/// as it is, and redacting twice changes nothing more.
pub fn redact(text: &str) -> Cow<'_, str> {
    // Control first: a colour change in the middle of a token must not hide it.
    let mut text = without_control(text);
    for _ in 0..MOST_PASSES {
        let once = match redact_once(Cow::Borrowed(&text)) {
            Cow::Borrowed(_) => break,
            Cow::Owned(same) if same == text => break,
            Cow::Owned(once) => once,
        };
        text = Cow::Owned(once);
    }
    text
}

fn redact_once(text: Cow<'_, str>) -> Cow<'_, str> {
    let text = replace(text, &KEY, |_| REDACTED.to_owned());
    let text = replace(text, &NAMED, |found| {
        let mut groups = found.iter().skip(1).flatten().map(|group| group.as_str());
        let (Some(name), Some(value)) = (groups.next(), groups.next()) else { return found[0].to_owned() };
        // Already done, and inside of brackets.
        let rest = value.strip_prefix(REDACTED);
        let is_done = |rest: &str| rest.starts_with([',', ';']) || rest.chars().all(|c| "})]>.".contains(c));
        if rest.is_some_and(is_done) {
            return found[0].to_owned();
        }
        format!("{name}{REDACTED}")
    });
    let text = replace(text, &IN_URL, |_| format!("://{REDACTED}@"));
    replace(text, &TOKEN, |_| REDACTED.to_owned())
}

/// What a server at this URL says, without the password that it was told with it, or the name where there is no password.
pub(crate) fn without_login(url: &Url, text: &str) -> String {
    let login = url.password().unwrap_or(url.username());
    let decoded = percent_decode_str(login).decode_utf8_lossy();
    // As it is meant, as it is written, and as JSON writes it, with letters or without.
    let json = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_ascii() => c.to_string(),
        c => c.encode_utf16(&mut [0; 2]).iter().map(|half| format!("\\u{half:04x}")).collect(),
    };
    let escaped = |c: char| if c.is_ascii() { json(c) } else { c.to_string() };
    let forms = [
        decoded.to_string(),
        login.to_owned(),
        decoded.chars().map(escaped).collect(),
        decoded.chars().map(json).collect(),
    ];
    // Control characters first: what hides behind one now would be whole without it.
    forms.into_iter().fold(without_control(text).into_owned(), |text, form| Secret::new(form).out_of(&text))
}

/// A URL for people to see: a user's name and password in it are for the server alone.
pub(crate) fn without_password(url: &str) -> String {
    let url = match url.rsplit_once('@') {
        None => url.to_owned(),
        Some((before, after)) => match before.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://{after}"),
            None => after.to_owned(),
        },
    };
    redact(&url).into_owned()
}

/// What is configured, whatever it is: like [`redact`], and where it may be meant for a URL (`me:hunter2@host`) without
/// its password. Control characters stay where there is no secret: whoever shows it shows them.
pub(crate) fn redact_setting(text: &str) -> Cow<'_, str> {
    let redacted = replace(redact(text), &BARE_URL, |_| format!("{REDACTED}@"));
    if redacted == without_control(text) { Cow::Borrowed(text) } else { redacted }
}

/// Like [`redact`], for text whose end was cut off: half a token there goes too.
pub(crate) fn redact_unfinished(text: &str) -> Cow<'_, str> {
    replace(redact(text), &UNFINISHED, |_| REDACTED.to_owned())
}

fn replace<'a>(text: Cow<'a, str>, pattern: &Regex, with: impl Fn(&Captures<'_>) -> String) -> Cow<'a, str> {
    let replaced = match pattern.replace_all(&text, |found: &Captures<'_>| with(found)) {
        Cow::Borrowed(_) => None,
        Cow::Owned(replaced) => Some(replaced),
    };
    replaced.map_or(text, Cow::Owned)
}

fn without_control(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unwanted) {
        return Cow::Borrowed(text);
    }
    let text = ESCAPE.replace_all(text, "").replace("\r\n", "\n").replace('\r', "\n");
    Cow::Owned(text.replace(is_unwanted, ""))
}

/// Control characters, and those that turn the direction of what follows and so can forge a line.
fn is_unwanted(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests;
