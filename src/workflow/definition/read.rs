//! Pieces of RON text into values. Every piece and every mistake is a slice of the text it came from, so that its place
//! can be found by where it lies, and nobody adds up offsets. `ron` does the reading; as it stops at the first
//! mistake, it is given one field, and one element of a list, at a time.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use ron::value::RawValue;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::codes;
use crate::workflow::code::Code;
use crate::workflow::duration;

/// Brackets nested deeper than about half of this are refused: `ron` counts a level for a bracket and one for what is in it.
const DEEPEST: usize = 64;

/// A mistake and the piece of text it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake<'a> {
    /// Which kind.
    pub code: Code,
    /// The piece.
    pub at: &'a str,
    /// What is wrong and what was expected.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl<'a> Mistake<'a> {
    /// A mistake without advice.
    pub fn new(code: Code, at: &'a str, message: impl Into<String>) -> Self {
        Self { code, at, message: message.into(), help: None }
    }

    /// The same with what to do.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// One `key: value` of a struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The key.
    pub key: &'a str,
    /// The value, beginning with its first character.
    pub value: &'a str,
}

/// The text after the white space and the comments it begins with.
pub fn skip_space(text: &str) -> &str {
    let mut rest = text.trim_start();
    loop {
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.split_once('\n').map_or(&comment[comment.len()..], |(_, rest)| rest);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = after_block_comment(comment);
        } else {
            return rest;
        }
        rest = rest.trim_start();
    }
}

/// Block comments nest.
fn after_block_comment(mut rest: &str) -> &str {
    let mut level = 1_usize;
    while level > 0 {
        let Some(at) = rest.find("*/") else { return &rest[rest.len()..] };
        match rest[..at].find("/*") {
            Some(opens) => {
                level += 1;
                rest = &rest[opens + 2..];
            }
            None => {
                level -= 1;
                rest = &rest[at + 2..];
            }
        }
    }
    rest
}

/// The word a text begins with, and what follows it.
fn split_word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    text.split_at(if text.starts_with(|c: char| c.is_ascii_digit()) { 0 } else { end })
}

/// What a mistake about this value underlines: its first word, text or number.
pub fn first_token(text: &str) -> &str {
    if let Some(rest) = text.strip_prefix('"') {
        let mut escaped = false;
        for (at, c) in rest.char_indices() {
            match c {
                '\\' if !escaped => escaped = true,
                '"' if !escaped => return &text[..at + 2],
                '\n' => return &text[..at + 1],
                _ => escaped = false,
            }
        }
        return text;
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || "_.-+".contains(c))).unwrap_or(text.len());
    if end > 0 { &text[..end] } else { &text[..text.chars().next().map_or(0, char::len_utf8)] }
}

fn found(value: &str) -> &'static str {
    match value.chars().next() {
        None => "nothing",
        Some('"') => "a text",
        Some('\'') => "a character",
        Some('[') => "a list",
        Some('(') => "a group in ( )",
        Some('{') => "a map",
        Some('0'..='9' | '+' | '-' | '.') => "a number",
        Some(_) => "a word",
    }
}

fn wrong_form<'a>(value: &'a str, expected: &str) -> Mistake<'a> {
    let token = first_token(value);
    let what = match found(value) {
        what @ ("a text" | "a number" | "a word") => format!("{what}, {}", shortened(token)),
        what => what.to_owned(),
    };
    Mistake::new(codes::WRONG_FORM, token, format!("expected {expected}, found {what}"))
}

/// As much of a text as a message can hold.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The fields of `name( … )` or of a bare `( … )`, in order. Repeated keys are all there.
pub fn fields<'a>(text: &'a str, name: &'static str) -> Result<Vec<Field<'a>>, Mistake<'a>> {
    let text = skip_space(text);
    parsed_fields(text, name).map_err(|error| from_ron(text, &error, name))
}

pub(super) fn parsed_fields<'a>(text: &'a str, name: &'static str) -> Result<Vec<Field<'a>>, ron::error::SpannedError> {
    ron::Options::default().with_recursion_limit(DEEPEST).from_str_seed(text, FieldsOf(name))
}

