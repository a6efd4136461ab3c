//! The texts: shipped templates, each replaceable by a file of the site.
//!
//! A site's file that cannot be used costs nobody a message: the shipped text goes out, and says so.

use std::path::{Path, PathBuf};

use minijinja::{Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value};

use super::codes::TEMPLATE;
use super::sample;
use super::words::Words;
use crate::config::{Position, Remark, TemplateFiles};
use crate::workflow::input_file;

/// A template that loops longer than this is broken: the shipped ones need some thousands for 200 services.
const FUEL: u64 = 2_000_000;
/// A template is some lines.
const MOST_BYTES: u64 = 256 * 1024;
/// What the first line of a mail's template begins with.
const SUBJECT: &str = "Subject:";

/// Which text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// The mail to the admins.
    AdminMail,
    /// The mail to a service's stakeholders.
    StakeholderMail,
    /// The message to Slack.
    Slack,
}

impl Text {
    /// Every one.
    pub const ALL: &'static [Self] = &[Self::AdminMail, Self::StakeholderMail, Self::Slack];

    /// Its key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Self::AdminMail => "templates.adminMail",
            Self::StakeholderMail => "templates.stakeholderMail",
            Self::Slack => "templates.slack",
        }
    }

    /// As shipped.
    pub fn shipped(self) -> &'static str {
        match self {
            Self::AdminMail => include_str!("templates/admin-mail.txt"),
            Self::StakeholderMail => include_str!("templates/stakeholder-mail.txt"),
            Self::Slack => include_str!("templates/slack.txt"),
        }
    }

    fn file(self, files: &TemplateFiles) -> Option<&Path> {
        match self {
            Self::AdminMail => files.admin_mail.as_deref(),
            Self::StakeholderMail => files.stakeholder_mail.as_deref(),
            Self::Slack => files.slack.as_deref(),
        }
    }

    fn is_mail(self) -> bool {
        match self {
            Self::AdminMail | Self::StakeholderMail => true,
            Self::Slack => false,
        }
    }
}

/// A text, filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// One line; empty for Slack.
    pub subject: String,
    /// Plain text.
    pub body: String,
}

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {what}", file.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct TemplateProblem {
    /// Which file.
    pub file: PathBuf,
    /// The line, where that is known.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
}

/// A site's texts.
#[derive(Clone, Debug, Default)]
pub struct Templates {
    own: Vec<(Text, PathBuf, Result<String, TemplateProblem>)>,
}

impl Templates {
    /// Reads the site's files. What cannot be read is said when the text is needed.
    pub fn load(files: &TemplateFiles) -> Self {
        let named = Text::ALL.iter().filter_map(|text| Some((*text, text.file(files)?.to_owned())));
        Self { own: named.map(|(text, file)| (text, file.clone(), read(&file))).collect() }
    }

    /// The text with these words.
    pub fn render(&self, text: Text, words: &Words) -> Message {
        let Some((_, file, own)) = self.own.iter().find(|(of, ..)| *of == text) else { return shipped(text, words) };
        match own.clone().and_then(|source| fill(text, &source, words, file)) {
            Ok(message) => message,
            Err(problem) => {
                tracing::error!(code = %TEMPLATE, "the template {problem}; the shipped text is used");
                let mut message = shipped(text, words);
                message.body += &format!("\n(the site's own text cannot be used: {problem})\n");
                message
            }
        }
    }
}

/// What is wrong with a site's files, for `mt config check`.
pub fn check(files: &TemplateFiles) -> Vec<Remark> {
    let problems = Text::ALL.iter().filter_map(|text| {
        let file = text.file(files)?;
        let source = read(file);
        // A text may use other names when there is nothing but good news.
        let tried = source.and_then(|source| {
            sample::all().iter().try_for_each(|words| fill(*text, &source, words, file).map(|_| ()))
        });
        tried.err().map(|problem| (text.key(), problem))
    });
    let remark = |(key, problem): (&str, TemplateProblem)| Remark {
        code: TEMPLATE,
        file: Some(problem.file),
        at: problem.line.map(|line| Position { line, column: 1 }),
        path: key.to_owned(),
        what: problem.what,
        expected: Some("a template as docs/notifications.md describes it".to_owned()),
    };
    problems.map(remark).collect()
}

/// Fills a text of any kind in with words of every kind: for what tries hostile texts.
pub(crate) fn try_text(source: &str) {
    for (text, words) in Text::ALL.iter().flat_map(|text| sample::all().into_iter().map(move |words| (*text, words))) {
        if let Ok(message) = fill(text.to_owned(), source, &words, Path::new("t.txt")) {
            assert!(!message.subject.contains('\n'), "a subject of more than a line: {:?}", message.subject);
        }
    }
}

fn read(file: &Path) -> Result<String, TemplateProblem> {
    let problem = |what: String| TemplateProblem { file: file.to_owned(), line: None, what };
    input_file::read_text(file, MOST_BYTES).map_err(|error| problem(format!("cannot be read: {error}")))
}

fn shipped(text: Text, words: &Words) -> Message {
    match fill(text, text.shipped(), words, Path::new(text.key())) {
        Ok(message) => message,
        Err(problem) => {
            // The tests fill in every shipped text with words of every kind; nobody is to lose a message over it.
            tracing::error!(code = %TEMPLATE, "defect: the shipped text {problem}");
            Message { subject: format!("[managed tokens] {}", words.summary), body: words.summary.clone() }
        }
    }
}

fn fill(text: Text, source: &str, words: &Words, file: &Path) -> Result<Message, TemplateProblem> {
    let problem = |line, what: String| TemplateProblem { file: file.to_owned(), line, what };
    let filled = render(text, source, words).map_err(|error| {
        let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        problem(error.line(), format!("{}{detail}", error.kind()))
    })?;
    if !text.is_mail() {
        return Ok(Message { subject: String::new(), body: filled.trim().to_owned() });
    }
    let (first, body) = filled.split_once('\n').unwrap_or((&filled, ""));
    let subject = first.strip_prefix(SUBJECT).map(str::trim).filter(|subject| !subject.is_empty());
    let subject = subject.ok_or_else(|| problem(Some(1), format!("the first line is not {SUBJECT} and a text")))?;
    Ok(Message { subject: subject.to_owned(), body: format!("{}\n", body.trim()) })
}

fn render(text: Text, source: &str, words: &Words) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_keep_trailing_newline(true);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.add_filter("pad", pad);
    environment.add_filter("lines", lines);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    if text == Text::Slack {
        environment.set_formatter(for_slack);
    }
    environment.render_str(source, words)
}

/// Fills up with spaces: on the right, or, for a negative width, on the left.
fn pad(text: Value, width: i64) -> Result<String, Error> {
    let text = text.to_string();
    let wanted = usize::try_from(width.unsigned_abs()).ok().filter(|wanted| *wanted <= 1_000);
    let wanted = wanted.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "pad takes a width up to 1000"))?;
    Ok(if width < 0 { format!("{text:>wanted$}") } else { format!("{text:<wanted$}") })
}

/// The first lines.
fn lines(text: &str, most: usize) -> String {
    let mut lines = text.lines();
    let first: Vec<&str> = lines.by_ref().take(most).collect();
    let more = if lines.next().is_some() { "\n…" } else { "" };
    first.join("\n") + more
}

/// In Slack `<!channel>` calls everybody, and an error message may hold anything.
fn for_slack(output: &mut Output<'_>, state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    let Some(text) = value.as_str() else { return minijinja::escape_formatter(output, state, value) };
    let safe = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    output.write_str(&safe).map_err(Error::from)
}
