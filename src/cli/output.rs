//! How text reaches people and programs: format, colour, width, tables, and the last guard against control characters.
//!
//! stdout carries data, stderr everything else. Whoever renders text that came from outside (a child's output, a
//! node's name, a message) passes it through [`clean`] or hands it to [`table`], which does.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Attribute, Cell as TableCell, Color, ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::time::Clock;
use crate::stderr;

/// The version of the JSON that `mt` prints. It rises when a field changes its meaning or goes away, not when one is added.
pub const SCHEMA_VERSION: u32 = 1;

/// `--output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Ndjson,
}

/// Who reads, when and where.
#[derive(Clone, Debug)]
pub struct Viewer {
    /// When, and in which zone.
    pub clock: Clock,
    /// On what.
    pub style: Style,
    /// On which host.
    pub here: Here,
}

/// The host on which `mt` runs now: tells a process that died from a host that rebooted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// Its name.
    pub host: String,
    /// The kernel's boot id.
    pub boot_id: String,
}

/// What the reader's device can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// May escape sequences colour the text?
    pub colour: bool,
    /// Columns of a line; [`Style::UNLIMITED`] for a file or a pipe.
    pub width: usize,
}

/// What [`Style::decide`] looks at.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Is the stream a terminal?
    pub terminal: bool,
    /// `NO_COLOR`, if set.
    pub no_color: Option<String>,
    /// `TERM`, if set.
    pub term: Option<String>,
    /// `COLUMNS`, if set.
    pub columns: Option<String>,
    /// The terminal's own answer.
    pub measured: Option<u16>,
}

impl Style {
    /// No line is too long.
    pub const UNLIMITED: usize = usize::MAX;

    /// What a file or a pipe gets.
    pub const PLAIN: Self = Self { colour: false, width: Self::UNLIMITED };

    /// Narrower than this nothing can be laid out; the terminal breaks the lines then.
    const NARROWEST: usize = 40;

    /// For what goes to stdout.
    pub fn stdout() -> Self {
        Self::decide(&Surroundings::of(io::stdout().is_terminal(), Table::new().width()))
    }

    /// For what goes to stderr.
    pub fn stderr() -> Self {
        Self::decide(&Surroundings::of(io::stderr().is_terminal(), Table::new().use_stderr().width()))
    }

    /// Colour on a terminal that has it, unless `NO_COLOR` says otherwise; the width from `COLUMNS`, else the terminal's.
    pub fn decide(around: &Surroundings) -> Self {
        let refused = around.no_color.as_deref().is_some_and(|value| !value.is_empty());
        let dumb = around.term.as_deref() == Some("dumb");
        let asked = around.columns.as_deref().and_then(|text| text.trim().parse().ok()).filter(|columns| *columns > 0);
        let measured = around.measured.filter(|columns| *columns > 0).map(usize::from);
        let width = match (asked, around.terminal) {
            (Some(columns), _) => columns,
            (None, true) => measured.unwrap_or(80),
            (None, false) => Self::UNLIMITED,
        };
        Self { colour: around.terminal && !refused && !dumb, width: width.max(Self::NARROWEST) }
    }

    /// The text in that colour, if there is any colour.
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        match (self.colour, paint.escape()) {
            (true, Some(escape)) if !text.is_empty() => format!("\x1b[{escape}m{text}\x1b[0m"),
            (true | false, _) => text.to_owned(),
        }
    }

    /// Columns left after an indent; never less than 20.
    pub fn after(&self, indent: usize) -> usize {
        self.width.saturating_sub(indent).max(20)
    }
}

impl Surroundings {
    fn of(terminal: bool, measured: Option<u16>) -> Self {
        let var = |name| std::env::var(name).ok();
        Self { terminal, no_color: var("NO_COLOR"), term: var("TERM"), columns: var("COLUMNS"), measured }
    }
}

/// What a piece of text means, which decides its colour. The words say it too: colour is never the only sign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paint {
    /// Nothing in particular.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Not as it should be.
    Warn,
    /// It failed.
    Bad,
    /// It goes on.
    Busy,
    /// Of little interest.
    Faint,
    /// A heading.
    Strong,
}

impl Paint {
    fn escape(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Warn => Some("33"),
            Self::Bad => Some("1;31"),
            Self::Busy => Some("36"),
            Self::Faint => Some("2"),
            Self::Strong => Some("1"),
        }
    }

    fn dress(self, cell: TableCell) -> TableCell {
        match self {
            Self::Plain => cell,
            Self::Good => cell.fg(Color::DarkGreen),
            Self::Warn => cell.fg(Color::DarkYellow),
            Self::Bad => cell.fg(Color::DarkRed).add_attribute(Attribute::Bold),
            Self::Busy => cell.fg(Color::DarkCyan),
            Self::Faint => cell.add_attribute(Attribute::Dim),
            Self::Strong => cell.add_attribute(Attribute::Bold),
        }
    }
}

