use super::*;
use crate::cli::output::Style;
use crate::cli::samples::{subject, viewer};

fn explanation() -> Explanation {
    let decision = |step: &str, target: &str, what, why: &str| Decision {
        subject: Some(subject("dune_production")),
        step: StepName::new(step),
        target: TargetName::new(target),
        what,
        why: why.to_owned(),
    };
    let mut decisions = vec![
        decision("kinit", "-", What::Redo, "its ticket died with the process, and store-in-credd needs one"),
        decision("get-vault-token", "-", What::Reuse, "succeeded 13:58:01; kept token unchanged, valid for 6d 22h"),
        decision("store-in-credd", "schedd1", What::Reuse, "succeeded 13:58:02"),
        decision("store-in-credd", "schedd2", What::Redo, "started, no outcome recorded: the process was killed"),
        decision("push", "dune01", What::Gone, "no longer configured"),
        decision("push", "dune02", What::Redo, "not reached"),
        decision("push", "dune03", What::Leave, "left \x1b[1mout"),
    ];
    decisions.push(Decision {
        subject: None,
        step: StepName::new("notify"),
        target: TargetName::only(),
        what: What::Redo,
        why: "runs in every session".to_owned(),
    });
    Explanation { decisions, to_finish: 12, complete: 38 }
}

#[test]
fn every_decision_has_its_reason_and_nothing_was_started() {
    insta::assert_snapshot!(render(&explanation(), OutputFormat::Table, &viewer(Style::UNLIMITED)));
}

#[test]
fn a_narrow_terminal_breaks_the_reasons_only() {
    insta::assert_snapshot!(render(&explanation(), OutputFormat::Table, &viewer(80)));
}

#[test]
fn the_json_is_a_promise() {
    let mut short = explanation();
    short.decisions.drain(1..7);
    insta::assert_snapshot!(render(&short, OutputFormat::Json, &viewer(80)));
    assert_eq!(render(&short, OutputFormat::Ndjson, &viewer(80)).lines().count(), 2);
}

#[test]
fn nothing_to_decide_is_one_line() {
    let nothing = Explanation { complete: 50, ..Explanation::default() };
    assert_eq!(
        render(&nothing, OutputFormat::Table, &viewer(80)),
        "0 machines to finish, 50 complete. Nothing was started (--explain).\n"
    );
}
