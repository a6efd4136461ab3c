//! Reads the tree: what is asked for is checked, what is wrong is noted and reading goes on, what is not asked for is unknown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::redact::redact;
use crate::workflow::code::Code;

use super::codes;
use super::mistake::{Position, Remark};
use super::names::{BadName, show};
use super::node::{Entry, Kind, Node, join};
use super::select::nearest;

/// A longer key is like none that is known.
const LONGEST_KEY: usize = 80;
/// No service has so many nodes, and no program so many options. What all services share each of them has.
const MAX_ITEMS: usize = 1_000;

/// A mistake has been noted; the value cannot be had.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noted;

/// A value, `None` where it is not given.
pub(super) type Read<T> = Result<Option<T>, Noted>;

/// What has been found so far.
pub(super) struct Notes<'f> {
    file: &'f Path,
    pub mistakes: Vec<Remark>,
    pub warnings: Vec<Remark>,
}

impl<'f> Notes<'f> {
    pub fn new(file: &'f Path) -> Self {
        Self { file, mistakes: Vec::new(), warnings: Vec::new() }
    }

    pub fn mistake(
        &mut self,
        code: Code,
        at: Option<Position>,
        path: &str,
        what: impl Into<String>,
        expected: &str,
    ) -> Noted {
        let remark = self.remark(code, at, path, what.into(), expected);
        self.mistakes.push(remark);
        Noted
    }

    pub fn warning(&mut self, code: Code, at: Option<Position>, path: &str, what: impl Into<String>, expected: &str) {
        let remark = self.remark(code, at, path, what.into(), expected);
        self.warnings.push(remark);
    }

    /// Notes that an environment variable cannot be used.
    pub fn bad_variable(&mut self, name: &str, what: String, expected: &str) -> Noted {
        let remark = self.remark(codes::BAD_ENVIRONMENT, None, name, what, expected);
        self.mistakes.push(Remark { file: None, ..remark });
        Noted
    }

    /// Everything found, in the order of the text; what has no place of its own comes last.
    pub fn sorted(self) -> (Vec<Remark>, Vec<Remark>) {
        let sort = |mut remarks: Vec<Remark>| {
            remarks.sort_by_key(|remark| (remark.at.is_none(), remark.at));
            remarks
        };
        (sort(self.mistakes), sort(self.warnings))
    }

    fn remark(&self, code: Code, at: Option<Position>, path: &str, what: String, expected: &str) -> Remark {
        let expected = (!expected.is_empty()).then(|| expected.to_owned());
        Remark {
            code,
            file: Some(self.file.to_owned()),
            at,
            path: path.to_owned(),
            what: redact(&what).into_owned(),
            expected,
        }
    }
}

/// A map of the file, with the keys that were asked for.
pub(super) struct Section<'t> {
    path: String,
    entries: &'t [Entry],
    /// By their form in lower case.
    known: BTreeMap<String, &'static str>,
}

impl<'t> Section<'t> {
    /// The whole file.
    pub fn root(node: &'t Node, notes: &mut Notes<'_>) -> Result<Self, Noted> {
        match &node.kind {
            Kind::Map(entries) => Ok(Self { path: String::new(), entries, known: BTreeMap::new() }),
            Kind::Null => Err(notes.mistake(
                codes::MISSING,
                None,
                "",
                "the file is empty",
                "a map of keys, `experiments` among them",
            )),
            kind @ (Kind::Bool(_) | Kind::Integer(_) | Kind::Float(_) | Kind::Text(_) | Kind::List(_)) => {
                let what = format!("the file holds {}", kind.describe());
                Err(notes.mistake(
                    codes::WRONG_TYPE,
                    Some(node.at),
                    "",
                    what,
                    "a map of keys, `experiments` among them",
                ))
            }
        }
    }

    /// A value by its documented name; `None`: absent, or null.
    pub fn get(&mut self, name: &'static str) -> Option<Value<'t>> {
        let key = name.to_lowercase();
        let entry = self.entries.iter().find(|entry| entry.key == key);
        self.known.insert(key, name);
        let entry = entry?;
        Value::new(join(&self.path, name), &entry.value)
    }

    /// The map under a name; an empty one if there is none, or if it is none (which is noted).
    pub fn section(&mut self, name: &'static str, notes: &mut Notes<'_>) -> Section<'t> {
        let path = join(&self.path, name);
        let found = self.get(name).map(|value| value.section(notes));
        match found {
            Some(Ok(section)) => section,
            Some(Err(Noted)) | None => Section { path, entries: &[], known: BTreeMap::new() },
        }
    }

