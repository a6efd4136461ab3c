//! The names of the executables that `mt` replaces: a link of that name to `mt` takes the old flags, each with its old meaning.
//!
//! The old flags are rewritten into present ones, which are then parsed like any others: there is one command line
//! behind both names.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command, Parser};

use super::error::Failed;
use super::exit::ExitCode;
use super::{Cli, of_config, runs};
use crate::acting::site::{Global, Site};
use crate::guardian;

/// The command line of this process, by whatever name it was called.
///
/// # Errors
/// What clap prints: a mistake, the help, or the version.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let words: Vec<OsString> = words.into_iter().collect();
    let called = words.first().and_then(|word| Path::new(word).file_name()).and_then(OsStr::to_str);
    match called {
        Some("token-push") => rewritten(token_push(), words, |given| {
            let mut new = vec!["run".into(), "token-push".into()];
            let onboards = given.get_flag_value("run-onboarding");
            // A test and an onboarding both stop after the token, and an onboarding tells nobody anyway.
            new.extend(given.flag_as("test", "--test").filter(|_| !onboards));
            new.extend(given.flag_as("run-onboarding", "--onboard"));
            // Without an onboarding there is nothing that it could change.
            new.extend(given.flag_as("push-tokens", "--push").filter(|_| onboards));
            new.extend(given.value_as("service", "--service"));
            new.extend(given.value_as("experiment", "--experiment"));
            new
        }),
        Some("refresh-uids-from-ferry") => rewritten(refresh_uids(), words, |given| {
            let mut new = vec!["run".into(), "ferry-refresh".into()];
            new.extend(given.flag_as("test", "--test"));
            new.extend(given.value_as("authmethod", "--authmethod"));
            new
        }),
        Some(_) | None => Cli::try_parse_from(words),
    }
}

fn rewritten(
    old: Command,
    words: Vec<OsString>,
    specific: impl FnOnce(&ArgMatches) -> Vec<OsString>,
) -> Result<Cli, clap::Error> {
    let given = old.try_get_matches_from(words)?;
    let mut new: Vec<OsString> = vec!["mt".into()];
    if given.try_get_one::<bool>("list-services").is_ok_and(|list| list == Some(&true)) {
        new.push("list-service-names".into());
    } else {
        new.extend(specific(&given));
        let silent = given.get_flag_value("disable-notifications") || given.get_flag_value("dont-notify");
        new.extend(silent.then(|| "--no-notify".into()));
        new.extend(given.flag_as("no-loki", "--no-loki"));
        new.extend(given.value_as("admin", "--admin"));
    }
    new.extend(given.value_as("configfile", "--configfile"));
    // The old one said everything or nothing.
    new.extend(given.flag_as("verbose", "-vv"));
    Cli::try_parse_from(new)
}

/// How the old flags are rewritten.
trait Old {
    fn get_flag_value(&self, name: &str) -> bool;
    fn flag_as(&self, name: &str, new: &str) -> Option<OsString>;
    fn value_as(&self, name: &str, new: &str) -> Option<OsString>;
}

impl Old for ArgMatches {
    fn get_flag_value(&self, name: &str) -> bool {
        self.get_one::<bool>(name).copied().unwrap_or(false)
    }

    fn flag_as(&self, name: &str, new: &str) -> Option<OsString> {
        self.get_flag_value(name).then(|| new.into())
    }

    /// In one word, so that a value which begins with a dash stays a value.
    fn value_as(&self, name: &str, new: &str) -> Option<OsString> {
        let value = self.get_one::<OsString>(name)?;
        let mut word = OsString::from(format!("{new}="));
        word.push(value);
        Some(word)
    }
}

fn token_push() -> Command {
    command("token-push", "mt run token-push").args([
        value("experiment", Some('e'), "EXPERIMENT", "The services of this experiment only"),
        flag("list-services", None, "Print the configured services, one a line"),
        flag("push-tokens", Some('p'), "With -r: push the token, too"),
        flag("run-onboarding", Some('r'), "A person authenticates for one service (-s), on this terminal"),
        value("service", Some('s'), "SERVICE", "This service only"),
        flag("test", Some('t'), "Get credentials and touch no node; every error goes to the test recipients"),
    ])
}

fn refresh_uids() -> Command {
    command("refresh-uids-from-ferry", "mt run ferry-refresh").args([
        value("authmethod", None, "tls|jwt", "How FERRY learns who we are [default: tls]"),
        flag("test", Some('t'), "Ask FERRY and store nothing; every error goes to the test recipients"),
    ])
}

/// What both have.
fn command(name: &'static str, new: &str) -> Command {
    Command::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .about(format!("The old name of `{new}`"))
        // Of a flag given twice the last counts, as it did.
        .args_override_self(true)
        .max_term_width(100)
        .args([
            value("admin", None, "ADDR", "Tell this address instead of the configured admins"),
            value("configfile", Some('c'), "FILE", "The configuration file"),
            flag("disable-notifications", None, "Tell nobody; errors go on being counted"),
            flag("dont-notify", None, "The same"),
            flag("no-loki", None, "Send no lines of the log to Loki"),
            flag("verbose", Some('v'), "Say everything on stderr"),
        ])
}

