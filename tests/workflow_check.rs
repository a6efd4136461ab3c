//! Promise: `mt workflow check` names every mistake of a workflow file, with its place and what was expected.
//! One test per code: each changes one thing in a good file and expects exactly that mistake, at that place.

use managed_tokens::steps::catalog::{SHIPPED, ShippedActions};
use managed_tokens::workflow::code::Code;
use managed_tokens::workflow::definition::{
    Diagnostic, ForEach, Interrupted, MOST_BYTES, Mode, OnFailure, Overlap, Per, Severity, Workflow, codes, render,
};

const GOOD: &str = r#"Workflow(
    name: "small",
    for_each: Service,
    deadline: "5m",
    reserve: "30s",
    overlap: Skip,
    steps: [
        Step(name: "kinit", action: Kinit, timeout: "20s"),
        Step(name: "token", action: GetVaultToken, timeout: "1m", parallel: 8, retry: Retry(times: 1, backoff: ("1s", "2s"))),
        Step(name: "push", action: Push, per: Node, timeout: "30s", counts_as: Push, when: [Normal]),
        Step(name: "hook", action: Exec(command: ["/bin/true"], needs: [Ticket]), timeout: "5s"),
    ],
    finally: [
        Step(name: "notify", action: Notify, timeout: "15s"),
    ],
)
"#;

fn diagnostics(text: &str) -> Vec<Diagnostic> {
    match Workflow::parse(text, "w.ron", &ShippedActions) {
        Ok((_, warnings)) => {
            assert!(warnings.iter().all(|warning| warning.severity == Severity::Warning));
            warnings
        }
        Err(diagnostics) => {
            assert!(diagnostics.iter().any(Diagnostic::is_error), "refused without a reason");
            diagnostics
        }
    }
}

fn changed(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "{from} must stand in the good file once");
    GOOD.replace(from, to)
}

/// The change makes exactly one mistake, at `marked` (which stands once in the changed text).
#[track_caller]
fn one_mistake(from: &str, to: &str, code: Code, marked: &str, words: &str) {
    let text = changed(from, to);
    let found = diagnostics(&text);
    let [diagnostic] = &found[..] else { panic!("expected one mistake:\n{}", render(&found, false)) };
    assert_eq!(diagnostic.code, code, "{}", render(&found, false));
    assert!(diagnostic.message.contains(words), "{}", render(&found, false));
    let offset = text.find(marked).expect("the marked text stands in the changed file");
    let line = text[..offset].matches('\n').count() + 1;
    let column = text[..offset].chars().rev().take_while(|c| *c != '\n').count() + 1;
    assert_eq!((diagnostic.line, diagnostic.column), (Some(line), Some(column)), "{}", render(&found, false));
    assert!(render(&found, false).contains('^'));
}

#[test]
fn a_good_file_has_no_mistake() {
    assert_eq!(diagnostics(GOOD), vec![]);
}

#[test]
fn a_missing_comma_is_named_and_hides_nothing() {
    one_mistake(
        "for_each: Service,",
        "for_each: Service",
        codes::SYNTAX,
        "deadline",
        "expected a comma before deadline",
    );
    let text = changed("for_each: Service,", "for_each: Servic").replace("\"1m\"", "1m").replace("Ticket", "Tickt");
    let codes: Vec<_> = diagnostics(&text).iter().map(|d| d.code).collect();
    assert_eq!(codes, [codes::UNKNOWN_VALUE, codes::SYNTAX, codes::SYNTAX, codes::NEEDS]);
}

#[test]
fn a_duration_without_quotes_is_named_as_such() {
    one_mistake("\"20s\"", "20s", codes::SYNTAX, "20s", "neither a number nor a text");
    one_mistake("\"20s\"", "1m30s", codes::SYNTAX, "1m30s", "neither a number nor a text");
}

#[test]
fn a_bracket_left_open_is_named() {
    let found = diagnostics(GOOD.trim_end().strip_suffix(')').unwrap());
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].code, found[0].line), (codes::SYNTAX, Some(16)), "{found:?}");
}

