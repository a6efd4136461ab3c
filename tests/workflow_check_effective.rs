//! Promise: the configuration's values win over the file's, `--effective` says which comes from where, and what then
//! does not fit is a warning, not an error.

use std::collections::BTreeMap;
use std::time::Duration;

use managed_tokens::steps::catalog::{SHIPPED, ShippedActions};
use managed_tokens::workflow::definition::{
    ActionOverride, Effective, Format, Origin, Overrides, Workflow, codes, effective, render, show,
};
use managed_tokens::workflow::id::StepName;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn shipped() -> Workflow {
    Workflow::parse(SHIPPED[0].1, "token-push.ron", &ShippedActions).unwrap().0
}

fn parsed(text: &str) -> Workflow {
    Workflow::parse(text, "w.ron", &ShippedActions).unwrap().0
}

/// What the Go service's shipped configuration says: push 30s, 3 retries 60s apart, 300s in all.
fn shipped_configuration() -> Overrides {
    let timeout = |secs, key: &str| Some((seconds(secs), format!("timeouts.{key}")));
    let retries = |key: &str| Some((3, format!("workerType.{key}.numRetries")));
    let sleep = |secs, key: &str| Some((seconds(secs), format!("workerType.{key}.retrySleep")));
    Overrides {
        deadline: timeout(300, "globalTimeout"),
        by_action: BTreeMap::from([
            (
                "Push".to_owned(),
                ActionOverride {
                    timeout: timeout(30, "pushTimeout"),
                    retries: retries("pushTokens"),
                    sleep: sleep(60, "pushTokens"),
                },
            ),
            ("Kinit".to_owned(), ActionOverride { timeout: timeout(25, "kerberosTimeout"), ..Default::default() }),
        ]),
    }
}

fn codes_of(effective: &Effective) -> Vec<managed_tokens::workflow::code::Code> {
    assert!(effective.warnings.iter().all(|warning| !warning.is_error()));
    effective.warnings.iter().map(|warning| warning.code).collect()
}

#[test]
fn without_overrides_the_file_stays_as_it_is() {
    let workflow = shipped();
    let effective = effective(&workflow, &Overrides::default(), "token-push.ron");
    assert_eq!(effective.workflow, workflow);
    assert_eq!(effective.warnings, vec![]);
    assert_eq!(effective.origins.deadline, Origin::File);
    assert_eq!(effective.origins.reserve, Origin::Default);
    let push = &effective.origins.steps[&StepName::new("push")];
    assert_eq!((&push.timeout, &push.times, &push.backoff), (&Origin::File, &Origin::File, &Origin::File));
    let ping = &effective.origins.steps[&StepName::new("ping")];
    assert_eq!((&ping.times, &ping.parallel), (&Origin::Default, &Origin::File));
}

#[test]
fn the_configuration_wins_for_every_step_of_an_action_and_is_named_as_the_origin() {
    let effective = effective(&shipped(), &shipped_configuration(), "token-push.ron");
    let step = |name: &str| effective.workflow.steps.iter().find(|step| step.name.as_str() == name).unwrap();
    assert_eq!(step("kinit").timeout, seconds(25));
    assert_eq!(step("kinit").retry.times, 2, "the file's, as the configuration does not say");
    assert_eq!(step("push").retry.times, 3);
    assert_eq!(step("push").retry.backoff, (seconds(60), seconds(60)));
    assert_eq!(step("ping").timeout, seconds(10));
    let push = &effective.origins.steps[&StepName::new("push")];
    assert_eq!(push.timeout, Origin::Configuration("timeouts.pushTimeout".into()));
    assert_eq!(push.times, Origin::Configuration("workerType.pushTokens.numRetries".into()));
    assert_eq!(push.backoff, Origin::Configuration("workerType.pushTokens.retrySleep".into()));
}

#[test]
fn configured_retries_that_cannot_fit_are_a_warning_at_the_step() {
    let effective = effective(&shipped(), &shipped_configuration(), "token-push.ron");
    assert_eq!(codes_of(&effective), [codes::RETRIES_DO_NOT_FIT]);
    insta::assert_snapshot!(render(&effective.warnings, false));
}

#[test]
fn a_reserve_that_the_file_does_not_give_follows_the_configured_deadline() {
    let overrides = Overrides { deadline: Some((seconds(250), "timeouts.globalTimeout".into())), ..Default::default() };
    let effective = effective(&shipped(), &overrides, "token-push.ron");
    assert_eq!((effective.workflow.deadline, effective.workflow.reserve), (seconds(250), seconds(25)));
    assert_eq!(codes_of(&effective), []);
}

#[test]
fn finally_steps_that_do_not_fit_any_more_are_a_warning() {
    let overrides = Overrides { deadline: Some((seconds(200), "timeouts.globalTimeout".into())), ..Default::default() };
    let effective = effective(&shipped(), &overrides, "token-push.ron");
    assert_eq!(effective.workflow.reserve, seconds(20));
    assert_eq!(codes_of(&effective), [codes::FINALLY_DOES_NOT_FIT]);
    assert_eq!(effective.warnings[0].help.as_deref(), Some("the configuration sets timeouts.globalTimeout"));
}

#[test]
fn a_given_reserve_stays_unless_it_would_leave_no_time() {
    let text = SHIPPED[0].1.replace("deadline: \"5m\",", "deadline: \"5m\", reserve: \"1m\",");
    let deadline = |secs| Overrides { deadline: Some((seconds(secs), "here".into())), ..Default::default() };
    let stays = effective(&parsed(&text), &deadline(280), "w.ron");
    assert_eq!((stays.workflow.reserve, stays.origins.reserve.clone()), (seconds(60), Origin::File));
    assert_eq!(codes_of(&stays), []);
    let goes = effective(&parsed(&text), &deadline(60), "w.ron");
    assert_eq!((goes.workflow.reserve, goes.origins.reserve.clone()), (seconds(6), Origin::Default));
    assert!(codes_of(&goes).contains(&codes::RESERVE), "{}", render(&goes.warnings, false));
}

#[test]
fn a_configuration_that_shortens_a_step_can_only_help() {
    let short = ActionOverride { timeout: Some((seconds(1), "here".into())), ..Default::default() };
    let overrides = Overrides { deadline: None, by_action: BTreeMap::from([("Push".to_owned(), short)]) };
    assert_eq!(codes_of(&effective(&shipped(), &overrides, "w.ron")), []);
}

#[test]
fn a_workflow_is_drawn_as_text() {
    let effective = effective(&shipped(), &Overrides::default(), "token-push.ron");
    insta::assert_snapshot!(show(&effective, &ShippedActions, Format::Text, false));
}

#[test]
fn the_effective_drawing_says_where_each_value_comes_from() {
    let effective = effective(&shipped(), &shipped_configuration(), "token-push.ron");
    insta::assert_snapshot!(show(&effective, &ShippedActions, Format::Text, true));
}

#[test]
fn a_workflow_is_drawn_as_mermaid_and_dot() {
    let effective = effective(&shipped(), &Overrides::default(), "token-push.ron");
    insta::assert_snapshot!("mermaid", show(&effective, &ShippedActions, Format::Mermaid, false));
    insta::assert_snapshot!("dot", show(&effective, &ShippedActions, Format::Dot, false));
}
