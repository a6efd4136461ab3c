//! What the exit code of `mt` says. Scripts and monitors rely on these numbers: they never change their meaning.

use std::collections::BTreeMap;

use crate::workflow::status::{MachineStatus, RunStatus};

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// Every selected service is fine, or there was nothing to do.
    Success = 0,
    /// An error nobody foresaw.
    Unexpected = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Some services failed.
    SomeFailed = 10,
    /// All services failed.
    AllFailed = 11,
    /// The configuration or the workflow is invalid.
    Invalid = 20,
    /// The store could not be used. The work itself was done.
    StoreUnusable = 21,
    /// Other live runs hold all the selected services.
    Skipped = 22,
    /// SIGINT ended the run early; it can be resumed.
    Interrupted = 130,
    /// SIGTERM ended the run early; it can be resumed.
    Terminated = 143,
}

impl ExitCode {
    /// Every exit code.
    pub const ALL: &'static [Self] = &[
        Self::Success,
        Self::Unexpected,
        Self::Usage,
        Self::SomeFailed,
        Self::AllFailed,
        Self::Invalid,
        Self::StoreUnusable,
        Self::Skipped,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// The code with this number, if there is one.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.number() == number)
    }

    /// The number the parent process sees.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The exit code of a command that worked on a run: its status and counts at the end of this session, whether the
    /// store took its history, and the signal that ended it early, if one did.
    ///
    /// A signal comes first, because the caller sent it and waits for its echo. A store that could not be used comes
    /// next: it wins over failed services, which the next run would show again.
    pub fn of_run(
        status: RunStatus,
        tally: &BTreeMap<MachineStatus, u32>,
        recorded: bool,
        stopped_by: Option<StopSignal>,
    ) -> Self {
        match (stopped_by, recorded) {
            (Some(signal), _) => signal.into(),
            (None, false) => Self::StoreUnusable,
            (None, true) => match status {
                RunStatus::Succeeded => Self::Success,
                RunStatus::Partial => Self::SomeFailed,
                RunStatus::Failed => Self::AllFailed,
                RunStatus::TimedOut | RunStatus::Cancelled => Self::of_unfinished(tally),
                RunStatus::Superseded => Self::of_superseded(tally),
                RunStatus::Skipped => Self::Skipped,
                RunStatus::Interrupted => Self::Interrupted,
                // Nobody returns from a run that goes on.
                RunStatus::Running => Self::Unexpected,
            },
        }
    }

    /// Some machines did not come to their end: that is a failure, of some or of all.
    fn of_unfinished(tally: &BTreeMap<MachineStatus, u32>) -> Self {
        match count(tally, MachineStatus::Succeeded) {
            0 => Self::AllFailed,
            _ => Self::SomeFailed,
        }
    }

    /// A newer run did what was left, which is fine; what failed here before stays failed.
    fn of_superseded(tally: &BTreeMap<MachineStatus, u32>) -> Self {
        match (count(tally, MachineStatus::Failed) + count(tally, MachineStatus::TimedOut), tally) {
            (0, _) => Self::Success,
            (_, tally) => Self::of_unfinished(tally),
        }
    }
}

fn count(tally: &BTreeMap<MachineStatus, u32>, status: MachineStatus) -> u32 {
    tally.get(&status).copied().unwrap_or(0)
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

impl From<StopSignal> for ExitCode {
    fn from(signal: StopSignal) -> Self {
        match signal {
            StopSignal::Interrupt => Self::Interrupted,
            StopSignal::Terminate => Self::Terminated,
        }
    }
}

/// A signal that asks the run to end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopSignal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(counts: &[(MachineStatus, u32)]) -> BTreeMap<MachineStatus, u32> {
        counts.iter().copied().collect()
    }

    #[test]
    fn the_numbers_are_those_of_the_manual() {
        let numbers: Vec<u8> = ExitCode::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers, [0, 1, 2, 10, 11, 20, 21, 22, 130, 143]);
    }

    #[test]
    fn every_status_of_a_recorded_run_has_its_code() {
        let some = tally(&[(MachineStatus::Succeeded, 3), (MachineStatus::Failed, 1), (MachineStatus::TimedOut, 1)]);
        let codes: Vec<(RunStatus, u8)> = RunStatus::ALL
            .iter()
            .map(|status| (*status, ExitCode::of_run(*status, &some, true, None).number()))
            .collect();
        assert_eq!(
            codes,
            [
                (RunStatus::Running, 1),
                (RunStatus::Succeeded, 0),
                (RunStatus::Partial, 10),
                (RunStatus::Failed, 11),
                (RunStatus::TimedOut, 10),
                (RunStatus::Interrupted, 130),
                (RunStatus::Cancelled, 10),
                (RunStatus::Superseded, 10),
                (RunStatus::Skipped, 22),
            ]
        );
    }

    #[test]
    fn timed_out_with_nothing_done_is_a_total_failure() {
        let none = tally(&[(MachineStatus::TimedOut, 4), (MachineStatus::Failed, 1)]);
        assert_eq!(ExitCode::of_run(RunStatus::TimedOut, &none, true, None), ExitCode::AllFailed);
        assert_eq!(ExitCode::of_run(RunStatus::Cancelled, &none, true, None), ExitCode::AllFailed);
    }

    #[test]
    fn a_run_whose_rest_a_newer_one_did_is_fine_unless_something_failed_here() {
        let clean = tally(&[(MachineStatus::Succeeded, 4), (MachineStatus::Superseded, 6)]);
        assert_eq!(ExitCode::of_run(RunStatus::Superseded, &clean, true, None), ExitCode::Success);
        let failed = tally(&[(MachineStatus::Failed, 1), (MachineStatus::Superseded, 6)]);
        assert_eq!(ExitCode::of_run(RunStatus::Superseded, &failed, true, None), ExitCode::AllFailed);
    }

    #[test]
    fn an_unusable_store_wins_over_failed_services_whatever_the_status() {
        for status in RunStatus::ALL {
            let code = ExitCode::of_run(*status, &tally(&[(MachineStatus::Failed, 1)]), false, None);
            assert_eq!(code, ExitCode::StoreUnusable, "{status}");
        }
    }

    #[test]
    fn a_signal_is_echoed_before_all_else() {
        for recorded in [true, false] {
            let code = |signal| ExitCode::of_run(RunStatus::Interrupted, &tally(&[]), recorded, Some(signal));
            assert_eq!(code(StopSignal::Interrupt).number(), 130);
            assert_eq!(code(StopSignal::Terminate).number(), 143);
        }
    }
}
