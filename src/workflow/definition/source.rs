//! The text of a file: lines, columns, and small repairs so that more than one syntax error is named.

use super::codes;
use super::diagnostic::{Diagnostic, Excerpt, Severity, printable};
use super::read::{Field, Mistake, first_token, from_ron, offset_of, parsed_fields};
use crate::workflow::duration;

/// More syntax errors than this are not looked for: each costs reading the whole file again.
const MOST_REPAIRS: usize = 20;

/// How much of a long line is shown on either side of the mistake.
const SHOWN_BEFORE: usize = 100;
const SHOWN_AFTER: usize = 80;

/// A text with the places of its lines. Repairs only insert characters, and every place is given in the text as it was.
pub(super) struct Source {
    file: String,
    repaired: String,
    /// Where in `repaired` characters were put in, ascending. All are one byte long.
    inserted: Vec<usize>,
    /// Where in `repaired` lines begin. No repair contains a line break.
    lines: Vec<usize>,
}

impl Source {
    /// A text as it is.
    pub fn new(file: &str, text: &str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file: file.to_owned(), repaired: text.to_owned(), inserted: Vec::new(), lines }
    }

    /// Repairs what can be repaired without guessing what was meant. The mistakes found on the way; `false` if the text is
    /// still no RON.
    pub fn repair(&mut self) -> (Vec<Diagnostic>, bool) {
        let mut diagnostics = Vec::new();
        let mut last = None;
        while diagnostics.len() < MOST_REPAIRS {
            let error = match parsed_fields(&self.repaired, "Workflow") {
                Ok(_) => return (diagnostics, true),
                Err(error) => error,
            };
            let mut mistake = from_ron(&self.repaired, &error, "Workflow");
            let at = offset_of(&self.repaired, error.span.end);
            let insert = match bare_duration(&self.repaired, at) {
                Some(token) => {
                    mistake = Mistake::new(codes::SYNTAX, token, format!("{token} is neither a number nor a text"))
                        .with_help(format!("a duration is written in quotes: \"{token}\""));
                    let start = self.offset(token);
                    vec![(start + token.len(), '"'), (start, '"')]
                }
                None if error.code == ron::Error::ExpectedComma && starts_a_value(&self.repaired[at..]) => {
                    mistake = mistake.with_help("put a comma after the value before it");
                    vec![(at, ',')]
                }
                None => Vec::new(),
            };
            // A repair that leads to an error at the same place was none.
            let place = self.original(self.offset(mistake.at));
            if last == Some(place) {
                return (diagnostics, false);
            }
            last = Some(place);
            diagnostics.push(self.diagnostic(Severity::Error, &mistake));
            if insert.is_empty() {
                return (diagnostics, false);
            }
            for (at, c) in insert {
                self.insert(at, c);
            }
        }
        (diagnostics, false)
    }

    /// The fields of the workflow.
    pub fn fields(&self) -> Result<Vec<Field<'_>>, Mistake<'_>> {
        parsed_fields(&self.repaired, "Workflow").map_err(|error| from_ron(&self.repaired, &error, "Workflow"))
    }

    /// The beginning of the workflow, for what is missing in it.
    pub fn start(&self) -> &str {
        let text = super::read::skip_space(&self.repaired);
        // `#![enable(…)]` may come first.
        first_token(text.find("Workflow").map_or(text, |at| &text[at..]))
    }

    /// A mistake as a person sees it.
    pub fn diagnostic(&self, severity: Severity, mistake: &Mistake<'_>) -> Diagnostic {
        let offset = self.offset(mistake.at);
        let line = self.lines.partition_point(|start| *start <= offset).saturating_sub(1);
        let start = self.lines[line];
        let end = self.lines.get(line + 1).map_or(self.repaired.len(), |next| next - 1);
        let inserted =
            self.inserted.partition_point(|at| *at < offset) - self.inserted.partition_point(|at| *at < start);
        let shown =
            self.repaired[start..offset].char_indices().rev().nth(SHOWN_BEFORE).map_or(start, |(at, _)| start + at);
        let dots = if shown > start { "... " } else { "" };
        let marked = first_line(mistake.at);
        let marked_end = (offset + marked.len()).clamp(offset, end.max(offset));
        let diagnostic = Diagnostic::new(mistake.code, severity, &self.file, mistake.message.clone());
        Diagnostic {
            line: Some(line + 1),
            column: Some(self.repaired[start..offset].chars().count() - inserted + 1),
            help: mistake.help.as_deref().map(printable),
            excerpt: Some(Box::new(Excerpt {
                before: format!("{dots}{}", printable(&self.as_written(shown, offset))),
                marked: printable(&self.head(offset, marked_end)),
                after: printable(self.head(marked_end, end.max(marked_end)).trim_end()),
            })),
            ..diagnostic
        }
    }

    /// Where a piece of the text begins. A piece of another text counts as the beginning.
    fn offset(&self, piece: &str) -> usize {
        let offset = (piece.as_ptr() as usize).wrapping_sub(self.repaired.as_ptr() as usize);
        if offset <= self.repaired.len() { offset } else { 0 }
    }

    fn original(&self, offset: usize) -> usize {
        offset - self.inserted.partition_point(|at| *at < offset)
    }

    /// A stretch of the text without what repairs put in.
    fn as_written(&self, start: usize, end: usize) -> String {
        let stretch = self.repaired.get(start..end).unwrap_or_default();
        let from = self.inserted.partition_point(|at| *at < start);
        let to = self.inserted.partition_point(|at| *at < end);
        let mut text = stretch.to_owned();
        for at in self.inserted[from..to.max(from)].iter().rev() {
            text.remove(at - start);
        }
        text
    }

    /// As much of a stretch as is shown.
    fn head(&self, start: usize, end: usize) -> String {
        match self.repaired[start..end].char_indices().nth(SHOWN_AFTER) {
            Some((cut, _)) => format!("{} ...", self.as_written(start, start + cut)),
            None => self.as_written(start, end),
        }
    }

    fn insert(&mut self, at: usize, c: char) {
        self.repaired.insert(at, c);
        for later in self.inserted.iter_mut().filter(|other| **other >= at) {
            *later += 1;
        }
        let index = self.inserted.partition_point(|other| *other < at);
        self.inserted.insert(index, at);
        for start in self.lines.iter_mut().filter(|start| **start > at) {
            *start += 1;
        }
    }
}

fn first_line(text: &str) -> &str {
    text.split(['\n', '\r']).next().unwrap_or_default()
}

/// Can this be the beginning of a field or of a value?
fn starts_a_value(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphanumeric() || "\"([_".contains(c))
}

/// The duration without quotes that the reader stumbled over at this place.
fn bare_duration(text: &str, at: usize) -> Option<&str> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == 'µ';
    let start =
        text[..at].rfind(|c| !part(c)).map_or(0, |last| last + text[last..].chars().next().map_or(1, char::len_utf8));
    let end = text[at..].find(|c| !part(c)).map_or(text.len(), |end| at + end);
    let token = &text[start..end];
    let quoted = text[..start].ends_with('"') || text[end..].starts_with('"');
    let a_duration = token.contains(|c: char| c.is_ascii_alphabetic()) && duration::parse(token).is_ok();
    (a_duration && !quoted && token.starts_with(|c: char| c.is_ascii_digit())).then_some(token)
}
