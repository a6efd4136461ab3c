use super::super::output::Style;
use super::*;
use crate::cli::samples::{
    at, attempt, bad, before_push, by, cut_off, good, healthy, healthy_on, healthy_services, machine, not_attempted,
    open, partial, refused, resumed, run_id, single, state, step, subject, target, timed_out, unauthenticated_machine,
    view, viewer, waiting, without_work,
};
use crate::workflow::action::{Class, Failure, Success};
use crate::workflow::code::Code;
use crate::workflow::definition::{ForEach, Mode};
use crate::workflow::event::{Fact, MachineEnd, RunCreated, SessionEnd};
use crate::workflow::id::WorkflowName;
use crate::workflow::run::AttemptRecord;

fn shown(view: &RunView, options: &ShowOptions, width: usize) -> String {
    render(view, options, OutputFormat::Table, &viewer(width))
}

fn plainly(view: &RunView) -> String {
    shown(view, &ShowOptions::default(), Style::UNLIMITED)
}

fn partial_view() -> RunView {
    let mut view = view(partial());
    let node = TargetName::new("mu2e03.fnal.gov");
    view.failing.insert((subject("mu2e_production"), Some(node)), Failing { runs: 3, since: at(-7_200_000) });
    view.failing.insert((subject("nova_production"), None), Failing { runs: 1, since: at(0) });
    view.told.insert(subject("mu2e_production"), Told::Sent { channel: "mail".to_owned(), row: 3 });
    view.told.insert(subject("nova_production"), Told::BelowLimit { row: 1, limit: 3 });
    view
}

#[test]
fn a_succeeded_run_is_told_in_three_lines() {
    insta::assert_snapshot!(plainly(&view(state(RunStatus::Succeeded, Some(7_900), healthy_services(50)))));
}

#[test]
fn a_partial_run_names_each_failure_its_reason_and_the_next_command() {
    insta::assert_snapshot!(plainly(&partial_view()));
}

