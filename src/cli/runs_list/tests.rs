use super::*;
use crate::cli::output::Style;
use crate::cli::samples::{
    at, by, cut_off, healthy_services, machine, partial, resumed, row, run_id, state, subject, timed_out,
    unauthenticated_machine, viewer, waiting, without_work,
};
use crate::workflow::definition::ForEach;
use crate::workflow::event::SessionStarted;

/// One run of every status, newest first, each an hour older than the one before.
fn every_status() -> Vec<RunRow> {
    let mut rows = vec![
        row(
            "01k4q8vt",
            &state(RunStatus::Running, None, {
                let mut machines = healthy_services(3);
                machines.push(machine("dune_production", MachineStatus::Running, vec![]));
                machines.push(waiting("nova_production"));
                machines
            }),
        ),
        row("01k4p1m3", &partial()),
        row("01k4n000", &state(RunStatus::Succeeded, Some(7_900), healthy_services(50))),
        row("01k4m7aa", &state(RunStatus::Failed, Some(900), vec![unauthenticated_machine("nova_production")])),
        row("01k4kz0c", &timed_out()),
        row("01k4jx9e", &cut_off()),
        row("01k4jw00", &cut_off()),
        row("01k4jv00", &cut_off()),
        row("01k4jtz0", &{
            let mut stopped = cut_off();
            stopped.run.status = RunStatus::Interrupted;
            stopped.run.sessions[0].end = Some(SessionEnd::Interrupted);
            stopped.run.sessions[0].ended_at = Some(at(2_000));
            stopped.run.ended_at = Some(at(2_000));
            stopped
        }),
        row("01k4jt00", &{
            let mut cancelled = timed_out();
            cancelled.run.status = RunStatus::Cancelled;
            cancelled
        }),
        row("01k4js00", &{
            let held = |name| without_work(name, MachineStatus::Skipped, Some("01k4p1m3"));
            state(RunStatus::Skipped, Some(20), ["dune_production", "nova_production"].map(held).into())
        }),
        row("01k4jr00", &{
            let newer = |name| without_work(name, MachineStatus::Superseded, Some("01k4p1m3"));
            state(RunStatus::Superseded, Some(20), ["dune_production", "nova_production"].map(newer).into())
        }),
        row("01k4jq00", &resumed()),
        row("01k4h000", &{
            let mut ferry = state(RunStatus::Succeeded, Some(840), healthy_services(50));
            ferry.run.workflow = WorkflowName::new("ferry-refresh");
            ferry
        }),
    ];
    for (hours, row) in rows.iter_mut().enumerate() {
        let shift = jiff::SignedDuration::from_hours(i64::try_from(hours).unwrap());
        row.run.started_at -= shift;
        row.run.ended_at = row.run.ended_at.map(|end| end - shift);
    }
    rows[5].owner_alive = false;
    rows[5].run.sessions[0].by.boot_id = "an older boot".to_owned();
    rows[6].owner_alive = false;
    rows[7].owner_alive = false;
    rows[7].run.sessions[0].by = SessionStarted { host: "mt02".to_owned(), ..by("cron", 815) };
    rows[13].run.for_each = ForEach::Account;
    rows[13].remark = Some("1 uid changed".to_owned());
    rows
}

#[test]
fn the_list_answers_for_every_status_and_names_the_next_command() {
    insta::assert_snapshot!(render(&every_status(), OutputFormat::Table, &viewer(Style::UNLIMITED)));
}

