//! One line of the log: what it says, and how it is written in each format.

use std::borrow::Cow;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::Level;

use crate::config::LogFormat;
use crate::redact::redact;

/// More characters of a value are cut off: a child that says a lot must not fill the disk.
const LONGEST_VALUE: usize = 2_000;

/// What a line is about: the same keys, in this order, on every line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The run.
    pub run: Option<String>,
    /// The service, where machines are made for services.
    pub service: Option<String>,
    /// The account, where they are made for accounts.
    pub account: Option<String>,
    /// The step.
    pub step: Option<String>,
    /// Its target.
    pub target: Option<String>,
}

impl About {
    /// The place of a key, if it is one of these.
    pub fn place(&mut self, key: &str) -> Option<&mut Option<String>> {
        match key {
            "run" => Some(&mut self.run),
            "service" => Some(&mut self.service),
            "account" => Some(&mut self.account),
            "step" => Some(&mut self.step),
            "target" => Some(&mut self.target),
            _ => None,
        }
    }

    /// Takes what is not known yet.
    pub fn fill_from(&mut self, other: &Self) {
        let fill = |mine: &mut Option<String>, other: &Option<String>| {
            if mine.is_none() {
                mine.clone_from(other);
            }
        };
        fill(&mut self.run, &other.run);
        fill(&mut self.service, &other.service);
        fill(&mut self.account, &other.account);
        fill(&mut self.step, &other.step);
        fill(&mut self.target, &other.target);
    }

    fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let pairs = [
            ("run", &self.run),
            ("service", &self.service),
            ("account", &self.account),
            ("step", &self.step),
            ("target", &self.target),
        ];
        pairs.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)))
    }
}

/// One line, as it was said: nothing is redacted yet.
#[derive(Clone, Debug)]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// How bad.
    pub level: Level,
    /// The library that says so; `None` for mt itself.
    pub library: Option<&'static str>,
    /// What it is about.
    pub about: About,
    /// The words.
    pub message: String,
    /// Everything else: text, numbers and booleans.
    pub fields: Vec<(&'static str, Value)>,
}

impl Line {
    /// The line in this format, without secrets and without a line break.
    pub fn render(&self, format: LogFormat) -> String {
        match format {
            LogFormat::Text => self.text(),
            LogFormat::Logfmt => self.logfmt(),
            LogFormat::Json => self.json(),
        }
    }

    fn text(&self) -> String {
        let mut line = format!("{:.3} {:<4}", self.at, self.level.as_str());
        self.about.pairs().for_each(|(key, value)| pair(&mut line, key, &clean(key, value)));
        line.push(' ');
        line.push_str(&one_line(&clean("", &self.message)));
        self.rest(&mut line);
        line
    }

    fn logfmt(&self) -> String {
        let mut line = format!("time={:.3} level={}", self.at, self.level.as_str().to_lowercase());
        self.about.pairs().for_each(|(key, value)| pair(&mut line, key, &clean(key, value)));
        pair(&mut line, "msg", &clean("", &self.message));
        self.rest(&mut line);
        line
    }

    fn rest(&self, line: &mut String) {
        for (key, value) in &self.fields {
            match value {
                Value::String(text) => pair(line, key, &clean(key, text)),
                other => pair(line, key, &other.to_string()),
            }
        }
        if let Some(library) = self.library {
            pair(line, "library", library);
        }
    }

    fn json(&self) -> String {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| {
            // A field that is named like one of ours must not replace it.
            object.entry(key).or_insert(value);
        };
        put("time", format!("{:.3}", self.at).into());
        put("level", self.level.as_str().to_lowercase().into());
        self.about.pairs().for_each(|(key, value)| put(key, clean(key, value).into_owned().into()));
        put("message", clean("", &self.message).into_owned().into());
        for (key, value) in &self.fields {
            match value {
                Value::String(text) => put(key, clean(key, text).into_owned().into()),
                other => put(key, other.clone()),
            }
        }
        if let Some(library) = self.library {
            put("library", library.into());
        }
        Value::Object(object).to_string()
    }
}

/// A value without secrets: those that look like one, and those whose key says that they are.
fn clean<'a>(key: &str, value: &'a str) -> Cow<'a, str> {
    if is_secret(key) {
        return Cow::Borrowed("[redacted]");
    }
    let cleaned = redact(value);
    // Secrets went first, so that no half of one stays here.
    match cleaned.char_indices().nth(LONGEST_VALUE) {
        None => cleaned,
        Some((end, _)) => Cow::Owned(format!("{}… ({} bytes more)", &cleaned[..end], cleaned.len() - end)),
    }
}

