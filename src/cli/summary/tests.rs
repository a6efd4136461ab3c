use super::*;
use crate::cli::output::Style;
use crate::cli::samples::{cut_off, healthy_services, partial, state, timed_out, view, viewer, without_work};

fn said(view: &RunView, terminal: bool, code: ExitCode) -> String {
    closing(view, terminal, code, true, &viewer(Style::UNLIMITED))
}

#[test]
fn a_terminal_gets_the_answer_and_the_next_command_in_one_line() {
    assert_eq!(
        said(&view(partial()), true, ExitCode::SomeFailed),
        "run 01k4q8vt partial: 48 services succeeded, 2 failed in 8.1s   →  mt runs show 01k4q8vt\n"
    );
}

#[test]
fn without_a_terminal_a_good_run_says_nothing() {
    let fine = view(state(RunStatus::Succeeded, Some(7_900), healthy_services(50)));
    assert_eq!(said(&fine, false, ExitCode::Success), "");
    assert!(said(&fine, true, ExitCode::Success).starts_with("run 01k4q8vt succeeded: 50 services succeeded in 7.9s"));
}

#[test]
fn without_a_terminal_each_failure_gets_a_line() {
    insta::assert_snapshot!(said(&view(partial()), false, ExitCode::SomeFailed));
}

#[test]
fn without_a_terminal_any_other_exit_code_is_explained() {
    let held = without_work("dune_production", MachineStatus::Skipped, Some("01k4p1m3"));
    let skipped = view(state(RunStatus::Skipped, Some(20), vec![held]));
    assert_eq!(
        said(&skipped, false, ExitCode::Skipped),
        "run 01k4q8vt skipped: 1 service held by run 01k4p1m3 in 20ms   →  mt runs show 01k4q8vt\n"
    );
    let mut stopped = view(cut_off());
    stopped.owner_alive = false;
    assert_eq!(
        said(&stopped, false, ExitCode::Terminated),
        "run 01k4q8vt interrupted: 2 services succeeded, 4 not finished   →  mt runs resume 01k4q8vt\n"
    );
    let late = said(&view(timed_out()), false, ExitCode::SomeFailed);
    assert!(
        late.starts_with("run 01k4q8vt timed out: 2 services succeeded, 1 failed, 2 not finished in 5m00s"),
        "{late}"
    );
}

#[test]
fn a_run_that_was_not_recorded_is_not_to_be_shown_or_resumed() {
    let fine = view(state(RunStatus::Succeeded, Some(7_900), healthy_services(1)));
    assert_eq!(
        closing(&fine, false, ExitCode::StoreUnusable, false, &viewer(Style::UNLIMITED)),
        "run 01k4q8vt succeeded: 1 service succeeded in 7.9s   →  not recorded: the store could not be used, see the log\n"
    );
}

#[test]
fn a_run_without_machines_has_words_too() {
    assert_eq!(counts(&BTreeMap::new(), ForEach::Account, Length::Long, RunStatus::Succeeded), "no accounts");
}

#[test]
fn no_machine_is_left_out_of_the_counts() {
    let tally: BTreeMap<MachineStatus, u32> = MachineStatus::ALL.iter().map(|status| (*status, 1)).collect();
    for status in RunStatus::ALL {
        let text = counts(&tally, ForEach::Service, Length::Short, *status);
        let sum: u32 = text.split(", ").map(|part| part.split(' ').next().unwrap().parse::<u32>().unwrap()).sum();
        assert_eq!(sum as usize, MachineStatus::ALL.len(), "{text}");
    }
}