#[test]
fn a_partial_run_fits_80_columns_but_for_commands() {
    let text = shown(&partial_view(), &ShowOptions::default(), 80);
    for line in text.lines().filter(|line| !line.contains("next: ") && !line.starts_with("run ")) {
        assert!(line.chars().count() <= 80 || line.contains("   ["), "{line}");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn one_service_alone_is_shown_with_the_reasons_of_what_was_left_out() {
    let of = |name| ShowOptions { service: Some(subject(name)), ..ShowOptions::default() };
    let text = shown(&partial_view(), &of("nova_production"), 120);
    assert!(!text.contains("mu2e"), "{text}");
    insta::assert_snapshot!(text);
    let healthy = shown(&partial_view(), &of("exp07_production"), 120);
    assert!(healthy.contains("exp07_production  ok") && !healthy.contains("others"), "{healthy}");
}

#[test]
fn all_lists_the_healthy_ones() {
    let text = shown(&partial_view(), &ShowOptions { all: true, ..ShowOptions::default() }, 120);
    assert_eq!(text.lines().filter(|line| line.starts_with("exp")).count(), 48);
    assert!(!text.contains("others") && !text.contains("--all"), "{text}");
}

#[test]
fn a_failed_run_with_one_cause_tells_it_once() {
    let names = ["dune", "icarus", "mu2e", "nova", "sbnd"].map(|name| format!("{name}_production"));
    let machines = names.iter().map(|name| {
        let refused =
            Failure::new(Class::Transient, Code(33), format!("no vault token for {name}: connection refused"));
        let why = "get-vault-token failed";
        machine(
            name,
            MachineStatus::Failed,
            vec![
                single("kinit", StepStatus::Succeeded, vec![good(20, 60)]),
                single("get-vault-token", StepStatus::Failed, vec![bad(1, 61, 2_261, refused)]),
                not_attempted("store-in-credd", why),
                not_attempted("ping", why),
                not_attempted("push", why),
            ],
        )
    });
    let view = view(state(RunStatus::Failed, Some(2_400), machines.collect()));
    let text = plainly(&view);
    insta::assert_snapshot!(text);
    let all = shown(&view, &ShowOptions { all: true, ..ShowOptions::default() }, 120);
    assert_eq!(all.matches("[MT0033]").count(), 5, "{all}");
}

#[test]
fn a_timed_out_run_says_that_the_deadline_struck() {
    insta::assert_snapshot!(plainly(&view(timed_out())));
}

#[test]
fn an_interrupted_run_says_why_and_how_to_go_on() {
    let mut view = view(cut_off());
    view.owner_alive = false;
    insta::assert_snapshot!(plainly(&view));
}

#[test]
fn a_cancelled_run_says_that_it_is_final() {
    let mut cancelled = cut_off();
    cancelled.run.status = RunStatus::Cancelled;
    cancelled.run.ended_at = Some(at(2_000));
    cancelled.run.sessions[0].end = Some(SessionEnd::Cancelled);
    cancelled.run.sessions[0].ended_at = Some(at(2_000));
    let dune = cancelled.machines.get_mut(&subject("dune_production")).unwrap();
    stop_machine(dune);
    cancelled.run.tally.remove(&MachineStatus::Running);
    cancelled.run.tally.insert(MachineStatus::Interrupted, 1);
    let text = plainly(&view(cancelled));
    assert!(!text.contains("mt runs resume"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn a_running_run_shows_where_it_is() {
    insta::assert_snapshot!(plainly(&view(cut_off())));
}

#[test]
fn a_skipped_run_names_the_run_that_held_its_services() {
    let held = |name| without_work(name, MachineStatus::Skipped, Some("01k4p1m3"));
    let view = view(state(RunStatus::Skipped, Some(20), ["dune_production", "nova_production"].map(held).into()));
    insta::assert_snapshot!(plainly(&view));
}

#[test]
fn machines_without_work_are_explained_beside_those_with_some() {
    let mut machines = healthy_services(2);
    machines.push(without_work("dune_production", MachineStatus::Superseded, Some("01k4p1m3")));
    machines.push(without_work("icarus_production", MachineStatus::Gone, None));
    machines.extend((0..9).map(|n| without_work(&format!("lab{n}_x"), MachineStatus::Skipped, Some("01k4zzzz"))));
    insta::assert_snapshot!(plainly(&view(state(RunStatus::Succeeded, Some(3_000), machines))));
}

#[test]
fn a_resumed_run_shows_both_sessions() {
    let options = ShowOptions { timing: true, ..ShowOptions::default() };
    insta::assert_snapshot!(shown(&view(resumed()), &options, 120));
}

#[test]
fn timing_draws_each_step_from_first_start_to_last_end() {
    let options = ShowOptions { timing: true, service: Some(subject("mu2e_production")), ..ShowOptions::default() };
    insta::assert_snapshot!(shown(&partial_view(), &options, 120));
}

#[test]
fn a_stale_step_says_what_stands_in_and_notes_are_shown() {
    let failure = Failure::new(Class::Transient, Code(32), "no connection to vault.fnal.gov:8200");
    let note = |text: &str| Success { note: Some(text.to_owned()), detail: None };
    let stale = AttemptOutcome::Stale { success: note("the token of schedd1, valid for 5d 2h"), failure };
    let mut dune = healthy("dune_production");
    dune.status = MachineStatus::Failed;
    dune.steps[1] = single("get-vault-token", StepStatus::Stale, vec![attempt(1, 61, 2_261, stale)]);
    let mut nova = healthy("nova_production");
    let kept = AttemptOutcome::Succeeded(note("the kept file could not be replaced: permission denied"));
    nova.steps[1].targets[0].attempts = vec![attempt(1, 61, 900, kept)];
    insta::assert_snapshot!(plainly(&view(state(RunStatus::Partial, Some(3_200), vec![dune, nova]))));
}

#[test]
fn the_first_reason_is_kept_beside_the_last() {
    let mut dune = healthy("dune_production");
    dune.status = MachineStatus::Failed;
    let first = Failure::new(Class::Transient, Code(40), "dune01 closed the connection");
    let last = Failure::new(Class::Permanent, Code(44), "no space left on dune01:/tmp");
    let mut again = bad(1, 61_000, 61_300, last);
    again.session = 2;
    dune.steps[4] = step(
        "push",
        StepStatus::Failed,
        vec![target("dune01", StepStatus::Failed, vec![bad(1, 10, 20, first), again])],
    );
    let text = plainly(&view(state(RunStatus::Failed, Some(62_000), vec![dune])));
    let block: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("dune_production  push")).take(4).collect();
    assert_eq!(
        block,
        [
            "dune_production  push → dune01   failed, 2 attempts in 2 sessions, permanent   [MT0044]",
            "  first: dune01 closed the connection",
            "  last:  no space left on dune01:/tmp",
            "  next: mt explain MT0044; then  mt runs resume 01k4q8vt",
        ]
    );
}

#[test]
fn a_service_with_200_nodes_stays_on_one_page() {
    let nodes: Vec<String> = (0..200).map(|node| format!("node{node:03}.fnal.gov")).collect();
    let names: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let mut big = healthy_on("dune_production", &names);
    big.status = MachineStatus::Failed;
    let push = big.steps.last_mut().unwrap();
    push.status = StepStatus::Failed;
    for (at, node) in push.targets.iter_mut().enumerate().filter(|(at, _)| at % 15 == 7) {
        let failure = refused(&nodes[at]);
        *node = target(&nodes[at], StepStatus::Failed, vec![bad(1, 2_000, 2_300, failure)]);
    }
    let mut machines = healthy_services(3);
    machines.push(big);
    let view = view(state(RunStatus::Partial, Some(3_200), machines));
    let text = shown(&view, &ShowOptions::default(), 100);
    assert!(text.lines().count() < 25, "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn hostile_text_stays_harmless() {
    let evil = "\x1b[2J\x1b]0;owned\x07 \u{202e}txet\r\n";
    let mut failure = Failure::new(Class::Permanent, Code(43), "")
        .with_output(format!("progress 1%\rprogress 99%\n{evil}\n{}\n\n\ttabbed\n", "y".repeat(9_000)));
    failure.last = true;
    // As a store may hold it: a new one would be without it.
    failure.message = format!("{evil}{}", "long ".repeat(2_000));
    failure.next = Some(format!("look {evil}"));
    let note = Success { note: Some(format!("note {evil}")), detail: None };
    let mut dune = machine("dune\x1b[31m_production", MachineStatus::Failed, before_push(&["s"], &["n"]));
    dune.steps[0].targets[0].attempts = vec![attempt(1, 20, 60, AttemptOutcome::Succeeded(note))];
    dune.steps.push(step(
        "push",
        StepStatus::Failed,
        vec![target("no\x07de", StepStatus::Failed, vec![bad(1, 10, 20, failure)])],
    ));
    let mut state = state(RunStatus::Failed, Some(3_200), vec![dune]);
    state.run.workflow = WorkflowName::new("token\x1b-push");
    state.run.sessions[0].by.host = "mt\x1b01".to_owned();
    let mut view = view(state);
    view.told.insert(subject("dune\x1b[31m_production"), Told::Sent { channel: evil.to_owned(), row: 1 });
    for (width, options) in
        [(80, ShowOptions::default()), (Style::UNLIMITED, ShowOptions { all: true, timing: true, service: None })]
    {
        let text = shown(&view, &options, width);
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
        assert!(text.len() < 12_000, "{}", text.len());
    }
    insta::assert_snapshot!(shown(&view, &ShowOptions::default(), 80));
}

#[test]
fn the_json_of_a_run_is_a_promise() {
    let mut machines =
        vec![refused_and_cut_off(), unauthenticated_machine("nova_production"), waiting("sbnd_production")];
    machines.push(without_work("uboone_production", MachineStatus::Skipped, Some("01k4p1m3")));
    let state = state(RunStatus::Running, None, machines);
    insta::assert_snapshot!(render(&view(state), &ShowOptions::default(), OutputFormat::Json, &viewer(80)));
}

/// One attempt goes on, one was stale, one timed out.
fn refused_and_cut_off() -> Machine {
    let late = Failure::new(Class::Timeout, Code(45), "no answer within 30s");
    let down = Failure::new(Class::Transient, Code(32), "no connection");
    let stale =
        AttemptOutcome::Stale { success: Success { note: Some("kept".to_owned()), detail: None }, failure: down };
    machine(
        "dune_production",
        MachineStatus::Running,
        vec![
            single("kinit", StepStatus::Succeeded, vec![good(20, 60)]),
            single("get-vault-token", StepStatus::Stale, vec![attempt(1, 61, 900, stale)]),
            step("store-in-credd", StepStatus::Skipped, vec![]),
            step("ping", StepStatus::Pending, vec![]),
            step(
                "push",
                StepStatus::Running,
                vec![
                    target(
                        "dune01",
                        StepStatus::Running,
                        vec![bad(1, 2_000, 32_000, late), AttemptRecord { number: 2, ..open(34_000) }],
                    ),
                    target("dune02", StepStatus::Pending, vec![]),
                ],
            ),
        ],
    )
}

#[test]
fn programs_too_are_told_that_a_dead_run_is_interrupted() {
    let mut view = view(cut_off());
    view.owner_alive = false;
    let text = render(&view, &ShowOptions::default(), OutputFormat::Ndjson, &viewer(80));
    assert_eq!(text.lines().count(), 1);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["run"]["status"], "interrupted");
    assert_eq!(json["run"]["ended_at"], serde_json::Value::Null);
    let dune = json["run"]["machines"].as_array().unwrap().iter().find(|m| m["subject"] == "dune_production").unwrap();
    assert_eq!(dune["status"], "interrupted");
    assert_eq!(dune["steps"][2]["status"], "pending");
    assert_eq!(dune["steps"][2]["targets"][1]["status"], "pending");
    assert_eq!(dune["steps"][2]["targets"][1]["attempts"][0]["outcome"], "interrupted");
    assert_eq!(dune["steps"][0]["targets"][0]["name"], "-");
}

#[test]
fn steps_that_a_machine_has_not_begun_are_there_in_the_order_of_the_plan() {
    let mut state = state(RunStatus::Running, None, vec![waiting("dune_production")]);
    state.machines.get_mut(&subject("dune_production")).unwrap().steps.clear();
    let json: serde_json::Value =
        serde_json::from_str(&render(&view(state), &ShowOptions::default(), OutputFormat::Json, &viewer(80))).unwrap();
    let steps = json["run"]["machines"][0]["steps"].as_array().unwrap();
    let names: Vec<&str> = steps.iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["kinit", "get-vault-token", "store-in-credd", "ping", "push"]);
    let targets: Vec<usize> = steps.iter().map(|step| step["targets"].as_array().unwrap().len()).collect();
    assert_eq!(targets, [1, 1, 0, 0, 0]);
}

fn history() -> Vec<Event> {
    let dune = || subject("dune_production");
    let push = || StepName::new("push");
    let node = || TargetName::new("dune01");
    let state = partial();
    let facts = vec![
        Fact::RunCreated(RunCreated {
            id: run_id("01k4q8vt"),
            workflow: WorkflowName::new("token-push"),
            definition: "0".repeat(64),
            for_each: ForEach::Service,
            mode: Mode::Normal,
            selection: state.run.selection,
            subjects: vec![dune(), subject("nova_production")],
            steps: vec![],
            finally: vec![],
        }),
        Fact::SessionStarted(by("cron", 4711)),
        Fact::MachineSkipped { subject: subject("nova_production"), held_by: Some(run_id("01k4p1m3")) },
        Fact::MachineStarted { subject: dune() },
        Fact::StepSkipped { subject: Some(dune()), step: StepName::new("ping"), why: "mode test".to_owned() },
        Fact::StepStarted {
            subject: Some(dune()),
            step: push(),
            targets: (1..=9).map(|n| TargetName::new(format!("dune{n:02}"))).collect(),
        },
        Fact::AttemptStarted { subject: Some(dune()), step: push(), target: node(), number: 1 },
        Fact::AttemptEnded {
            subject: Some(dune()),
            step: push(),
            target: node(),
            outcome: AttemptOutcome::Failed(refused("dune01")),
            retry: true,
        },
        Fact::AttemptEnded {
            subject: Some(dune()),
            step: push(),
            target: node(),
            outcome: AttemptOutcome::Succeeded(Success::default()),
            retry: false,
        },
        Fact::TargetGone { subject: Some(dune()), step: push(), target: TargetName::new("dune\x1b07") },
        Fact::MachineEnded { subject: dune(), how: MachineEnd::Done },
        Fact::StepCut { subject: Some(dune()), step: push() },
        Fact::StepNotAttempted { subject: None, step: StepName::new("notify"), why: "stopped by a signal".to_owned() },
        Fact::SessionEnded { how: SessionEnd::Interrupted },
        Fact::MachineGone { subject: dune() },
        Fact::MachineSuperseded { subject: dune(), by: run_id("01k4p1m3") },
        Fact::RunSuperseded { by: run_id("01k4p1m3") },
        Fact::RunCancelled,
    ];
    let events = facts.into_iter().enumerate();
    events.map(|(seq, fact)| Event { seq: seq as u64, at: at(seq as i64 * 1_250), session: 1, fact }).collect()
}

#[test]
fn a_history_has_a_line_for_every_kind_of_fact() {
    insta::assert_snapshot!(render_events(
        &history(),
        &ShowOptions::default(),
        OutputFormat::Table,
        &viewer(Style::UNLIMITED)
    ));
}

#[test]
fn a_history_of_one_service_leaves_out_the_others() {
    let options = ShowOptions { service: Some(subject("nova_production")), ..ShowOptions::default() };
    let text = render_events(&history(), &options, OutputFormat::Table, &viewer(100));
    assert!(!text.contains("dune") && text.contains("nova_production"), "{text}");
    assert!(text.contains("session 1 began"), "{text}");
}

#[test]
fn the_json_of_a_history_is_a_promise() {
    let events = &history()[6..8];
    insta::assert_snapshot!(render_events(events, &ShowOptions::default(), OutputFormat::Json, &viewer(80)));
    let lines = render_events(events, &ShowOptions::default(), OutputFormat::Ndjson, &viewer(80));
    assert_eq!(lines.lines().count(), 2);
    assert!(lines.starts_with("{\"schema_version\":1,\"seq\":6,"), "{lines}");
}
