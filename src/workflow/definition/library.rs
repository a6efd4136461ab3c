//! Where workflows are found: files of the site, and those that are compiled in.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::catalog::Catalog;
use super::codes;
use super::diagnostic::{Diagnostic, Severity};
use super::parse::MOST_BYTES;
use super::read::{Mistake, nearest, shortened};
use super::source::Source;
use super::types::Workflow;
use crate::workflow::input_file;

/// The workflows there are.
#[derive(Clone, Debug)]
pub struct Library {
    directory: PathBuf,
    shipped: &'static [(&'static str, &'static str)],
}

/// The text of a workflow that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How it is named in messages: the path, or `NAME (compiled in)`.
    pub file: String,
    /// The path; `None` if it is compiled in.
    pub path: Option<PathBuf>,
    /// Its text.
    pub text: String,
    /// The name it was found under; `None` if a path was given.
    asked: Option<String>,
}

/// One line of the list of workflows.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The name to run it by.
    pub name: String,
    /// Its text, or why it cannot be read.
    pub found: Result<Found, Diagnostic>,
    /// Does a file of the site win over a compiled-in one?
    pub overrides: bool,
}

impl Library {
    /// Files of `directory` win over the compiled-in ones, given as (name, text).
    pub fn new(directory: impl Into<PathBuf>, shipped: &'static [(&'static str, &'static str)]) -> Self {
        Self { directory: directory.into(), shipped }
    }

    /// Where the site's own workflows are looked for.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Finds a workflow by name, or a file by its path: what holds a `/` or ends in `.ron` is a path.
    ///
    /// # Errors
    /// No such workflow, or its file cannot be read.
    pub fn find(&self, name_or_file: &str) -> Result<Found, Diagnostic> {
        if name_or_file.contains('/') || name_or_file.ends_with(".ron") {
            return read(Path::new(name_or_file), None);
        }
        let path = self.directory.join(format!("{name_or_file}.ron"));
        // `try_exists` is an error where the directory may not be searched: then reading says so.
        if path.try_exists().unwrap_or(true) {
            return read(&path, Some(name_or_file));
        }
        if let Some((name, text)) = self.shipped.iter().find(|(name, _)| *name == name_or_file) {
            return Ok(compiled_in(name, text));
        }
        let names: Vec<_> = self.list().into_iter().map(|listed| listed.name).collect();
        let message = format!("no workflow is named {}", shortened(name_or_file));
        let help = match nearest(name_or_file, names.iter().map(String::as_str)) {
            Some(name) => format!("did you mean {name}?"),
            None => format!("there are {}; to name a file, write its path: ./{name_or_file}.ron", names.join(", ")),
        };
        Err(Diagnostic::new(codes::UNKNOWN_WORKFLOW, Severity::Error, name_or_file, message).with_help(help))
    }

    /// All workflows that can be run by name, sorted. A directory that cannot be read holds none.
    pub fn list(&self) -> Vec<Listed> {
        let mut listed: Vec<_> = std::fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let path = entry.path();
                let name = path.file_name()?.to_str()?.strip_suffix(".ron")?.to_owned();
                // An editor's `.#token-push.ron` is no workflow.
                let hidden = name.starts_with('.') || name.is_empty();
                (!hidden).then(|| Listed {
                    found: read(&path, Some(&name)),
                    overrides: self.shipped.iter().any(|(shipped, _)| *shipped == name),
                    name,
                })
            })
            .collect();
        for (name, text) in self.shipped {
            if !listed.iter().any(|listed| listed.name == *name) {
                listed.push(Listed { name: (*name).to_owned(), found: Ok(compiled_in(name, text)), overrides: false });
            }
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        listed
    }
}

impl Found {
    /// Reads and checks it; a file found by its name must hold the workflow of that name.
    ///
    /// # Errors
    /// Every mistake in it, warnings among them.
    pub fn parse(&self, catalog: &dyn Catalog) -> Result<(Workflow, Vec<Diagnostic>), Vec<Diagnostic>> {
        let (workflow, warnings) = Workflow::parse(&self.text, &self.file, catalog)?;
        match &self.asked {
            Some(asked) if *asked != workflow.name.as_str() => {
                let message =
                    format!("the file is named {}.ron and holds the workflow {}", shortened(asked), workflow.name);
                let mut source = Source::new(&self.file, &self.text);
                source.repair();
                let at = super::parse::read_draft(&source).0.name.given().map_or_else(|| source.start(), |(_, at)| at);
                let mistake = Mistake::new(codes::FILE_NAME, at, message)
                    .with_help("rename the file, or change `name`: the two must be the same");
                Err(vec![source.diagnostic(Severity::Error, &mistake)])
            }
            Some(_) | None => Ok((workflow, warnings)),
        }
    }
}

fn compiled_in(name: &str, text: &str) -> Found {
    Found { file: format!("{name} (compiled in)"), path: None, text: text.to_owned(), asked: Some(name.to_owned()) }
}

fn read(path: &Path, asked: Option<&str>) -> Result<Found, Diagnostic> {
    let file = path.display().to_string();
    let unreadable = |why: String| {
        let message = format!("cannot read the workflow file: {why}");
        Diagnostic::new(codes::UNREADABLE, Severity::Error, &file, message)
    };
    let mut bytes = Vec::new();
    let opened = input_file::open(path).map_err(|error| unreadable(error.to_string()))?;
    // One byte more than is taken: enough to see that it is too large, whatever its size.
    let most = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    opened.take(most).read_to_end(&mut bytes).map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() > MOST_BYTES {
        let message = format!("the file is too large: a workflow has at most {MOST_BYTES} bytes");
        return Err(
            Diagnostic::new(codes::TOO_LARGE, Severity::Error, &file, message).with_help("is it the right file?")
        );
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        unreadable(format!("line {line} is not UTF-8 text"))
    })?;
    Ok(Found { file, path: Some(path.to_owned()), text, asked: asked.map(str::to_owned) })
}
