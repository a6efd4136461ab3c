//! One mistake, and how a person sees it.

use std::fmt::Write as _;

use serde::Serialize;

use crate::workflow::code::Code;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The workflow cannot be used.
    Error,
    /// It can, but somebody should know.
    Warning,
}

impl Severity {
    /// The public spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One mistake in a workflow file. Its text holds no control characters, whatever the file held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Which kind.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// What is wrong and what was expected, in one line.
    pub message: String,
    /// The file as it was named.
    pub file: String,
    /// From 1; `None` where the mistake has no place.
    pub line: Option<usize>,
    /// In characters, from 1.
    pub column: Option<usize>,
    /// What to do.
    pub help: Option<String>,
    /// The line it is about.
    #[serde(skip)]
    pub(super) excerpt: Option<Box<Excerpt>>,
}

/// A part of a line, with the part to underline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excerpt {
    /// Up to the underlined part.
    pub before: String,
    /// The underlined part.
    pub marked: String,
    /// After it.
    pub after: String,
}

impl Diagnostic {
    /// A mistake without a place.
    pub fn new(code: Code, severity: Severity, file: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            severity,
            message: printable(&message.into()),
            file: printable(file),
            line: None,
            column: None,
            help: None,
            excerpt: None,
        }
    }

    /// The same with what to do.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(printable(&help.into()));
        self
    }

    /// Does it make the workflow unusable?
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Text of a file may hold what moves a terminal's cursor or turns the direction of writing: none of it gets through.
/// One character stays one character, so that places stay right.
pub fn printable(text: &str) -> String {
    let harmless = |c: char| match c {
        '\t' | '\n' => ' ',
        '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
            char::REPLACEMENT_CHARACTER
        }
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(harmless).collect()
}

/// The mistakes as people read them, one blank line after each. `colour`: with terminal colours.
pub fn render(diagnostics: &[Diagnostic], colour: bool) -> String {
    let paint = |style: &str, text: &str| match colour {
        true => format!("\u{1b}[{style}m{text}\u{1b}[0m"),
        false => text.to_owned(),
    };
    let mut out = String::new();
    for diagnostic in diagnostics {
        let style = match diagnostic.severity {
            Severity::Error => "1;31",
            Severity::Warning => "1;33",
        };
        let head = format!("{}[{}]", diagnostic.severity.as_str(), diagnostic.code);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}{}", paint(style, &head), paint("1", &format!(": {}", diagnostic.message)));
        let width = diagnostic.line.map_or(1, |line| line.to_string().len());
        let pad = " ".repeat(width);
        let arrow = paint("1;34", "-->");
        let bar = paint("1;34", "|");
        match (diagnostic.line, diagnostic.column) {
            (Some(line), Some(column)) => {
                let _ = writeln!(out, "{pad}{arrow} {}:{line}:{column}", diagnostic.file);
            }
            (Some(_) | None, None) | (None, Some(_)) => {
                let _ = writeln!(out, "{pad}{arrow} {}", diagnostic.file);
            }
        }
        if let (Some(line), Some(excerpt)) = (diagnostic.line, &diagnostic.excerpt) {
            let Excerpt { before, marked, after } = &**excerpt;
            let carets = paint(style, &"^".repeat(marked.chars().count().max(1)));
            let lead = " ".repeat(before.chars().count());
            let _ = writeln!(out, "{pad} {bar}");
            let _ = writeln!(out, "{} {bar} {before}{marked}{after}", paint("1;34", &line.to_string()));
            let _ = writeln!(out, "{pad} {bar} {lead}{carets}");
        }
        if let Some(help) = &diagnostic.help {
            let _ = writeln!(out, "{pad} {} help: {help}", paint("1;34", "="));
        }
        out.push('\n');
    }
    out
}