/// The fields that exist, each once; the others become mistakes. A misspelt one is read as what was probably meant, so
/// that a mistake in its value is named too, and nothing is called missing that is there.
pub fn known_fields<'s>(
    fields: Vec<Field<'s>>,
    of: &str,
    names: &[&'static str],
    mistakes: &mut Vec<Mistake<'s>>,
) -> Vec<Field<'s>> {
    let mut seen = HashSet::new();
    let (mut known, mut misspelt) = (Vec::new(), Vec::new());
    for field in fields {
        if !names.contains(&field.key) {
            let message = format!("{of} has no field `{}`", shortened(field.key));
            let help = match nearest(field.key, names.iter().copied()) {
                Some(name) => {
                    misspelt.push(Field { key: name, ..field });
                    format!("did you mean `{name}`?")
                }
                None => format!("the fields are {}", names.join(", ")),
            };
            mistakes.push(Mistake::new(codes::UNKNOWN_FIELD, field.key, message).with_help(help));
        } else if !seen.insert(field.key) {
            let message = format!("`{}` is given twice", field.key);
            mistakes.push(Mistake::new(codes::DUPLICATE_FIELD, field.key, message).with_help("remove one of the two"));
        } else {
            known.push(field);
        }
    }
    known.extend(misspelt.into_iter().filter(|field| seen.insert(field.key)));
    known
}

/// The elements of `[ … ]`.
pub fn list<'a>(text: &'a str) -> Result<Vec<&'a str>, Mistake<'a>> {
    match ron::from_str::<Vec<&RawValue>>(text) {
        Ok(items) if text.starts_with('[') => Ok(items.into_iter().map(|raw| skip_space(raw.get_ron())).collect()),
        Ok(_) | Err(_) => Err(wrong_form(text, "a list in [ ]")),
    }
}

/// The elements of `( … )` without names.
pub fn group<'a>(text: &'a str, expected: &str) -> Result<Vec<&'a str>, Mistake<'a>> {
    match ron::Options::default().from_str_seed(text, Group) {
        Ok(items) if text.starts_with('(') => Ok(items),
        Ok(_) | Err(_) => Err(wrong_form(text, expected)),
    }
}

/// A word and, if it has some, its arguments with their parentheses: `Skip`, `Wait("2m")`.
pub fn variant<'a>(value: &'a str, expected: &str) -> Result<(&'a str, Option<&'a str>), Mistake<'a>> {
    let (word, rest) = split_word(value);
    let rest = skip_space(rest);
    match word.is_empty() {
        false if rest.is_empty() => Ok((word, None)),
        false if rest.starts_with('(') => Ok((word, Some(rest))),
        false | true => Err(wrong_form(value, expected)),
    }
}