/// One field of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// Text with a meaning. Whatever it holds, it becomes one harmless line.
    pub fn new(text: impl AsRef<str>, paint: Paint) -> Self {
        Self { text: clean(text.as_ref()).into_owned(), paint }
    }

    /// Text.
    pub fn plain(text: impl AsRef<str>) -> Self {
        Self::new(text, Paint::Plain)
    }
}

/// How many columns of the terminal each column of a table takes, gaps not counted.
fn column_widths(header: &[&str], rows: &[Vec<Cell>]) -> Vec<usize> {
    let mut widths: Vec<usize> = header.iter().map(|text| text.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.width());
        }
    }
    widths
}

/// Does the table fit without breaking a column into lines?
pub fn table_fits(header: &[&str], rows: &[Vec<Cell>], style: &Style) -> bool {
    let widths = column_widths(header, rows);
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1) <= style.width
}

/// A table without borders, two spaces between columns, each line ended. Where the terminal is too narrow the last column
/// is broken into lines; only where that is not enough are the others, too.
pub fn table(header: &[&str], rows: Vec<Vec<Cell>>, style: &Style) -> String {
    let widths = column_widths(header, &rows);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header.iter().map(|text| TableCell::new(clean(text))).collect::<Vec<_>>());
    for row in rows {
        table.add_row(row.into_iter().map(|cell| cell.paint.dress(TableCell::new(cell.text))).collect::<Vec<_>>());
    }
    let last = widths.len().saturating_sub(1);
    let fixed: usize = widths.iter().take(last).map(|width| width + GAP).sum();
    let last_width = widths.last().copied().unwrap_or(0);
    let wanted = fixed + last_width;
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { GAP as u16 }));
        if index != last && fixed + last_width.min(LAST_COLUMN) <= style.width {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    if wanted > style.width {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(u16::try_from(style.width).unwrap_or(u16::MAX));
    }
    table.style_text_only();
    if style.colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Spaces between columns.
const GAP: usize = 2;

/// The least that is left for a last column which is broken into lines.
const LAST_COLUMN: usize = 16;

/// One line without control characters: line breaks and tabs become spaces, any other control character, and those that
/// turn the direction of writing, become `�`.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let harmless = |c| match c {
        '\n' | '\t' => ' ',
        c if is_hostile(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    Cow::Owned(text.trim_end_matches(['\r', '\n']).replace("\r\n", "\n").chars().map(harmless).collect())
}

/// Could it do something to a terminal, or make the text read other than it is?
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// At most so many columns of one cleaned line, the last one `…` if something was left out.
pub fn fit(text: &str, width: usize) -> String {
    let text = clean(text);
    if text.width() <= width {
        return text.into_owned();
    }
    let mut kept = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    kept
}

/// One cleaned text broken at spaces into lines of at most so many columns; at most `lines` of them, the last one cut.
pub fn wrap(text: &str, width: usize, lines: usize) -> Vec<String> {
    let text = clean(text);
    let mut rest = text.trim();
    let mut wrapped = Vec::new();
    while wrapped.len() + 1 < lines && rest.width() > width {
        let Some(at) = break_at(rest, width) else { break };
        wrapped.push(rest[..at].trim_end().to_owned());
        rest = rest[at..].trim_start();
    }
    // A pipe has no width, but nobody wants a line of a megabyte there either.
    wrapped.push(fit(rest, width.min(LONGEST_LINE)));
    wrapped
}

/// The longest line made of one outside text.
const LONGEST_LINE: usize = 1_000;

/// Where to break: after the last space that fits, else where the width ends.
fn break_at(text: &str, width: usize) -> Option<usize> {
    let mut used = 0;
    let mut space = None;
    for (at, c) in text.char_indices() {
        if c == ' ' && at > 0 {
            space = Some(at);
        }
        used += c.width().unwrap_or(0);
        if used > width {
            return space.or((at > 0).then_some(at));
        }
    }
    None
}

/// The value as one indented JSON document, its line ended.
pub fn json<T: Serialize>(value: &T) -> String {
    guard(&serde_json::to_string_pretty(value).expect(NEVER_FAILS))
}

/// The value as one line of JSON.
pub fn json_line<T: Serialize>(value: &T) -> String {
    guard(&serde_json::to_string(value).expect(NEVER_FAILS))
}

const NEVER_FAILS: &str = "what we print has text for keys and cannot fail";

/// The JSON with its line ended, and with what a terminal would obey escaped: serde_json does that only below U+0020. Such
/// characters stand inside strings only, so a program reads the same.
fn guard(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        match c {
            c if c >= '\u{7f}' && is_hostile(c) => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('\n');
    text
}

/// Writes to stdout. A reader that went away (`mt runs list | head -1`) is not an error: the exit code stays what it was.
///
/// # Errors
/// Whatever else keeps stdout from taking the text, such as a full disk.
pub fn write_out(text: &str) -> io::Result<()> {
    write_to(&mut io::stdout().lock(), text)
}

/// Writes to stderr (see [`stderr`]); nobody can be told if that fails.
pub fn write_err(text: &str) {
    stderr::say(text);
}

fn write_to(stream: &mut impl Write, text: &str) -> io::Result<()> {
    match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