#[test]
fn an_unknown_field_is_named_and_the_near_one_offered() {
    one_mistake("parallel: 8", "paralel: 8", codes::UNKNOWN_FIELD, "paralel", "a step has no field `paralel`");
    one_mistake("overlap: Skip", "colour: Red", codes::UNKNOWN_FIELD, "colour", "a workflow has no field `colour`");
    one_mistake("times: 1", "times: 1, jitter: 3", codes::UNKNOWN_FIELD, "jitter", "Retry has no field `jitter`");
    one_mistake("needs: [", "need: [", codes::UNKNOWN_FIELD, "need:", "Exec has no field `need`");
}

#[test]
fn the_value_of_a_misspelt_field_is_checked_too_and_it_is_not_called_missing() {
    let found = diagnostics(&changed("deadline: \"5m\"", "dedline: \"5 m\""));
    let codes: Vec<_> = found.iter().map(|d| d.code).collect();
    assert_eq!(codes, [codes::UNKNOWN_FIELD, codes::BAD_DURATION], "{}", render(&found, false));
}

#[test]
fn an_unknown_word_is_named_with_the_possible_ones() {
    one_mistake("for_each: Service", "for_each: Host", codes::UNKNOWN_VALUE, "Host", "expected Service or Account");
    one_mistake("overlap: Skip", "overlap: Queue", codes::UNKNOWN_VALUE, "Queue", "expected Skip or Wait(\"2m\")");
    one_mistake("when: [Normal]", "when: [Fast]", codes::UNKNOWN_VALUE, "Fast", "Test, Onboard or OnboardPush");
    one_mistake("per: Node", "per: Rack", codes::UNKNOWN_VALUE, "Rack", "expected Subject, Credd or Node");
    one_mistake(
        "counts_as: Push",
        "counts_as: Twice",
        codes::UNKNOWN_VALUE,
        "Twice",
        "expected Setup, Push or Nothing",
    );
}

#[test]
fn an_unknown_action_is_named_and_no_later_step_is_blamed_for_it() {
    one_mistake("action: Kinit", "action: Kinitt", codes::UNKNOWN_ACTION, "Kinitt", "unknown action Kinitt");
}

#[test]
fn two_steps_of_one_name_are_found_across_both_lists() {
    one_mistake(
        "\"token\"",
        "\"kinit\"",
        codes::DUPLICATE_NAME,
        "\"kinit\", action: Get",
        "two steps are named \"kinit\"",
    );
    one_mistake("\"notify\"", "\"push\"", codes::DUPLICATE_NAME, "\"push\", action: Notify", "two steps are named");
}

#[test]
fn a_step_whose_needs_nothing_provides_is_found() {
    one_mistake(
        "action: GetVaultToken",
        "action: Exec(command: [\"a\"])",
        codes::NEEDS,
        "Push, per",
        "needs VaultToken",
    );
    one_mistake("needs: [Ticket]", "needs: [Tickt]", codes::NEEDS, "Exec", "needs Tickt");
}

#[test]
fn needs_are_looked_at_in_every_mode() {
    one_mistake(
        "action: Kinit,",
        "action: Kinit, when: [Normal, Test],",
        codes::NEEDS,
        "GetVaultToken",
        "needs Ticket, and no step before it provides it in mode Onboard and OnboardPush",
    );
}

#[test]
fn what_an_exec_step_provides_counts() {
    let text = changed("action: Kinit,", "action: Exec(command: [\"a\"], provides: [Ticket]),");
    assert_eq!(diagnostics(&text), vec![]);
}

#[test]
fn moving_push_before_store_in_credd_is_a_legal_edit() {
    let shipped = SHIPPED[0].1;
    let store = shipped.find("        Step(\n            name: \"store-in-credd\"").unwrap();
    let ping = shipped.find("        // Nodes that do not answer").unwrap();
    let end = shipped.find("    ],\n    // Once for the run").unwrap();
    let text = [&shipped[..store], &shipped[ping..end], &shipped[store..ping], &shipped[end..]].concat();
    let (workflow, warnings) = Workflow::parse(&text, "w.ron", &ShippedActions).unwrap();
    assert_eq!(warnings, vec![]);
    let names: Vec<_> = workflow.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["kinit", "get-vault-token", "ping", "push", "store-in-credd"]);
}

