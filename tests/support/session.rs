//! Who works on a run that no process has begun.

use managed_tokens::workflow::event::SessionStarted;
use managed_tokens::workflow::id::ProcessId;

/// A session that cron has started on mt01.
pub fn session_started() -> SessionStarted {
    SessionStarted {
        process: ProcessId::generate(),
        host: "mt01".to_owned(),
        boot_id: "b".to_owned(),
        pid: 1,
        start_ticks: None,
        trigger: "cron".to_owned(),
        trace: None,
    }
}