#[test]
fn a_narrow_list_fits_80_columns() {
    let text = render(&every_status(), OutputFormat::Table, &viewer(80));
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn the_json_of_the_list_is_a_promise() {
    let rows: Vec<RunRow> = every_status().into_iter().skip(4).take(2).collect();
    insta::assert_snapshot!(render(&rows, OutputFormat::Json, &viewer(80)));
}

#[test]
fn every_line_of_ndjson_is_the_run_of_the_document_with_its_schema_version() {
    let rows = every_status();
    let viewer = viewer(80);
    let document: serde_json::Value = serde_json::from_str(&render(&rows, OutputFormat::Json, &viewer)).unwrap();
    let lines: Vec<serde_json::Value> = render(&rows, OutputFormat::Ndjson, &viewer)
        .lines()
        .map(|line| {
            let mut run: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(run.as_object_mut().unwrap().remove("schema_version"), Some(1.into()));
            run
        })
        .collect();
    assert_eq!(document["runs"], serde_json::Value::Array(lines));
}

#[test]
fn no_runs_is_said_to_people_and_is_an_empty_list_for_programs() {
    let viewer = viewer(80);
    assert_eq!(render(&[], OutputFormat::Table, &viewer), "no runs\n");
    assert_eq!(render(&[], OutputFormat::Json, &viewer), "{\n  \"schema_version\": 1,\n  \"runs\": []\n}\n");
    assert_eq!(render(&[], OutputFormat::Ndjson, &viewer), "");
}

#[test]
fn a_running_run_whose_owner_is_dead_is_interrupted_and_so_are_its_machines() {
    let row = RunRow { owner_alive: false, ..row("01k4q8vt", &cut_off()) };
    assert_eq!(row.status(), RunStatus::Interrupted);
    assert_eq!(
        told_tally(&row.run, false),
        BTreeMap::from([(MachineStatus::Pending, 3), (MachineStatus::Succeeded, 2), (MachineStatus::Interrupted, 1)])
    );
    assert_eq!(RunRow { owner_alive: true, ..row }.status(), RunStatus::Running);
}

#[test]
fn the_time_worked_leaves_out_pauses_and_sessions_whose_end_nobody_knows() {
    let took = |run: &Run, alive| worked(run, alive, at(128_000)).map(|took| took.as_millis());
    assert_eq!(took(&partial().run, false), Some(8_100));
    assert_eq!(took(&cut_off().run, true), Some(128_000));
    assert_eq!(took(&cut_off().run, false), None);
    assert_eq!(took(&resumed().run, false), Some(4_000));
}

fn prefixes(filter: &Filter, has_machine: impl FnMut(&RunId, &Subject) -> bool) -> Vec<String> {
    let mut rows = every_status();
    rows.reverse();
    filter.select(rows, has_machine).into_iter().map(|row| row.prefix).collect()
}

#[test]
fn the_newest_run_comes_first_and_the_limit_takes_the_newest() {
    let filter = Filter { limit: Some(3), ..Filter::default() };
    assert_eq!(prefixes(&filter, |_, _| true), ["01k4q8vt", "01k4p1m3", "01k4n000"]);
}

#[test]
fn a_status_is_compared_as_it_is_told() {
    let filter = Filter { statuses: vec![RunStatus::Interrupted], ..Filter::default() };
    assert_eq!(prefixes(&filter, |_, _| true), ["01k4jx9e", "01k4jw00", "01k4jv00", "01k4jtz0"]);
}

#[test]
fn workflow_and_since_narrow_the_list() {
    let filter = Filter { workflow: Some(WorkflowName::new("ferry-refresh")), ..Filter::default() };
    assert_eq!(prefixes(&filter, |_, _| true), ["01k4h000"]);
    let filter = Filter { since: Some(at(-3_600_000)), ..Filter::default() };
    assert_eq!(prefixes(&filter, |_, _| true), ["01k4q8vt", "01k4p1m3"]);
}

#[test]
fn the_store_is_asked_for_a_service_no_oftener_than_needed() {
    let mut asked = Vec::new();
    let filter = Filter {
        service: Some(subject("nova_production")),
        statuses: vec![RunStatus::Interrupted],
        limit: Some(1),
        ..Filter::default()
    };
    let found = prefixes(&filter, |id, service| {
        assert_eq!(service.as_str(), "nova_production");
        asked.push(*id);
        *id == run_id("01k4jw00")
    });
    assert_eq!(found, ["01k4jw00"]);
    assert_eq!(asked, [run_id("01k4jx9e"), run_id("01k4jw00")]);
}

#[test]
fn every_status_can_be_asked_for_and_nothing_else() {
    for status in RunStatus::ALL {
        assert_eq!(parse_status(status.as_str()), Ok(*status));
    }
    assert_eq!(
        parse_status("timed out").unwrap_err(),
        "\"timed out\" is not a status of a run: expected one of running, succeeded, partial, failed, timed-out, \
         interrupted, cancelled, superseded, skipped"
    );
}
