//! Promise: what docs/workflows.md says about workflow files is so.

use managed_tokens::steps::catalog::{SHIPPED, ShippedActions};
use managed_tokens::workflow::definition::{
    Arguments, Catalog, DEFAULT_BACKOFF, DEFAULT_PARALLEL, MOST_BYTES, Per, Place, Workflow, codes, render,
};

const DOCS: &str = include_str!("../docs/workflows.md");

/// The code blocks of that kind.
fn blocks(kind: &str) -> Vec<&'static str> {
    let start = format!("```{kind}\n");
    DOCS.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// A step of the documentation in a workflow that gives it what it needs.
fn around(step: &str) -> String {
    format!(
        "Workflow(name: \"w\", for_each: Service, deadline: \"5m\", steps: [
            Step(name: \"first\", action: Kinit, timeout: \"1s\"),
            Step(name: \"second\", action: GetVaultToken, timeout: \"1s\"),
            {step}
        ])"
    )
}

#[test]
fn every_example_is_a_workflow_without_mistakes() {
    let examples: Vec<_> = blocks("ron").into_iter().map(str::to_owned).collect();
    let steps: Vec<_> = blocks("ron,step").into_iter().map(around).collect();
    assert!(examples.len() >= 3 && steps.len() >= 3, "the examples are found");
    for text in examples.iter().chain(&steps) {
        match Workflow::parse(text, "docs/workflows.md", &ShippedActions) {
            Ok((_, warnings)) => assert_eq!(warnings, vec![], "{text}"),
            Err(mistakes) => panic!("{text}\n{}", render(&mistakes, false)),
        }
    }
}

#[test]
fn the_message_it_quotes_is_the_message_there_is() {
    let quoted = blocks("").into_iter().find(|block| block.starts_with("error")).unwrap();
    let text = SHIPPED[0].1;
    let push = text.find("        // One ssh connection").unwrap()..text.find("    ],\n    // Once").unwrap();
    let token = text.find("        // A vault token").unwrap();
    let moved = [&text[..token], &text[push.clone()], &text[token..push.start], &text[push.end..]].concat();
    let mistakes = Workflow::parse(&moved, "w", &ShippedActions).unwrap_err();
    assert_eq!(mistakes.len(), 1);
    assert!(render(&mistakes, false).starts_with(quoted), "{}", render(&mistakes, false));
}

#[test]
fn the_table_of_actions_is_the_catalog() {
    let rows: Vec<Vec<String>> = DOCS
        .lines()
        .skip_while(|line| !line.starts_with("| action | stands in"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect())
        .collect();
    assert_eq!(rows.len(), ShippedActions.names().len());
    for (row, name) in rows.iter().zip(ShippedActions.names()) {
        let shape = ShippedActions.action(name).unwrap();
        let place = match shape.place {
            Place::Steps => "steps",
            Place::Finally => "finally",
        };
        let per: Vec<_> =
            shape.per.iter().map(|per| if *per == Per::Subject { "-".into() } else { format!("{per:?}") }).collect();
        let list = |names: Vec<String>| if names.is_empty() { "-".to_owned() } else { names.join(", ") };
        let (shown, needs, provides) = match shape.arguments {
            Arguments::None(info) => (
                name.to_owned(),
                list(info().needs.iter().map(ToString::to_string).collect()),
                list(info().provides.iter().map(|provision| provision.product.to_string()).collect()),
            ),
            Arguments::Some(..) => (format!("{name}(…)"), "as declared".to_owned(), "as declared".to_owned()),
        };
        let per = per.join(", ").replace("Credd, Node", "Credd or Node");
        assert_eq!(*row, [shown, place.to_owned(), per, needs, provides]);
    }
}

#[test]
fn the_defaults_it_names_are_the_defaults() {
    assert!(DOCS.contains(&format!("| `parallel` | 1 to 10000 | {DEFAULT_PARALLEL} |")));
    assert_eq!((DEFAULT_BACKOFF.0.as_secs(), DEFAULT_BACKOFF.1.as_secs()), (1, 15));
    assert!(DOCS.contains("by default `(\"1s\", \"15s\")`"));
    assert!(DOCS.contains(&format!("at most {} KiB", MOST_BYTES / 1024)));
}

#[test]
fn every_code_has_an_explanation() {
    let explained: Vec<_> = codes::EXPLANATIONS.iter().map(|(code, ..)| code.0).collect();
    assert_eq!(explained, (100..=127).collect::<Vec<_>>());
}