    /// Every key with its value, for maps whose keys are names.
    pub fn values(&self) -> impl Iterator<Item = (&'t Entry, Option<Value<'t>>)> + use<'t, '_> {
        let value = |entry: &'t Entry| Value::new(join(&self.path, &entry.key), &entry.value);
        self.entries.iter().map(move |entry| (entry, value(entry)))
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path of a key of this map.
    pub fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// Warns of every key that was not asked for. `obsolete`: keys that once had a meaning, and what became of it.
    pub fn finish(self, obsolete: &[(&str, &str)], notes: &mut Notes<'_>) {
        for entry in self.entries {
            if self.known.contains_key(&entry.key) {
                continue;
            }
            let path = join(&self.path, &entry.written);
            if let Some((_, fate)) = obsolete.iter().find(|(name, _)| name.to_lowercase() == entry.key) {
                notes.warning(codes::OBSOLETE_KEY, Some(entry.at), &path, format!("has no effect: {fate}"), "");
                continue;
            }
            // Nobody mistypes a name so that it becomes a page.
            let alike = (entry.key.len() <= LONGEST_KEY).then(|| nearest(&entry.key, self.known.values().copied()));
            let hint = match alike.flatten() {
                Some(name) => format!("unknown key, ignored (did you mean {name}?)"),
                None => "unknown key, ignored".to_owned(),
            };
            notes.warning(codes::UNKNOWN_KEY, Some(entry.at), &path, hint, "");
        }
    }
}

/// A value that is there, with its path.
#[derive(Clone)]
pub(super) struct Value<'t> {
    /// As messages name it.
    pub path: String,
    /// Where it begins.
    pub at: Position,
    kind: &'t Kind,
}

impl<'t> Value<'t> {
    fn new(path: String, node: &'t Node) -> Option<Self> {
        match &node.kind {
            Kind::Null => None,
            kind @ (Kind::Bool(_)
            | Kind::Integer(_)
            | Kind::Float(_)
            | Kind::Text(_)
            | Kind::List(_)
            | Kind::Map(_)) => Some(Self { path, at: node.at, kind }),
        }
    }

    /// Notes a mistake in this value.
    pub fn wrong(&self, code: Code, what: impl Into<String>, expected: &str, notes: &mut Notes<'_>) -> Noted {
        notes.mistake(code, Some(self.at), &self.path, what, expected)
    }

    /// Notes that a name in it cannot be one.
    pub fn bad_name(&self, bad: &BadName, notes: &mut Notes<'_>) -> Noted {
        let what = format!("{} is not {}: {}", bad.shown, bad.kind, bad.why);
        notes.mistake(codes::BAD_NAME, Some(self.at), &self.path, what, bad.expected)
    }

    fn wrong_type(&self, expected: &str, notes: &mut Notes<'_>) -> Noted {
        let what = match self.kind {
            Kind::Text(text) => format!("{} is text", show(text)),
            Kind::Integer(number) => format!("{number} is a number"),
            Kind::Float(number) => format!("{number} is a number"),
            Kind::Bool(value) => format!("{value} is a boolean"),
            kind @ (Kind::Null | Kind::List(_) | Kind::Map(_)) => format!("is {}", kind.describe()),
        };
        self.wrong(codes::WRONG_TYPE, what, expected, notes)
    }