#[test]
fn a_bad_duration_is_named_with_what_is_wrong_with_it() {
    one_mistake("\"20s\"", "\"20\"", codes::BAD_DURATION, "\"20\"", "a unit is missing");
    one_mistake("\"20s\"", "\"0s\"", codes::BAD_DURATION, "\"0s\"", "longer than nothing");
    one_mistake("\"20s\"", "\"-2s\"", codes::BAD_DURATION, "\"-2s\"", "negative");
    one_mistake("\"1s\",", "\"one\",", codes::BAD_DURATION, "\"one\"", "a number is missing");
    one_mistake("overlap: Skip", "overlap: Wait(\"2 m\")", codes::BAD_DURATION, "\"2 m\"", "unknown unit");
}

#[test]
fn a_missing_field_is_named() {
    one_mistake("    name: \"small\",\n", "", codes::MISSING_FIELD, "Workflow", "the workflow has no `name`");
    one_mistake("    for_each: Service,\n", "", codes::MISSING_FIELD, "Workflow", "no `for_each`");
    one_mistake("    deadline: \"5m\",\n", "", codes::MISSING_FIELD, "Workflow", "no `deadline`");
    one_mistake("name: \"hook\", ", "", codes::MISSING_FIELD, "Step(action: Exec", "no `name`");
    one_mistake(", timeout: \"5s\"", "", codes::MISSING_FIELD, "Step(name: \"hook\"", "step \"hook\" has no `timeout`");
    one_mistake("action: Kinit, ", "", codes::MISSING_FIELD, "Step(name: \"kinit\"", "step \"kinit\" has no `action`");
    one_mistake("times: 1, ", "", codes::MISSING_FIELD, "Retry", "Retry has no `times`");
    one_mistake("command: [\"/bin/true\"], ", "", codes::MISSING_FIELD, "(needs", "Exec has no `command`");
    let found = diagnostics("Workflow(name: \"a\", for_each: Service, deadline: \"5m\")");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].code, codes::MISSING_FIELD);
}

#[test]
fn a_bad_name_is_named() {
    for bad in ["Push", "9lives", "a_b", "-a", "", "é", "a.b", "a/b", &"a".repeat(41)] {
        let bad = format!("\"{bad}\"");
        one_mistake("\"push\"", &bad, codes::BAD_NAME, &format!("{bad}, action: Push"), "expected a lower-case letter");
    }
    one_mistake("\"small\"", "\"../small\"", codes::BAD_NAME, "\"../small\"", "expected a lower-case letter");
}

#[test]
fn tries_that_cannot_fit_are_an_error_with_the_sum() {
    one_mistake(
        "\"30s\", counts",
        "\"5m\", counts",
        codes::RETRIES_DO_NOT_FIT,
        "\"5m\", counts",
        "can take 5m, more than the 4m30s",
    );
    one_mistake(
        "times: 1, backoff: (\"1s\", \"2s\")",
        "times: 4, backoff: (\"1s\", \"2s\")",
        codes::RETRIES_DO_NOT_FIT,
        "\"1m\"",
        "5 x 1m + pauses of 7s = 5m7s",
    );
    one_mistake(
        "times: 1, backoff: (\"1s\", \"2s\")",
        "times: 3, backoff: (\"11s\", \"11s\")",
        codes::RETRIES_DO_NOT_FIT,
        "\"1m\"",
        "4 x 1m + 3 x 11s = 4m33s",
    );
}

#[test]
fn tries_that_just_fit_are_fine() {
    assert_eq!(
        diagnostics(&changed("times: 1, backoff: (\"1s\", \"2s\")", "times: 3, backoff: (\"10s\", \"10s\")")),
        vec![]
    );
    assert_eq!(diagnostics(&changed("\"30s\", counts", "\"4m30s\", counts")), vec![]);
}

#[test]
fn a_thousand_retries_are_summed_without_trouble() {
    one_mistake("times: 1,", "times: 1000,", codes::RETRIES_DO_NOT_FIT, "\"1m\"", "1001 x 1m");
}

