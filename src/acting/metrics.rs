//! The metrics of a session that has ended: kept in the store, and pushed.
//!
//! Test runs and onboardings push nothing: they neither push tokens nor count errors, so the last word on a service is
//! not theirs. An interrupted session pushes nothing either; the one that ends the run does.

use std::ops::Deref;

use crate::acting::ending::KEEP;
use crate::config::Config;
use crate::notify::Delivery;
use crate::steps::catalog;
use crate::telemetry::metrics::stored::{SubjectSamples, WorkflowSamples};
use crate::telemetry::metrics::{Configured, Counts, Gateway, Replace, Stored, codes, render, samples};
use crate::workflow::counters::Counter;
use crate::workflow::definition::Mode;
use crate::workflow::event::SessionEnd;
use crate::workflow::id::WorkflowName;
use crate::workflow::run::RunState;
use crate::workflow::store::{Shelf, Store, StoreError, Tx, View};

/// Raised whenever samples change.
const GENERATION: &str = "generation";
const WORKFLOWS: &str = "workflow/";
const SUBJECTS: &str = "subject/";
/// Where another run keeps new samples while we push, their whole set is pushed once more, so often at most.
const ROUNDS: usize = 3;

/// Does a session of this mode with this end push metrics?
pub fn are_due(mode: Mode, end: SessionEnd) -> bool {
    let mode = match mode {
        Mode::Normal => true,
        Mode::Test | Mode::Onboard | Mode::OnboardPush => false,
    };
    let ended = match end {
        SessionEnd::Finished => true,
        SessionEnd::Interrupted | SessionEnd::Cancelled | SessionEnd::Lost => false,
    };
    mode && ended
}

/// Keeps and pushes them. Without a store that can be used, what this run knows is pushed alone. What goes wrong is a
/// warning. The caller limits the time.
pub async fn tell(config: &Config, store: Option<&Store>, state: RunState, deliveries: Vec<Delivery>) {
    let Some(prometheus) = &config.prometheus else { return };
    let gateway = match Gateway::new(&prometheus.host, &config.prometheus_job()) {
        Ok(gateway) => gateway,
        Err(error) => return tracing::warn!(code = %error.code(), "{error}"),
    };
    let listed = catalog::library().list().into_iter().map(|listed| WorkflowName::new(listed.name));
    let configured = Configured::new(&config.services, listed.chain([state.run.workflow.clone()]));
    let Some(store) = store else { return push_alone(&gateway, &state, &deliveries, &configured).await };
    let mut set = match keep(store, state.clone(), deliveries.clone(), configured.clone()).await {
        Ok(set) => set,
        Err(error) => {
            let code = codes::NOT_KEPT;
            tracing::warn!(%code, "the metrics of earlier runs cannot be kept, this run's are pushed alone: {error}");
            return push_alone(&gateway, &state, &deliveries, &configured).await;
        }
    };
    for _ in 0..ROUNDS {
        if !push(&gateway, &set.stored, &set.counts, &configured, Replace::Group).await {
            return;
        }
        // Whoever pushes last must push what was kept last.
        match store.read(Set::read).await.and_then(|read| read) {
            Ok(now) if now.generation != set.generation => set = now,
            Ok(_) => return,
            Err(error) => return tracing::debug!(code = %error.code(), "cannot look for newer metrics: {error}"),
        }
    }
}

async fn push_alone(gateway: &Gateway, state: &RunState, deliveries: &[Delivery], configured: &Configured) {
    let stored = samples(state, deliveries, &Stored::default());
    push(gateway, &stored, &None, configured, Replace::Named).await;
}

async fn push(gateway: &Gateway, stored: &Stored, counts: &Counts, configured: &Configured, how: Replace) -> bool {
    let text = match render(stored, counts, configured) {
        Ok(text) => text,
        Err(error) => {
            tracing::warn!(code = %codes::NOT_RENDERED, "cannot write the metrics as text: {error}");
            return false;
        }
    };
    let bytes = text.len();
    match gateway.send(text, how).await {
        Ok(()) => {
            tracing::info!(bytes, "pushed the metrics");
            true
        }
        Err(error) => {
            tracing::warn!(code = %error.code(), "{error}");
            false
        }
    }
}

/// What the store has.
struct Set {
    stored: Stored,
    counts: Counts,
    generation: u64,
}

impl Set {
    fn read(view: &View<'_>) -> Result<Self, StoreError> {
        let workflows: Vec<(String, WorkflowSamples)> = view.scan_prefix(Shelf::Metrics, WORKFLOWS)?;
        let subjects: Vec<(String, SubjectSamples)> = view.scan_prefix(Shelf::Metrics, SUBJECTS)?;
        let counters: Vec<(String, Counter)> = view.counters("")?;
        Ok(Self {
            stored: Stored {
                workflows: workflows.into_iter().map(|(_, s)| (s.workflow.clone(), s)).collect(),
                subjects: subjects.into_iter().map(|(_, s)| ((s.workflow.clone(), s.subject.clone()), s)).collect(),
            },
            counts: Some(counters.into_iter().map(|(_, counter)| (counter.key, counter.value)).collect()),
            generation: view.get(Shelf::Metrics, GENERATION)?.unwrap_or(0),
        })
    }
}

/// Adds what this run has to say, in one transaction.
async fn keep(
    store: &Store,
    state: RunState,
    deliveries: Vec<Delivery>,
    configured: Configured,
) -> Result<Set, StoreError> {
    store.write(move |tx| keep_in(tx, &state, &deliveries, &configured)).await
}

fn keep_in(
    tx: &mut Tx<'_>,
    state: &RunState,
    deliveries: &[Delivery],
    configured: &Configured,
) -> Result<Set, StoreError> {
    let mut set = Set::read(tx.deref())?;
    let mut next = samples(state, deliveries, &set.stored);
    for (name, samples) in &next.workflows {
        if set.stored.workflows.get(name) != Some(samples) {
            tx.put(Shelf::Metrics, &format!("{WORKFLOWS}{name}"), samples)?;
        }
    }
    let oldest = state.run.id.0.timestamp_ms().saturating_sub(u64::try_from(KEEP.as_millis()).unwrap_or(u64::MAX));
    next.subjects.retain(|(workflow, subject), samples| {
        let wanted = configured.has_subject(samples.for_each, subject) || samples.run.0.timestamp_ms() >= oldest;
        if !wanted {
            tx.remove(Shelf::Metrics, &subject_key(workflow.as_str(), subject.as_str()));
        }
        wanted
    });
    for (key, samples) in &next.subjects {
        if set.stored.subjects.get(key) != Some(samples) {
            tx.put(Shelf::Metrics, &subject_key(key.0.as_str(), key.1.as_str()), samples)?;
        }
    }
    set.generation += 1;
    tx.put(Shelf::Metrics, GENERATION, &set.generation)?;
    set.stored = next;
    Ok(set)
}

fn subject_key(workflow: &str, subject: &str) -> String {
    format!("{SUBJECTS}{workflow}/{subject}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_normal_sessions_that_came_to_their_end_are_told() {
        assert!(are_due(Mode::Normal, SessionEnd::Finished));
        for mode in [Mode::Test, Mode::Onboard, Mode::OnboardPush] {
            assert!(!are_due(mode, SessionEnd::Finished), "{mode:?}");
        }
        for end in [SessionEnd::Interrupted, SessionEnd::Cancelled, SessionEnd::Lost] {
            assert!(!are_due(Mode::Normal, end), "{end:?}");
        }
    }
}
