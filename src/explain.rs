//! What every error code means and what to do about it: the explanations of all modules in one place.

use crate::workflow::code::Code;
use crate::workflow::{definition, driver, store};
use crate::{cli, config, guardian, notify, private_dir, process, stderr, steps, telemetry, token_file};

/// One code explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The code.
    pub code: Code,
    /// What it is, in a few words.
    pub title: &'static str,
    /// What it means and how to mend it: a few lines, without a line break at the end.
    pub text: &'static str,
}

type Explanations = &'static [(Code, &'static str, &'static str)];

/// The explanations of every module that has codes.
const MODULES: &[Explanations] = &[
    cli::error::EXPLANATIONS,
    config::codes::EXPLANATIONS,
    definition::codes::EXPLANATIONS,
    driver::codes::EXPLANATIONS,
    guardian::EXPLANATIONS,
    notify::codes::EXPLANATIONS,
    private_dir::EXPLANATIONS,
    process::EXPLANATIONS,
    stderr::EXPLANATIONS,
    steps::codes::EXPLANATIONS,
    steps::ferry::codes::EXPLANATIONS,
    store::EXPLANATIONS,
    telemetry::logs::codes::EXPLANATIONS,
    telemetry::metrics::codes::EXPLANATIONS,
    telemetry::traces::codes::EXPLANATIONS,
    token_file::EXPLANATIONS,
];

/// Which numbers are about what: for a code that nobody knows.
const RANGES: &[(std::ops::RangeInclusive<u16>, &str)] = &[
    (1..=19, "the command line and runs"),
    (20..=29, "kinit"),
    (30..=39, "the vault and htgettoken"),
    (40..=49, "ping and push"),
    (50..=59, "HTCondor"),
    (60..=69, "notifications"),
    (70..=79, "the store"),
    (80..=89, "the configuration"),
    (90..=99, "processes and token files"),
    (100..=149, "workflow files"),
    (150..=169, "the configuration"),
    (170..=189, "FERRY and the UIDs of accounts"),
    (190..=199, "metrics"),
    (200..=209, "logs and stderr"),
    (230..=239, "notifications"),
    (240..=249, "traces"),
];

/// Every code that exists, ascending.
pub fn all() -> Vec<Entry> {
    let mut entries: Vec<_> =
        MODULES.iter().copied().flatten().map(|&(code, title, text)| Entry { code, title, text }).collect();
    entries.sort_by_key(|entry| entry.code);
    entries
}

/// What is known of a code.
pub fn find(code: Code) -> Option<Entry> {
    all().into_iter().find(|entry| entry.code == code)
}

/// What messages with a number like this one are about.
pub fn about(code: Code) -> Option<&'static str> {
    RANGES.iter().find(|(range, _)| range.contains(&code.0)).map(|(_, about)| *about)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_never_used_twice() {
        let entries = all();
        for pair in entries.windows(2) {
            assert_ne!(pair[0].code, pair[1].code, "{:?} and {:?}", pair[0].title, pair[1].title);
        }
    }

    #[test]
    fn every_code_lies_in_a_range_and_is_explained_in_short_lines() {
        for Entry { code, title, text } in all() {
            assert!(about(code).is_some(), "{code} lies in no range");
            assert!(!title.is_empty() && !title.ends_with('.'), "{code}: {title:?}");
            assert!(!text.trim().is_empty() && !text.ends_with('\n'), "{code}: {text:?}");
            for line in text.lines() {
                assert!(line.chars().count() <= 120, "{code}: {line:?}");
                assert_eq!(line.trim(), line, "{code}");
            }
        }
    }

    #[test]
    fn ranges_do_not_overlap() {
        for pair in RANGES.windows(2) {
            assert!(pair[0].0.end() < pair[1].0.start());
        }
    }
}