#[test]
fn finally_steps_must_fit_into_the_reserve_with_seven_seconds_to_spare() {
    one_mistake("\"15s\"", "\"24s\"", codes::FINALLY_DOES_NOT_FIT, "\"30s\",\n    overlap", "can take 31s");
    assert_eq!(diagnostics(&changed("\"15s\"", "\"23s\"")), vec![]);
    one_mistake(
        "    reserve: \"30s\",\n",
        "    reserve: \"20s\",\n",
        codes::FINALLY_DOES_NOT_FIT,
        "\"20s\",\n",
        "can take 22s",
    );
    one_mistake(
        "\"15s\"",
        "\"10s\", retry: Retry(times: 1, backoff: (\"4s\", \"4s\"))",
        codes::FINALLY_DOES_NOT_FIT,
        "\"30s\",\n    overlap",
        "can take 31s",
    );
}

#[test]
fn finally_steps_of_different_modes_do_not_add_up() {
    let two = "\"15s\", when: [Normal]),\n        Step(name: \"other\", action: Notify, when: [Test], timeout: \"15s\"";
    assert_eq!(diagnostics(&changed("\"15s\"", two)), vec![]);
}

#[test]
fn a_workflow_without_steps_is_refused() {
    let found = diagnostics("Workflow(name: \"a\", for_each: Service, deadline: \"5m\", steps: [])");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].code, found[0].column), (codes::NO_STEPS, Some(63)));
}

#[test]
fn numbers_have_limits() {
    one_mistake("parallel: 8", "parallel: 0", codes::BAD_NUMBER, "0, retry", "a whole number from 1 to 10000");
    one_mistake("parallel: 8", "parallel: 10001", codes::BAD_NUMBER, "10001", "found 10001");
    one_mistake("parallel: 8", "parallel: -8", codes::BAD_NUMBER, "-8", "found -8");
    one_mistake("times: 1", "times: 1001", codes::BAD_NUMBER, "1001", "from 0 to 1000");
}

#[test]
fn a_step_fans_out_only_as_its_action_can() {
    one_mistake(
        "action: Kinit,",
        "action: Kinit, per: Node,",
        codes::WRONG_PER,
        "Node, timeout: \"20s\"",
        "Kinit cannot work per Node",
    );
    one_mistake("action: Notify,", "action: Notify, per: Credd,", codes::WRONG_PER, "Credd", "expected Subject");
}

#[test]
fn an_action_stands_only_in_its_own_list() {
    one_mistake("action: Notify", "action: Ping", codes::WRONG_PLACE, "Ping", "Ping cannot stand in `finally`");
    one_mistake("action: Push", "action: Notify", codes::WRONG_PLACE, "Notify, per", "only in `finally`");
}