    /// A map.
    pub fn section(&self, notes: &mut Notes<'_>) -> Result<Section<'t>, Noted> {
        match self.kind {
            Kind::Map(entries) => Ok(Section { path: self.path.clone(), entries, known: BTreeMap::new() }),
            Kind::Null | Kind::Bool(_) | Kind::Integer(_) | Kind::Float(_) | Kind::Text(_) | Kind::List(_) => {
                Err(self.wrong_type("a map of keys", notes))
            }
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&'t str> {
        if let Kind::Text(text) = self.kind { Some(text) } else { None }
    }

    /// A text, which may be empty.
    pub fn text(&self, expected: &str, notes: &mut Notes<'_>) -> Result<&'t str, Noted> {
        match self.kind {
            Kind::Text(text) => Ok(text),
            Kind::Null | Kind::Bool(_) | Kind::Integer(_) | Kind::Float(_) | Kind::List(_) | Kind::Map(_) => {
                Err(self.wrong_type(expected, notes))
            }
        }
    }

    /// A text that may hold a secret: no message shows it.
    pub fn secret(&self, expected: &str, notes: &mut Notes<'_>) -> Result<&'t str, Noted> {
        match self.kind {
            Kind::Text(text) => Ok(text),
            kind @ (Kind::Null | Kind::Bool(_) | Kind::Integer(_) | Kind::Float(_) | Kind::List(_) | Kind::Map(_)) => {
                Err(self.wrong(codes::WRONG_TYPE, format!("is {}", kind.describe()), expected, notes))
            }
        }
    }

    /// A text that says something.
    pub fn full_text(&self, expected: &str, notes: &mut Notes<'_>) -> Result<&'t str, Noted> {
        let text = self.text(expected, notes)?;
        if text.trim().is_empty() {
            return Err(self.wrong(codes::WRONG_TYPE, "is empty", &format!("{expected}, or no such key"), notes));
        }
        if let Some(bad) = text.chars().find(|c| c.is_control()) {
            let what = format!("{} holds a control character ({})", show(text), bad.escape_default());
            return Err(self.wrong(codes::WRONG_TYPE, what, expected, notes));
        }
        Ok(text)
    }

    /// A list of texts; one text is split at white space. The items have paths of their own.
    pub fn texts(&self, expected: &str, notes: &mut Notes<'_>) -> Result<Vec<(Value<'t>, &'t str)>, Noted> {
        match self.kind {
            Kind::Text(text) if text.split_whitespace().nth(MAX_ITEMS).is_some() => Err(self.too_long(expected, notes)),
            Kind::Text(text) => Ok(text.split_whitespace().map(|word| (self.clone(), word)).collect()),
            Kind::List(items) if items.len() > MAX_ITEMS => Err(self.too_long(expected, notes)),
            Kind::List(items) => {
                let mut texts = Vec::with_capacity(items.len());
                let mut failed = None;
                for (index, item) in items.iter().enumerate() {
                    let item = Value { path: format!("{}[{index}]", self.path), at: item.at, kind: &item.kind };
                    match item.text("text", notes) {
                        Ok(text) => texts.push((item, text)),
                        Err(noted) => failed = Some(noted),
                    }
                }
                failed.map_or(Ok(texts), Err)
            }
            Kind::Null | Kind::Bool(_) | Kind::Integer(_) | Kind::Float(_) | Kind::Map(_) => {
                Err(self.wrong_type(expected, notes))
            }
        }
    }

    fn too_long(&self, expected: &str, notes: &mut Notes<'_>) -> Noted {
        self.wrong(codes::OUT_OF_RANGE, format!("has more than {MAX_ITEMS} items"), expected, notes)
    }

    /// `true` or `false`; as text or as 0 and 1 too, as the Go service reads them.
    pub fn boolean(&self, notes: &mut Notes<'_>) -> Result<bool, Noted> {
        match self.kind {
            Kind::Bool(value) => Ok(*value),
            Kind::Integer(0) => Ok(false),
            Kind::Integer(1) => Ok(true),
            Kind::Text(text) => match text.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
                _ => Err(self.wrong_type("true or false", notes)),
            },
            Kind::Null | Kind::Integer(_) | Kind::Float(_) | Kind::List(_) | Kind::Map(_) => {
                Err(self.wrong_type("true or false", notes))
            }
        }
    }

    /// A whole number in a range; as text too.
    pub fn integer(&self, least: u32, most: u32, notes: &mut Notes<'_>) -> Result<u32, Noted> {
        let expected = if most == u32::MAX {
            format!("a whole number, at least {least}")
        } else {
            format!("a whole number from {least} to {most}")
        };
        let plain = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if digits && (text == "0" || !text.starts_with('0')) { text.parse::<i128>().ok() } else { None }
        };
        let number = match self.kind {
            Kind::Integer(number) => Some(*number),
            // Generators of JSON write 25.0 for 25.
            Kind::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => format!("{number:.0}").parse().ok(),
            Kind::Text(text) => plain(text),
            Kind::Float(_) | Kind::Null | Kind::Bool(_) | Kind::List(_) | Kind::Map(_) => None,
        };
        let Some(number) = number else { return Err(self.wrong_type(&expected, notes)) };
        let fitting = u32::try_from(number).ok().filter(|number| (least..=most).contains(number));
        fitting.ok_or_else(|| self.wrong(codes::OUT_OF_RANGE, format!("{number} is out of range"), &expected, notes))
    }

    /// A text, or the number 0 (a duration without a unit is none, but for this one).
    pub fn text_or_zero(&self, expected: &str, notes: &mut Notes<'_>) -> Result<&'t str, Noted> {
        match self.kind {
            Kind::Integer(0) => Ok("0"),
            Kind::Null
            | Kind::Bool(_)
            | Kind::Integer(_)
            | Kind::Float(_)
            | Kind::Text(_)
            | Kind::List(_)
            | Kind::Map(_) => self.text(expected, notes),
        }
    }

    /// A path, as written.
    pub fn file_path(&self, notes: &mut Notes<'_>) -> Result<PathBuf, Noted> {
        let expected = "a path";
        let text = self.full_text(expected, notes)?;
        Ok(PathBuf::from(text))
    }
}