/// Would a value after this word be taken for a secret?
fn is_secret(key: &str) -> bool {
    let probe = format!("{key}=x");
    !key.is_empty() && redact(&probe) != probe
}

fn pair(line: &mut String, key: &str, value: &str) {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\') || (!c.is_ascii() && !c.is_control());
    if !value.is_empty() && value.chars().all(plain) {
        // A String takes everything.
        let _ = write!(line, " {key}={value}");
    } else {
        let _ = write!(line, " {key}=\"{}\"", one_line(&value.replace('\\', "\\\\").replace('"', "\\\"")));
    }
}

/// A line break must not begin a line that somebody could take for ours.
fn one_line(text: &str) -> Cow<'_, str> {
    match text.contains(['\n', '\t']) {
        true => Cow::Owned(text.replace('\n', "\\n").replace('\t', "\\t")),
        false => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "hvs.CAESIJlongEnoughToBeOne0123456789";

    fn line() -> Line {
        Line {
            at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            level: Level::INFO,
            library: None,
            about: About {
                run: Some("01KB".into()),
                service: Some("dune_production".into()),
                account: None,
                step: Some("push".into()),
                target: Some("node1.lab.test".into()),
            },
            message: "failed".into(),
            fields: vec![("tries", 2.into()), ("retry", true.into()), ("why", "it said \"no\"\nand left".into())],
        }
    }

    #[test]
    fn every_format_has_run_service_step_and_target_in_the_same_order() {
        let about = "run=01KB service=dune_production step=push target=node1.lab.test";
        let rest = r#"tries=2 retry=true why="it said \"no\"\nand left""#;
        assert_eq!(line().render(LogFormat::Text), format!("2026-01-02T03:04:05.678Z INFO {about} failed {rest}"));
        assert_eq!(
            line().render(LogFormat::Logfmt),
            format!("time=2026-01-02T03:04:05.678Z level=info {about} msg=failed {rest}")
        );
        let json: Value = serde_json::from_str(&line().render(LogFormat::Json)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "time": "2026-01-02T03:04:05.678Z", "level": "info", "run": "01KB", "service": "dune_production",
                "step": "push", "target": "node1.lab.test", "message": "failed", "tries": 2, "retry": true,
                "why": "it said \"no\"\nand left",
            })
        );
    }

    #[test]
    fn a_line_is_one_line_whatever_it_says() {
        for format in [LogFormat::Text, LogFormat::Logfmt, LogFormat::Json] {
            let forged = "ok\n2026-01-02T03:04:05.678Z ERROR forged\u{1b}[31m\r\nx";
            let line = Line { message: forged.into(), fields: vec![("why", forged.into())], ..line() };
            let rendered = line.render(format);
            assert!(!rendered.contains(['\n', '\r', '\u{1b}']), "{rendered}");
        }
    }

    #[test]
    fn no_secret_is_written_whatever_place_it_is_in() {
        for format in [LogFormat::Text, LogFormat::Logfmt, LogFormat::Json] {
            let mut line = Line { message: format!("got {TOKEN}"), ..line() };
            line.about.target = Some(TOKEN.into());
            line.fields = vec![
                ("why", format!("said \"{TOKEN}\"").into()),
                ("password", "hunter2 and more".into()),
                ("access_token", "opaque".into()),
            ];
            let rendered = line.render(format);
            for secret in [TOKEN, "hunter2", "more", "opaque"] {
                assert!(!rendered.contains(secret), "{rendered}");
            }
            if format == LogFormat::Json {
                serde_json::from_str::<Value>(&rendered).unwrap();
            }
        }
    }

    #[test]
    fn a_value_without_end_is_cut_off_and_no_half_of_a_token_stays() {
        let long = format!("{}{TOKEN}", "a ".repeat(LONGEST_VALUE / 2 - 5));
        let rendered = Line { message: long, ..line() }.render(LogFormat::Text);
        assert!(!rendered.contains("hvs."), "{rendered}");
        assert!(
            Line { message: "ä".repeat(9_999), ..line() }.render(LogFormat::Text).chars().count() < LONGEST_VALUE + 300
        );
    }

    #[test]
    fn a_field_cannot_pass_itself_off_as_the_lines_own() {
        let line = Line { fields: vec![("level", "error".into())], ..line() };
        let json: Value = serde_json::from_str(&line.render(LogFormat::Json)).unwrap();
        assert_eq!(json["level"], "info");
    }
}