#[test]
fn a_field_given_twice_is_found() {
    one_mistake("parallel: 8,", "parallel: 8, parallel: 9,", codes::DUPLICATE_FIELD, "parallel: 9", "given twice");
    one_mistake(
        "overlap: Skip,",
        "overlap: Skip, deadline: \"6m\",",
        codes::DUPLICATE_FIELD,
        "deadline: \"6m\"",
        "given twice",
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_named_with_what_was_expected() {
    one_mistake(
        "\"20s\"",
        "20",
        codes::WRONG_FORM,
        "20)",
        "expected a duration in quotes, such as \"20s\" or \"1m30s\", found a number, 20",
    );
    one_mistake("\"push\"", "push", codes::WRONG_FORM, "push", "expected a text in quotes, found a word, push");
    one_mistake("[Normal]", "Normal", codes::WRONG_FORM, "Normal", "expected a list in [ ], found a word");
    one_mistake("action: Kinit", "action: \"Kinit\"", codes::WRONG_FORM, "\"Kinit\"", "without quotes, found a text");
    one_mistake("parallel: 8", "parallel: \"8\"", codes::WRONG_FORM, "\"8\"", "found a text, \"8\"");
    one_mistake("parallel: 8", "parallel: 8.5", codes::WRONG_FORM, "8.5", "found a number, 8.5");
    one_mistake("overlap: Skip", "overlap: Wait", codes::WRONG_FORM, "Wait", "Wait needs a duration");
    one_mistake("overlap: Skip", "overlap: Skip(\"2m\")", codes::WRONG_FORM, "Skip", "Skip takes no arguments");
    one_mistake(
        "overlap: Skip",
        "overlap: Wait(\"1m\", \"2m\")",
        codes::WRONG_FORM,
        "(\"1m\"",
        "expected Skip or Wait",
    );
    one_mistake("overlap: Skip", "interrupted: ResumeWithin(5)", codes::WRONG_FORM, "5)", "expected a duration");
    one_mistake("(\"1s\", \"2s\")", "(\"1s\", \"2s\", \"3s\")", codes::WRONG_FORM, "(\"1s\"", "found 3 values");
    one_mistake("(\"1s\", \"2s\")", "\"1s\"", codes::WRONG_FORM, "\"1s\"", "expected the first and the longest pause");
    one_mistake("[Ticket]", "[\"Ticket\"]", codes::WRONG_FORM, "\"Ticket\"", "without quotes");
    one_mistake("[\"/bin/true\"]", "\"/bin/true\"", codes::WRONG_FORM, "\"/bin/true\"", "expected a list");
    one_mistake("Retry(", "Again(", codes::WRONG_FORM, "Again", "expected Retry(…), found Again");
    one_mistake("Step(name: \"hook\"", "Stp(name: \"hook\"", codes::WRONG_FORM, "Stp", "expected Step(…), found Stp");
}

#[test]
fn something_else_than_a_workflow_is_refused() {
    for text in [
        "",
        "   \n// nothing\n",
        "42",
        "\"text\"",
        "[]",
        "{}",
        "Flow(name: \"a\")",
        "Workflow",
        "{\"experiments\": {}}",
    ] {
        let found = diagnostics(text);
        assert!(matches!(found[0].code, codes::WRONG_FORM | codes::SYNTAX), "{text:?}: {}", render(&found, false));
        assert_eq!(found.len(), 1, "{text:?}: {}", render(&found, false));
    }
}

#[test]
fn pauses_must_not_shrink() {
    one_mistake(
        "(\"1s\", \"2s\")",
        "(\"3s\", \"2s\")",
        codes::BACKOFF,
        "(\"3s\"",
        "the first pause, 3s, is longer than the longest, 2s",
    );
}

#[test]
fn the_reserve_must_leave_time_for_the_steps() {
    one_mistake(
        "reserve: \"30s\"",
        "reserve: \"5m\"",
        codes::RESERVE,
        "\"5m\",\n    overlap",
        "leaves nothing of the deadline",
    );
}

#[test]
fn arguments_are_given_where_they_are_taken() {
    one_mistake("action: Kinit", "action: Kinit(realm: \"A\")", codes::ARGUMENTS, "(realm", "Kinit takes no arguments");
    one_mistake(
        "Exec(command: [\"/bin/true\"], needs: [Ticket])",
        "Exec",
        codes::ARGUMENTS,
        "Exec",
        "Exec needs arguments",
    );
    one_mistake("[\"/bin/true\"]", "[]", codes::ARGUMENTS, "[], needs", "names no program");
    one_mistake("[\"/bin/true\"]", "[\"\", \"x\"]", codes::ARGUMENTS, "\"\"", "names no program");
}

#[test]
fn a_huge_file_and_deep_brackets_are_refused() {
    let found = diagnostics(&format!("{GOOD}//{}", "x".repeat(MOST_BYTES)));
    assert_eq!((found.len(), found[0].code), (1, codes::TOO_LARGE));
    for bracket in ["(", "[", "{a:", "Some(", "Step(a:", "[("] {
        let found = diagnostics(&GOOD.replace("[Normal]", &bracket.repeat(100_000)));
        assert_eq!((found.len(), found[0].code), (1, codes::TOO_LARGE), "{bracket}");
    }
}

#[test]
fn a_step_that_would_never_run_is_found() {
    one_mistake("[Normal]", "[]", codes::WHEN, "[])", "never runs");
    one_mistake("[Normal]", "[Normal, Test, Normal]", codes::WHEN, "Normal])", "names Normal twice");
}

#[test]
fn a_step_feeds_only_a_counter_it_can_feed() {
    one_mistake("\"20s\"", "\"20s\", counts_as: Push", codes::COUNTER, "Push),", "counts for each target");
    one_mistake("\"15s\"", "\"15s\", counts_as: Setup", codes::COUNTER, "Setup", "cannot feed a counter");
}

#[test]
fn an_action_works_only_for_its_kind_of_subject() {
    let text = "Workflow(name: \"a\", for_each: Account, deadline: \"5m\", steps: [Step(name: \"k\", action: Kinit, timeout: \"1s\")])";
    let found = diagnostics(text);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].code, codes::WRONG_SUBJECT);
}