/// One of a few words.
pub fn word<'a, T: Copy>(value: &'a str, choices: &[(&'static str, T)]) -> Result<T, Mistake<'a>> {
    let (word, arguments) = variant(value, &one_of(choices))?;
    match (choices.iter().find(|(name, _)| *name == word), arguments) {
        (Some((_, choice)), None) => Ok(*choice),
        (Some(_), Some(arguments)) => {
            Err(Mistake::new(codes::WRONG_FORM, first_token(arguments), format!("{word} takes no arguments")))
        }
        (None, _) => Err(unknown_word(word, choices)),
    }
}

/// The mistake of a word that is none of the choices.
pub fn unknown_word<'a, T>(word: &'a str, choices: &[(&'static str, T)]) -> Mistake<'a> {
    let mistake = Mistake::new(
        codes::UNKNOWN_VALUE,
        word,
        format!("unknown value {}: expected {}", shortened(word), one_of(choices)),
    );
    match nearest(word, choices.iter().map(|(name, _)| *name)) {
        Some(name) => mistake.with_help(format!("did you mean {name}?")),
        None => mistake,
    }
}

fn one_of<T>(choices: &[(&'static str, T)]) -> String {
    enumerate(choices.iter().map(|(name, _)| *name))
}

/// `a, b or c`.
pub fn enumerate<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let names: Vec<_> = names.into_iter().collect();
    match names.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

/// The name that was probably meant.
pub fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // Nobody mistypes a name of a thousand letters, and comparing is quadratic.
    if word.len() > 100 {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace(['_', '-'], "");
    names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&plain(word), &plain(name)), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// A text in quotes.
pub fn text(value: &str) -> Result<String, Mistake<'_>> {
    ron::from_str(value).map_err(|_| match found(value) {
        "a word" => {
            let mistake = wrong_form(value, "a text in quotes");
            let help = format!("write \"{}\"", shortened(first_token(value)));
            mistake.with_help(help)
        }
        _ => wrong_form(value, "a text in quotes"),
    })
}

/// A whole number within limits.
pub fn number(value: &str, least: u32, most: u32) -> Result<u32, Mistake<'_>> {
    let expected = format!("a whole number from {least} to {most}");
    match ron::from_str::<i128>(value) {
        Ok(number) => match u32::try_from(number).ok().filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(number),
            None => {
                let token = first_token(value);
                let message = format!("expected {expected}, found {}", shortened(token));
                Err(Mistake::new(codes::BAD_NUMBER, token, message))
            }
        },
        Err(_) => Err(wrong_form(value, &expected)),
    }
}

/// A duration in quotes.
pub fn duration(value: &str) -> Result<Duration, Mistake<'_>> {
    let written: String =
        ron::from_str(value).map_err(|_| wrong_form(value, "a duration in quotes, such as \"20s\" or \"1m30s\""))?;
    duration::parse(&written).map_err(|why| {
        let message = format!("bad duration \"{}\": {why}", shortened(&written));
        Mistake::new(codes::BAD_DURATION, first_token(value), message)
            .with_help("write numbers with units, without spaces: \"20s\", \"1m30s\", \"2h\", \"500ms\"")
    })
}

/// A duration longer than nothing.
pub fn some_time(value: &str) -> Result<Duration, Mistake<'_>> {
    match duration(value)? {
        Duration::ZERO => Err(Mistake::new(
            codes::BAD_DURATION,
            first_token(value),
            "this duration must be longer than nothing".to_owned(),
        )),
        duration => Ok(duration),
    }
}

/// What `ron` found wrong with `text`, at its place, in our words.
pub(super) fn from_ron<'a>(text: &'a str, error: &ron::error::SpannedError, name: &str) -> Mistake<'a> {
    let at = &text[offset_of(text, error.span.end)..];
    let here = match first_token(at) {
        "" => "the end of the file".to_owned(),
        token => shortened(token),
    };
    let message = match &error.code {
        ron::Error::ExceededRecursionLimit => {
            return Mistake::new(codes::TOO_LARGE, first_token(at), "the brackets are nested too deeply".to_owned());
        }
        ron::Error::ExpectedDifferentStructName { found, .. } => {
            // The reader stands behind the name.
            let start = offset_of(text, error.span.end).saturating_sub(found.len());
            let at = text.get(start..).map_or(at, |name| split_word(name).0);
            let message = format!("expected {name}(…), found {}", shortened(found));
            return Mistake::new(codes::WRONG_FORM, at, message);
        }
        ron::Error::ExpectedNamedStructLike(_) | ron::Error::ExpectedStructLike => {
            return wrong_form(skip_space(text), &format!("{name}( … )"));
        }
        ron::Error::ExpectedComma => format!("expected a comma before {here}"),
        ron::Error::ExpectedMapColon => format!("expected a colon between a field and its value, found {here}"),
        ron::Error::ExpectedIdentifier => format!("expected the name of a field, found {here}"),
        ron::Error::Eof => "the file ends too early: a bracket or a quote is still open".to_owned(),
        ron::Error::ExpectedStringEnd => "the text that begins before this place has no closing quote".to_owned(),
        ron::Error::TrailingCharacters => {
            format!("expected nothing after the workflow's closing bracket, found {here}")
        }
        // `ron::Error` is not ours and may grow: its own words are good enough for the rest.
        other => {
            let words = other.to_string();
            let mut letters = words.chars();
            let first = letters.next().map(|c| c.to_lowercase().to_string()).unwrap_or_default();
            format!("{first}{}, at {here}", letters.as_str())
        }
    };
    Mistake::new(codes::SYNTAX, first_token(at), message)
}

/// `ron` gives places as line and column within the text it read.
pub(super) fn offset_of(text: &str, position: ron::error::Position) -> usize {
    let line = match position.line.checked_sub(2) {
        None => 0,
        Some(breaks) => text.match_indices('\n').nth(breaks).map_or(text.len(), |(at, _)| at + 1),
    };
    text[line..].char_indices().nth(position.col.saturating_sub(1)).map_or(text.len(), |(at, _)| line + at)
}

struct FieldsOf(&'static str);

impl<'de> DeserializeSeed<'de> for FieldsOf {
    type Value = Vec<Field<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_struct(self.0, &[], self)
    }
}

impl<'de> Visitor<'de> for FieldsOf {
    type Value = Vec<Field<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}( … )", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            let value: &'de RawValue = map.next_value()?;
            fields.push(Field { key, value: skip_space(value.get_ron()) });
        }
        Ok(fields)
    }
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = &'de str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = &'de str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(key)
    }
}

struct Group;

impl<'de> DeserializeSeed<'de> for Group {
    type Value = Vec<&'de str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_tuple(0, self)
    }
}

impl<'de> Visitor<'de> for Group {
    type Value = Vec<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a group in ( )")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<&'de RawValue>()? {
            items.push(skip_space(item.get_ron()));
        }
        Ok(items)
    }
}