fn value(name: &'static str, short: Option<char>, shown: &'static str, help: &'static str) -> Arg {
    let arg = Arg::new(name).long(name).value_name(shown).help(help);
    let arg = arg.value_parser(clap::value_parser!(OsString)).allow_hyphen_values(true);
    short.map_or(arg.clone(), |short| arg.short(short))
}

/// `--test`, `--test=true` and `--test=false`, as the old parser took them.
fn flag(name: &'static str, short: Option<char>, help: &'static str) -> Arg {
    let arg = Arg::new(name).long(name).help(help).action(ArgAction::Set).value_parser(boolean);
    let arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true").hide_possible_values(true);
    short.map_or(arg.clone(), |short| arg.short(short))
}

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// `--list-services`: the names alone.
pub(super) fn list_service_names(global: &Global) -> Result<ExitCode, Failed> {
    let site = Site::load(global).map_err(|e| of_config(&e))?;
    guardian::refuse_root(&site.state_dir).map_err(|e| Failed::new(e.code(), e.to_string()))?;
    let names: String = site.config.services.iter().map(|service| format!("{}\n", service.name)).collect();
    runs::print(&names)?;
    Ok(ExitCode::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the old words become.
    fn new(old: &str) -> String {
        let words = |text: &str| text.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        let parsed = parse(words(old)).unwrap_or_else(|error| panic!("{old}: {error}"));
        format!("{parsed:?}")
    }

    #[track_caller]
    fn means(old: &str, present: &str) {
        let parsed =
            Cli::try_parse_from(present.split_whitespace()).unwrap_or_else(|error| panic!("{present}: {error}"));
        assert_eq!(new(old), format!("{parsed:?}"), "{old}");
    }

    #[test]
    fn every_old_flag_of_token_push_has_its_present_meaning() {
        means("token-push", "mt run token-push");
        means("/usr/bin/token-push -t", "mt run token-push --test");
        means("token-push --test --no-loki", "mt run token-push --test --no-loki");
        means("token-push -s dune_production", "mt run token-push -s dune_production");
        means("token-push --experiment=dune", "mt run token-push -e dune");
        means("token-push -r -s dune_production", "mt run token-push --onboard -s dune_production");
        means("token-push -rps dune_production", "mt run token-push --onboard --push -s dune_production");
        means("token-push --run-onboarding --push-tokens --service x_y", "mt run token-push --onboard --push -s x_y");
        for silent in ["--dont-notify", "--disable-notifications", "--dont-notify --disable-notifications"] {
            means(&format!("token-push {silent}"), "mt run token-push --no-notify");
        }
        means("token-push --admin me@lab.test", "mt run token-push --admin me@lab.test");
        means("token-push -v -c /etc/x.json", "mt run token-push -c /etc/x.json -vv");
        means("token-push --list-services -c x.yml", "mt list-service-names -c x.yml");
    }

    #[test]
    fn every_old_flag_of_refresh_uids_has_its_present_meaning() {
        means("refresh-uids-from-ferry", "mt run ferry-refresh");
        means("refresh-uids-from-ferry --authmethod jwt -t", "mt run ferry-refresh --test --authmethod jwt");
        let all = "--admin a@b.c --authmethod=tls --dont-notify --no-loki -v --configfile x.json";
        let present = "mt run ferry-refresh --authmethod tls --no-notify --no-loki --admin a@b.c -c x.json -vv";
        means(&format!("refresh-uids-from-ferry {all}"), present);
        assert!(parse(["refresh-uids-from-ferry", "-s", "x"].map(OsString::from)).is_err(), "it never had that");
    }

    #[test]
    fn flags_are_read_as_the_old_parser_read_them() {
        means("token-push --test=false -v=true", "mt run token-push -vv");
        means(
            "token-push -s=one_x -c=x.json --admin=me@lab.test",
            "mt run token-push -s one_x --admin me@lab.test -c x.json",
        );
        means("token-push -sone_x -vt", "mt run token-push --test -s one_x -vv");
        means("token-push -t --test=0", "mt run token-push");
        means("token-push -s one_x -s two_y", "mt run token-push -s two_y");
        means("token-push -p", "mt run token-push");
        means("token-push -t -r -s x_y", "mt run token-push --onboard -s x_y");
        assert!(parse(["token-push", "--test=perhaps"].map(OsString::from)).is_err());
    }

    #[test]
    fn another_name_is_mt_itself() {
        for name in ["mt", "/opt/token-push/mt", "token-push-old", ""] {
            assert!(parse([name, "runs", "list"].map(OsString::from)).is_ok(), "{name}");
        }
    }

    #[test]
    fn the_commands_are_without_mistakes() {
        token_push().debug_assert();
        refresh_uids().debug_assert();
    }
}
