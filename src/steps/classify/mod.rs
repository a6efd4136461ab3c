//! What a program's exit code and words mean: one table per program, pure functions, tested against recorded outputs.
//!
//! Exit codes alone say too little: rsync ends with 255 or 12 for one and the same failure of ssh, and
//! condor_vault_storer with 1 for all. So a rule looks at both, and the first rule that fits decides.

pub mod condor;
pub mod kerberos;
pub mod remote;
pub mod vault;

use std::time::Duration;

use crate::process::{Exit, RunError};
use crate::workflow::action::{Attempt, Class, Failure};
use crate::workflow::code::Code;

/// Which exit codes a rule is about.
#[derive(Clone, Copy, Debug)]
pub enum Exits {
    /// Any but 0.
    Any,
    /// These.
    Of(&'static [i32]),
}

/// One line of a table. `{name}` in `cause` and `next` is replaced by the fact of that name, `{line}` by the line of
/// output that holds the first of `says`.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The exit codes.
    pub exits: Exits,
    /// All of these are in the output, in lower case, anywhere.
    pub says: &'static [&'static str],
    /// Who does something about it.
    pub class: Class,
    /// What `mt explain` knows about it.
    pub code: Code,
    /// The failure's message.
    pub cause: &'static str,
    /// The failure's `next`.
    pub next: Option<&'static str>,
}

/// What a message may name: `("node", "dune01.fnal.gov")`.
pub type Facts<'a> = &'a [(&'a str, &'a str)];

impl Rule {
    fn fits(&self, exit: Exit, lower: &str) -> bool {
        let code = match (self.exits, exit) {
            (Exits::Any, Exit::Code(_)) => true,
            (Exits::Of(codes), Exit::Code(code)) => codes.contains(&code),
            (_, Exit::Signal(_)) => false,
        };
        code && self.says.iter().all(|text| lower.contains(text))
    }

    /// The failure this rule describes.
    pub fn failure(&self, exit: Exit, output: &str, facts: Facts<'_>) -> Failure {
        let line = match (self.says.first(), exit) {
            (Some(text), _) => line_with(output, text),
            (None, Exit::Code(code)) if output.trim().is_empty() => format!("it said nothing and ended with {code}"),
            (None, Exit::Code(_) | Exit::Signal(_)) => last_line(output),
        };
        let failure = Failure::new(self.class, self.code, fill(self.cause, &line, facts)).with_output(output);
        match self.next {
            Some(next) => failure.with_next(fill(next, &line, facts)),
            None => failure,
        }
    }
}

/// The first rule of the table that fits, else the fallback.
pub fn classify(table: &[Rule], fallback: &Rule, exit: Exit, output: &str, facts: Facts<'_>) -> Failure {
    if let Exit::Signal(signal) = exit {
        let program = facts.iter().find(|(name, _)| *name == "program").map_or("the program", |(_, value)| *value);
        let message = format!("{program} was killed by signal {signal}");
        return Failure::new(Class::Transient, fallback.code, message).with_output(output);
    }
    let lower = output.to_ascii_lowercase();
    table.iter().find(|rule| rule.fits(exit, &lower)).unwrap_or(fallback).failure(exit, output, facts)
}

/// What it means that a child was too slow.
#[derive(Clone, Debug)]
pub struct TooSlow {
    /// What `mt explain` knows about it.
    pub code: Code,
    /// Who did not answer: `the credd schedd1 does not answer`.
    pub cause: String,
    /// The failure's `next`.
    pub next: Option<String>,
}

impl TooSlow {
    /// With something to do about it.
    pub fn new(code: Code, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self { code, cause: cause.into(), next: Some(next.into()) }
    }

    /// Of a local program, which has nothing to wait for.
    pub fn local(code: Code, cause: impl Into<String>) -> Self {
        Self { code, cause: cause.into(), next: None }
    }
}

/// The failure of a child that did not run to its end.
pub fn not_run(error: RunError, slow: TooSlow, attempt: &Attempt) -> Failure {
    not_run_within(error, slow, attempt.timeout)
}

