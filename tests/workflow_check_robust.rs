//! Promise: no text makes the reader of workflow files panic, hang or point outside the file; and places move with the text.

use std::sync::LazyLock;

use managed_tokens::steps::catalog::{SHIPPED, ShippedActions};
use managed_tokens::workflow::definition::{Diagnostic, MOST_BYTES, Workflow, render};
use proptest::prelude::*;

const MISTAKES: &str = include_str!("fixtures/workflows/a-dozen-mistakes.ron");

fn diagnostics(text: &str) -> Vec<Diagnostic> {
    match Workflow::parse(text, "w.ron", &ShippedActions) {
        Ok((_, warnings)) => warnings,
        Err(diagnostics) => {
            assert!(diagnostics.iter().any(Diagnostic::is_error), "refused without a reason: {text}");
            diagnostics
        }
    }
}

/// Every place lies in the text, and what is printed about it is one line without control characters.
fn check(text: &str) {
    managed_tokens::fuzzing::workflow(text.as_bytes());
}

/// The pieces that a text like the shipped one is made of, so that random texts get further than the first character.
static PIECES: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let mut pieces: Vec<&str> = regex::Regex::new(r#"[A-Za-z_-]+|"[^"]*"|[0-9]+|//[^\n]*\n|."#)
        .unwrap()
        .find_iter(SHIPPED[0].1)
        .chain(regex::Regex::new(r#"\S+"#).unwrap().find_iter(MISTAKES))
        .map(|found| found.as_str())
        .collect();
    pieces.extend([
        "\"",
        "\\",
        "r#\"",
        "/*",
        "*/",
        "20s",
        "é",
        "\u{0}",
        "\r\n",
        "{",
        "}",
        "'",
        "#![enable(",
        "Some(",
        "b\"",
        "None",
    ]);
    pieces.sort_unstable();
    pieces.dedup();
    pieces
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text_is_survived(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn any_text_as_a_value_is_survived(value in ".{0,40}", which in 0..6_usize) {
        let from = ["\"5m\"", "Skip", "\"20s\"", "Kinit", "[Normal, OnboardPush]", "(\"1s\", \"10s\")"][which];
        check(&SHIPPED[0].1.replacen(from, &value, 1));
    }

    #[test]
    fn a_shipped_file_with_a_part_changed_is_survived(
        mistaken in any::<bool>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize, any::<prop::sample::Index>(), any::<bool>()), 1..6),
    ) {
        let mut text: Vec<char> = if mistaken { MISTAKES } else { SHIPPED[0].1 }.chars().collect();
        for (at, cut, piece, insert) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + cut).min(text.len());
            let piece = if insert { PIECES[piece.index(PIECES.len())] } else { "" };
            text.splice(at..end, piece.chars());
        }
        check(&text.into_iter().collect::<String>());
    }

    #[test]
    fn a_heap_of_pieces_is_survived(pieces in prop::collection::vec(any::<prop::sample::Index>(), 0..60)) {
        let text: String = pieces.iter().map(|index| PIECES[index.index(PIECES.len())]).collect::<Vec<_>>().join(" ");
        check(&text);
        check(&format!("Workflow(name: \"a\", for_each: Service, deadline: \"5m\", steps: [Step({text})])"));
        check(&format!("Workflow(steps: [Step(action: Exec({text}))])"));
    }

    #[test]
    fn blank_lines_move_places_by_their_number(blank in 0..50_usize, after in 0..17_usize) {
        let mut lines: Vec<_> = MISTAKES.split('\n').collect();
        lines.splice(after..after, std::iter::repeat_n("", blank));
        let moved = diagnostics(&lines.join("\n"));
        let before = diagnostics(MISTAKES);
        prop_assert_eq!(moved.len(), before.len());
        for (moved, before) in moved.iter().zip(&before) {
            let line = before.line.unwrap();
            let expected = if line > after { line + blank } else { line };
            prop_assert_eq!((moved.code, moved.line, moved.column), (before.code, Some(expected), before.column));
            prop_assert_eq!(&moved.message, &before.message);
        }
    }

    #[test]
    fn spaces_before_a_line_move_its_places_by_their_number(spaces in 0..150_usize) {
        let text = MISTAKES.replace("\n        Step", &format!("\n        {}Step", " ".repeat(spaces)));
        for (moved, before) in diagnostics(&text).iter().zip(diagnostics(MISTAKES)) {
            let by = if before.line > Some(7) && before.line != Some(14) { spaces } else { 0 };
            prop_assert_eq!((moved.line, moved.column), (before.line, before.column.map(|column| column + by)));
        }
    }
}

/// Not a test of speed: with anything quadratic in these sizes it would take hours.
#[test]
fn the_largest_file_of_anything_is_read_in_reasonable_time() {
    let most = MOST_BYTES;
    let fill = |piece: &str| piece.repeat(most / piece.len());
    let whole = |steps: &str| format!("Workflow(name: \"a\", for_each: Service, deadline: \"5m\", steps: [{steps}])");
    let room = most - 100;
    let filled = |piece: &str| whole(&piece.repeat(room / piece.len()));
    for text in [
        fill("("),
        fill("/*"),
        fill("//"),
        fill("\n"),
        fill("\""),
        fill("a"),
        fill("1"),
        fill("1s "),
        fill("é"),
        fill("Workflow("),
        format!("Workflow({})", "x: 1, ".repeat(most / 6 - 20)),
        format!("Workflow({})", "name: 1s ".repeat(most / 9 - 20)),
        format!("Workflow({}: 1)", "x".repeat(room)),
        filled("Step(),"),
        filled("Step(x: 1),\n"),
        filled("Step(name: \"a\", action: Kinit, timeout: \"1s\"),"),
        filled("Step(name: \"a\", action: Push, timeout: \"9h\"),\n"),
        filled("Step(name: \"a\" action: Push timeout: 9h),"),
        filled("7,"),
        filled("[],"),
        whole(&format!("Step(action: Exec(command: [{}]))", "\"a\",".repeat(room / 4 - 40))),
        whole(&format!("Step(action: Exec(needs: [{}]))", "T,".repeat(room / 2 - 40))),
        whole(&format!("Step(when: [{}])", "Normal,".repeat(room / 7 - 40))),
        whole(&format!("Step(name: {})", "9".repeat(room - 40))),
        whole(&format!("Step(timeout: \"{}s\")", "9".repeat(room - 40))),
        whole(&format!("Step(name: \"{}\")", "a".repeat(room - 40))),
    ] {
        assert!(text.len() <= most);
        let found = diagnostics(&text);
        assert!(!found.is_empty() && found.len() <= 1_100, "{}", found.len());
        assert!(render(&found, false).len() < 4 << 20);
    }
}
