//! What a secret looks like. Every pattern is built from parts that have names.
//!
//! All of them are searched in linear time, and no alternative may look far beyond its match for something that may not
//! come: a text of many matches would take the square of its length.

use std::sync::LazyLock;

use regex::Regex;

fn compiled(pattern: &str) -> Regex {
    Regex::new(pattern).expect("checked by every test here")
}

/// Where programs wrap at the width of something, and how mails and quotes go on.
const BREAK: &str = r"=?\n[ \t>|]*";
/// A character as URLs and strings of JSON and Python may have it, once escaped or more often.
const ESCAPED: &str = r"%(?:25)*[0-9A-Fa-f]{2}|\\+(?:u00|x)[0-9A-Fa-f]{2}";
/// A dot, too.
const DOT: &str = r"(?:\.|%(?:25)*2[Ee]|\\+(?:u00|x)2[Ee])";

/// What is a secret wherever it stands. The minimum lengths keep host names (`hvs.fnal.gov`, `s.b.org`) readable:
/// tokens of the vault have at least 24 characters after the dot.
pub(super) static TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    let (letter, digit) = (format!("(?:[A-Za-z0-9_-]|{ESCAPED})"), format!("(?:[A-Za-z0-9]|{ESCAPED})"));
    // These letters, with a line's end after any of them.
    let broken = |letters: &[&str]| letters.join(&format!("(?:{BREAK})?")) + &format!("(?:{BREAK})?");
    let more = format!("(?:{DOT}{letter}*)*");
    let kinds = [
        // The vault's: service, batch, recovery; with a namespace.
        format!("hv[sbr]{DOT}{letter}{{8,}}{more}"),
        format!("{}{letter}{{24,}}{more}", broken(&["h", "v", "[sbr]", DOT])),
        format!("hv[sbr]{DOT}{letter}{{1,7}}{BREAK}{letter}{{24,}}{more}"),
        // Before vault 1.10.
        format!("s{DOT}{digit}{{24,}}(?:{DOT}{digit}+)*"),
        format!(r"\bs{DOT}(?:{digit}{{0,8}}{BREAK}{digit}{{16,}}|{digit}{{9,23}}{BREAK}{digit}+)"),
        format!("b{DOT}(?:AAAA{letter}{{20,}}|[A-Za-z0-9_]{{24,}})"),
        // JWT: base64 of `{"`.
        format!("eyJ{letter}{{10,}}{more}"),
        format!("{}(?:{letter}|{DOT}){{24,}}", broken(&["e", "y", "J"])),
        format!("eyJ{letter}{{1,9}}{BREAK}(?:{letter}|{DOT}){{24,}}"),
        r"hooks\.slack\.com/services/[^\s]+".to_owned(),
    ];
    // No word of people is as long as what goes on in the next line, and no path is of such letters alone.
    let wrapped = format!("(?:{BREAK}[A-Za-z0-9_.=-]{{24,}})*");
    // `hvs.` in base64, at each of the three places where it may begin, and a JWT at the first.
    let encoded = "(?:aHZ[ziy]L|h2cy[45]|odnMu|ZXlK)[A-Za-z0-9+/_=-]{16,}";
    // Here a line may begin with a slash, as paths do, which are shorter than lines.
    let encoded_wrapped = format!("(?:{BREAK}(?:[A-Za-z0-9+_-][A-Za-z0-9+/_=-]{{23,}}|/[A-Za-z0-9+/_=-]{{47,}}))*");
    compiled(&format!("(?:{}){wrapped}|{encoded}{encoded_wrapped}", kinds.join("|")))
});

/// Half a secret at a place where the text was cut off.
pub(super) static UNFINISHED: LazyLock<Regex> = LazyLock::new(|| {
    compiled(r"(?:\bhv[sbr]|\b[sb])\.[A-Za-z0-9_-]*$|eyJ[A-Za-z0-9_.-]*$|//[^/\s:@\[]*:[^/\s@]*[^/\s@0-9][^/\s@]*$")
});