#[test]
fn waiting_longer_than_the_run_is_a_warning() {
    one_mistake("overlap: Skip", "overlap: Wait(\"5m\")", codes::WAIT_DOES_NOT_FIT, "Wait", "uses up the 4m30s");
    assert!(Workflow::parse(&changed("overlap: Skip", "overlap: Wait(\"5m\")"), "w.ron", &ShippedActions).is_ok());
}

#[test]
fn a_file_with_many_mistakes_has_all_of_them_named() {
    let text = include_str!("fixtures/workflows/a-dozen-mistakes.ron");
    let found = Workflow::parse(text, "a-dozen-mistakes.ron", &ShippedActions).expect_err("it is full of mistakes");
    insta::assert_snapshot!(render(&found, false));
}

#[test]
fn colour_is_only_there_when_asked_for() {
    let found = diagnostics(&changed("parallel: 8", "parallel: 0"));
    assert!(!render(&found, false).contains('\u{1b}'));
    let painted = render(&found, true);
    let plain = regex::Regex::new("\u{1b}\\[[0-9;]*m").unwrap().replace_all(&painted, "").into_owned();
    assert_ne!(painted, plain);
    assert_eq!(plain, render(&found, false));
}

#[test]
fn no_control_character_of_a_file_reaches_the_terminal() {
    let text = changed("\"push\"", "\"\u{1b}[2J\u{202e}\u{7}\"");
    let found = diagnostics(&text);
    let shown = render(&found, false) + &serde_json::to_string(&found).unwrap();
    assert!(!shown.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{shown}");
}

#[test]
fn what_the_shipped_file_does_not_say_has_the_documented_default() {
    let text = "Workflow(name: \"a\", for_each: Service, deadline: \"10m\", steps: [
        Step(name: \"kinit\", action: Kinit, timeout: \"20s\"),
        Step(name: \"token\", action: GetVaultToken, timeout: \"20s\", retry: Retry(times: 1)),
        Step(name: \"push\", action: Push, timeout: \"20s\"),
    ], finally: [Step(name: \"notify\", action: Notify, timeout: \"5s\")])";
    let (workflow, warnings) = Workflow::parse(text, "w.ron", &ShippedActions).unwrap();
    assert_eq!(warnings, vec![]);
    insta::assert_debug_snapshot!(Workflow { source: "".into(), ..workflow });
}

#[test]
fn the_shipped_file_is_fine_and_says_what_it_should() {
    for (name, text) in SHIPPED {
        let (workflow, warnings) = Workflow::parse(text, name, &ShippedActions).unwrap();
        assert_eq!(warnings, vec![]);
        assert_eq!(workflow.name.as_str(), *name);
        assert_eq!(&*workflow.source, *text);
    }
    let (workflow, _) = Workflow::parse(SHIPPED[0].1, "token-push", &ShippedActions).unwrap();
    assert_eq!((workflow.for_each, workflow.overlap), (ForEach::Service, Overlap::Skip));
    assert_eq!(workflow.deadline.as_secs(), 300);
    assert_eq!(workflow.reserve.as_secs(), 30);
    assert!(matches!(workflow.interrupted, Interrupted::ResumeWithin(age) if age.as_secs() == 1800));
    let push = workflow.steps.iter().find(|step| step.name.as_str() == "push").unwrap();
    assert_eq!((push.per, push.on_failure, push.parallel), (Per::Node, OnFailure::Continue, 64));
    assert_eq!(push.when, [Mode::Normal, Mode::OnboardPush]);
    assert_eq!(push.retry.times, 3);
}

#[test]
fn comments_and_spelling_of_ron_do_not_matter() {
    let text = changed(
        "overlap: Skip,",
        "/* a /* nested */ one */ overlap // why\n : /* x */ Wait /* y */ ( \"1m\" /* z */ , ) // end\n ,",
    );
    let text = format!("#![enable(implicit_some)]\n// first\n{text}// last");
    let (workflow, _) = Workflow::parse(&text, "w.ron", &ShippedActions).unwrap();
    assert_eq!(workflow.overlap, Overlap::Wait(std::time::Duration::from_secs(60)));
}