/// As [`not_run`], for a child with a time of its own.
pub fn not_run_within(error: RunError, slow: TooSlow, limit: Duration) -> Failure {
    let text = error.to_string();
    let missing = error.code();
    match error {
        RunError::Start { .. } => Failure::new(Class::Permanent, missing.unwrap_or(slow.code), text),
        RunError::Cancelled { program, output } => {
            let program = program.to_string_lossy();
            let message = format!("{}: {program} did not end within {}", slow.cause, seconds(limit));
            Failure { next: slow.next, ..Failure::new(Class::Timeout, slow.code, message).with_output(output) }
        }
    }
}

/// `20s`, `0.5s`.
fn seconds(limit: Duration) -> String {
    format!("{}s", limit.as_secs_f64())
}

fn fill(template: &str, line: &str, facts: Facts<'_>) -> String {
    let filled = template.replace("{line}", line);
    facts.iter().fold(filled, |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

/// The first line that holds the text, whatever its case.
fn line_with(output: &str, lower: &str) -> String {
    let found = output.lines().find(|line| line.to_ascii_lowercase().contains(lower));
    shorten(found.unwrap_or_default())
}

/// The last line that is not blank.
fn last_line(output: &str) -> String {
    shorten(output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no output"))
}

/// A message is one line for people; the whole output is kept beside it.
fn shorten(line: &str) -> String {
    const MOST: usize = 200;
    let line = line.trim();
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    //! Recorded outputs: `exit: N`, `seconds: …`, `command: …`, then `--- stderr` and `--- stdout`.

    use crate::process::Exit;

    /// What the program said and how it ended.
    pub fn read(name: &str) -> (Exit, String) {
        let path = format!("{}/tests/fixtures/programs/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let exit = text.lines().find_map(|line| line.strip_prefix("exit: ")).expect("the exit code");
        let (_, streams) = text.split_once("--- stderr\n").expect("stderr");
        let (stderr, stdout) = streams.split_once("--- stdout\n").expect("stdout");
        (Exit::Code(exit.parse().expect("a number")), format!("{stderr}{stdout}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FALLBACK: Rule =
        Rule { exits: Exits::Any, says: &[], class: Class::Transient, code: Code(1), cause: "{line}", next: None };

    #[test]
    fn a_signal_is_transient_and_named() {
        let failure = classify(&[], &FALLBACK, Exit::Signal(9), "", &[("program", "kinit")]);
        assert_eq!((failure.class, failure.message.as_str()), (Class::Transient, "kinit was killed by signal 9"));
    }

    #[test]
    fn an_unknown_failure_shows_its_last_words() {
        let failure = classify(&[], &FALLBACK, Exit::Code(3), "first\nthe reason\n\n", &[]);
        assert_eq!(failure.message, "the reason");
        let silent = classify(&[], &FALLBACK, Exit::Code(3), "\n", &[]);
        assert_eq!(silent.message, "it said nothing and ended with 3");
    }

    #[test]
    fn a_rule_needs_both_its_exit_code_and_all_its_words() {
        let rule = Rule { exits: Exits::Of(&[2]), says: &["no", "way"], code: Code(9), ..FALLBACK };
        assert_eq!(classify(&[rule], &FALLBACK, Exit::Code(2), "No\nWAY", &[]).code, Code(9));
        assert_eq!(classify(&[rule], &FALLBACK, Exit::Code(1), "No\nWAY", &[]).code, Code(1));
        assert_eq!(classify(&[rule], &FALLBACK, Exit::Code(2), "No", &[]).code, Code(1));
    }

    #[test]
    fn every_placeholder_of_every_table_is_a_fact_its_caller_gives() {
        let tables: [(&[Rule], &[&str]); 5] = [
            (kerberos::RULES, kerberos::FACTS),
            (remote::PING, remote::FACTS),
            (remote::PUSH, remote::FACTS),
            (condor::STATUS, condor::STATUS_FACTS),
            (condor::STORE, condor::STORE_FACTS),
        ];
        for (table, facts) in tables {
            for text in table.iter().flat_map(|rule| [Some(rule.cause), rule.next]).flatten() {
                for name in text.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
                    assert!(name == "line" || facts.contains(&name), "{{{name}}} in {text:?}");
                }
            }
        }
    }
}
