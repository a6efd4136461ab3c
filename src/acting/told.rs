//! Who was told of what a run found, for `mt runs show`.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::runs_show::Told;
use crate::notify::{OutboxEntry, OutboxStatus};
use crate::workflow::counters::{Counter, CounterKey};
use crate::workflow::id::Subject;
use crate::workflow::run::RunState;
use crate::workflow::status::MachineStatus;
use crate::workflow::store::{Shelf, StoreError, View};

/// Who was told of the machines of a run that did not succeed.
pub fn told(
    view: &View<'_>,
    state: &RunState,
    counters: &BTreeMap<CounterKey, Counter>,
    threshold: Option<u32>,
) -> Result<BTreeMap<Subject, Told>, StoreError> {
    let mails = view.scan_prefix::<OutboxEntry>(Shelf::Outbox, &state.run.id.to_string())?;
    let mut told = BTreeMap::new();
    for machine in state.machines.values().filter(|m| m.status != MachineStatus::Succeeded) {
        let reports = mails.iter().flat_map(|(_, mail)| mail.reports.iter().map(move |r| (mail, r)));
        let mine: Vec<_> = reports.filter(|(_, r)| r.counter.subject == machine.subject).collect();
        let row = mine.iter().map(|(_, r)| r.value).max();
        let sent = mine.iter().filter(|(mail, _)| mail.status == OutboxStatus::Sent);
        let channels: BTreeSet<&str> = sent.map(|(mail, _)| mail.channel.as_str()).collect();
        // The connection broke, or the process did, before the channel had answered.
        let uncertain = mine.iter().any(|(mail, _)| mail.status == OutboxStatus::Sending);
        let of_run = |c: &&Counter| c.key.subject == machine.subject && c.run == state.run.id;
        let worst = counters.values().filter(of_run).map(|c| c.value).max().filter(|value| *value > 0);
        let word = match (row, worst, threshold) {
            (Some(_), ..) if channels.is_empty() && uncertain => Some(Told::PerhapsSent),
            (Some(_), ..) if channels.is_empty() => Some(Told::Waiting),
            (Some(row), ..) => {
                let channel = channels.into_iter().collect::<Vec<_>>().join(" and ");
                Some(Told::Sent { channel, row })
            }
            (None, Some(row), Some(limit)) if row < limit => Some(Told::BelowLimit { row, limit }),
            (None, _, _) => None,
        };
        told.extend(word.map(|word| (machine.subject.clone(), word)));
    }
    Ok(told)
}