/// A quoted value. Where JSON is a string in JSON its quotes have a backslash, and three, seven, … if it is that again;
/// those that belong to the value have more.
fn quoted() -> String {
    let quoted = |quote: char, level: u32| {
        let backslashes = 1_usize << level;
        let escape = r"\\".repeat(backslashes);
        let closing = r"\\".repeat(backslashes - 1) + &quote.to_string();
        let content = format!(r"{escape}{closing}|{escape}{escape}|\\+[^{quote}\\\n]|[^{quote}\\\n]");
        format!("{closing}(?:{content})*{closing}")
    };
    let levels = (0..=2).flat_map(|level| [quoted('"', level), quoted('\'', level)]);
    // As many backslashes as never should be.
    let others = [r#"\\+"[^"\n]*""#.to_owned(), r"\\+'[^'\n]*'".to_owned()];
    // Python says what kind of text it is.
    format!("[bu]?(?:{})", levels.chain(others).collect::<Vec<_>>().join("|"))
}

/// What is a secret because of the word before it. The first group that is there stays, so that a reader sees what was
/// there; the second is the secret. Without groups it is a path.
pub(super) static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    let quoted = quoted();
    let space = r"(?:[ \t+]|%(?:25)*20)";
    let quote = r#"(?:\\*["']|%(?:25)*22|\\+u0022)"#;
    let colon = r"(?:[:=]|%(?:25)*3[ad]|\\+u003[ad])";
    let is = format!(r"{quote}?{space}*{colon}{space}*(?:%(?:25)*22|\\+u0022)?");
    let names = [
        "password",
        "passwd",
        "passphrase",
        "(?:client_?)?secret(?:_?(?:id|key))?",
        "(?:client|access|refresh|id|bearer|auth|session|private)[_-]?token",
        "vault[_-]token",
        "(?:api|private)[_-]?key",
    ]
    .join("|");
    // A separator ends it, unless it stands in the middle of a word.
    let word = r#"[bu]?\\*["']?[^\s"',;&](?:[^\s"',;&]|[,;][^\s"',;&\\]|["'][^\s"',;&:)}\]>\\])*"#;
    let field = format!("((?:{names}){is})({quoted}|{word})");
    // Whatever the scheme is: all that stands in the quotes, in this part of a URL, or on the line.
    let header = "(?:proxy-)?authorization";
    let within = |q: char| format!(r"({q}{header}[ \t]*:[ \t]*)((?:\\*[^{q}\\\n])+)");
    let line = format!(r"({header}[ \t]*:[ \t]*)(\S[^\n]*)");
    let key = format!(r"({header}{quote}[ \t]*:[ \t]*)({quoted}|\[redacted\]|\S[^\n]*)");
    let part = format!(r"({header}{is})({quoted}|\[redacted\]|[^\s&][^\n&]*)");
    let scheme = r"(\b(?:basic|bearer)[ \t]+)([A-Za-z0-9._~+/=-]{16,})".to_owned();
    // The last part of a path is no field's name: `/etc/mt/smtp-password: Permission denied`.
    let path = r#"(?:^|[\s"'`(=,:])/[A-Za-z0-9._~+@/-]+(?:\\*["'`])?:[ \t]"#.to_owned();
    let kinds = [path, within('"'), within('\''), line, key, part, field, scheme];
    compiled(&format!("(?i){}", kinds.join("|")))
});

/// `https://name:password@host`. A password with a slash in it is told from a port by what is no digit.
pub(super) static IN_URL: LazyLock<Regex> =
    LazyLock::new(|| compiled(r"://[^/\s:@\[]*:(?:[^/\s]*[^/\s0-9][^\s]*|[^/\s]+)@"));

/// The same where a scheme is missing, and nothing else is said.
pub(super) static BARE_URL: LazyLock<Regex> = LazyLock::new(|| compiled(r"^[^/\s:@]*:[^/\s]\S*@"));

/// A private key, whole or cut off at its end or beginning.
pub(super) static KEY: LazyLock<Regex> = LazyLock::new(|| {
    let line = |word: &str| format!("-----{word} [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----");
    let (begin, end) = (line("BEGIN"), line("END"));
    compiled(&format!(r"(?s){begin}(?:.*?{end}|.*)|^(?:[A-Za-z0-9+/=\s]|\\n)+{end}"))
});
