//! What the README says of the command line is so, and what the documents show comes out like that.

use clap::Parser;
use managed_tokens::cli::Cli;
use managed_tokens::cli::exit::ExitCode;

const README: &str = include_str!("../README.md");

/// The commands of the block under "Using it", placeholders filled in, alternatives written out.
fn commands() -> Vec<String> {
    let using = README.split("## Using it").nth(1).expect("the README says how to use it");
    let block = using.split("```").nth(1).expect("with a block of commands");
    let lines = block.lines().filter(|line| line.starts_with("mt "));
    lines.flat_map(|line| alternatives(line.split("  ").next().unwrap_or(line))).collect()
}

/// `mt services list | show S` are two commands.
fn alternatives(line: &str) -> Vec<String> {
    let mut parts = line.split(" | ");
    let first = parts.next().unwrap_or_default().to_owned();
    let words: Vec<&str> = first.split(' ').collect();
    let stem = words[..words.len() - 1].join(" ");
    let others = parts.map(|part| format!("{stem} {part}"));
    std::iter::once(first.clone()).chain(others).collect()
}

#[test]
fn every_command_of_the_readme_is_understood() {
    let commands = commands();
    assert!(commands.len() >= 15, "{commands:?}");
    for command in commands {
        let filled = command.replace("[ID]", "latest").replace("ACCOUNT UID", "dunepro 1234");
        let words = filled.split_whitespace().filter(|w| !w.starts_with('['));
        if let Err(error) = Cli::try_parse_from(words) {
            panic!("{command}: {error}");
        }
    }
}

#[test]
fn the_exit_codes_of_the_readme_are_those_of_the_program() {
    let table = README.split("| exit | meaning |").nth(1).expect("the README has a table of exit codes");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let numbers: Vec<u8> = rows
        .flat_map(|row| {
            row.split('|').nth(1).unwrap_or_default().split(',').map(|n| n.trim().to_owned()).collect::<Vec<_>>()
        })
        .map(|n| n.parse().expect("a number"))
        .collect();
    let known: Vec<u8> = ExitCode::ALL.iter().map(|code| code.number()).collect();
    assert_eq!(numbers, known);
}

#[test]
fn what_the_commands_print_without_a_site_is_as_recorded() {
    trycmd::TestCases::new()
        .env("MT_WORKFLOW_DIR", "/nonexistent")
        .env("MT_CONFIG", "/nonexistent/managedTokens.json")
        .env("NO_COLOR", "1")
        .case("tests/cmd/*.trycmd");
}
