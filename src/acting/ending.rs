//! What follows when the work of a session is done: what is sent, what is removed, and the last lines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::acting::launch::{Launcher, Notices, blocking, unless_stopped};
use crate::acting::metrics;
use crate::acting::trouble::Admins;
use crate::cli::error::Failed;
use crate::cli::exit::ExitCode;
use crate::cli::output::Style;
use crate::cli::runs_show::RunView;
use crate::cli::{runs, summary};
use crate::notify::Delivery;
use crate::telemetry;
use crate::telemetry::logs::{self, Labels};
use crate::workflow::definition::Mode;
use crate::workflow::event::SessionEnd;
use crate::workflow::id::{RunId, WorkflowName};
use crate::workflow::recorder::Unrecorded;
use crate::workflow::run::RunState;
use crate::workflow::session;
use crate::workflow::store::{Compacted, Options, Retention, Store, StoreError, View, compact_if_due};

/// Runs younger than this are kept, and always the newest [`runs::LEAST_RUNS`].
pub const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

/// Whoever sent a signal waits.
const PATIENCE_AFTER_A_SIGNAL: Duration = Duration::from_secs(2);

/// What is left of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    /// It is in the store.
    pub(super) recorded: bool,
    /// Nobody has come upon a damage of the store.
    pub(super) whole: bool,
}

impl Launcher {
    /// What goes out when the work is done: all at once, and none of it longer than a signal or the budget allows.
    pub(super) async fn tell(
        &self,
        store: Option<&Store>,
        state: &RunState,
        end: SessionEnd,
        deliveries: Vec<Delivery>,
    ) {
        if !metrics::are_due(state.run.mode, end) {
            return;
        }
        let metrics = metrics::tell(&self.site.config, store, state.clone(), deliveries);
        tokio::select! {
            told = tokio::time::timeout(telemetry::BUDGET, metrics) => {
                if told.is_err() {
                    let code = telemetry::metrics::codes::SLOW;
                    tracing::warn!(%code, "the metrics could not be pushed within {:?}", telemetry::BUDGET);
                }
            }
            () = self.stop.token().cancelled_owned() => tracing::warn!("asked to stop: the metrics are not pushed"),
        }
    }

    /// For what is sent after a signal too.
    pub(super) fn patience(&self) -> Duration {
        if self.stop.by().is_some() { PATIENCE_AFTER_A_SIGNAL } else { telemetry::BUDGET }
    }

    /// The lines of the session, for Loki. After a signal too, but then not for long.
    pub(super) async fn tell_loki(&self, state: &RunState) {
        let Some(loki) = &self.site.config.loki else { return };
        let labels = Labels {
            command: logs::executable(state.run.workflow.as_str()).to_owned(),
            environment: self.site.config.dev_environment_label.clone(),
        };
        let within = self.patience();
        if tokio::time::timeout(within, logs::push(loki, &labels)).await.is_err() {
            tracing::warn!(code = %logs::codes::LOKI, "Loki did not get this run's lines within {within:?}");
        }
    }

    /// Old runs go when a run has ended. Not when it is told to stop: whoever does so waits, and the next run does it.
    /// `true`: it was told so in the middle.
    pub(super) async fn after(&self, store: Option<&Store>, end: SessionEnd) -> bool {
        let finished = match end {
            SessionEnd::Finished => self.stop.by().is_none(),
            SessionEnd::Interrupted | SessionEnd::Cancelled | SessionEnd::Lost => false,
        };
        let Some(store) = store.filter(|_| finished).cloned() else { return false };
        let is_dead = self.is_dead();
        let is_live =
            move |run: &crate::workflow::run::Run| session::open_session(run).is_some_and(|s| !is_dead(s.by.process));
        let state = self.worker.places.state.clone();
        let pruned = unless_stopped(&self.stop, move || {
            let report = store.prune(Retention { keep: KEEP, min_runs: runs::LEAST_RUNS }, false, is_live)?;
            let compacted = match state {
                Ok(state) => compact_if_due(&state, &Options::default())?,
                Err(_) => None,
            };
            Ok::<_, StoreError>((report, compacted))
        })
        .await;
        match pruned {
            Ok(Err(_signal)) => {
                tracing::info!("asked to stop: the next run removes old runs");
                return true;
            }
            Ok(Ok(Ok((report, compacted)))) => {
                if !report.runs.is_empty() {
                    tracing::info!(runs = report.runs.len(), "removed old runs");
                }
                if let Some(Compacted { before, after, .. }) = compacted {
                    tracing::info!(before, after, "compacted the store");
                }
            }
            Ok(Ok(Err(error))) => {
                tracing::warn!(code = %error.code(), "cannot remove old runs or compact the store: {error}");
            }
            Err(failed) => tracing::warn!("cannot remove old runs or compact the store: {}", failed.message),
        }
        false
    }

    /// The store cannot be read in places, which was found when the run's messages were written already, or gone: the admins
    /// are told at once.
    pub(super) async fn tell_of_damage(
        &self,
        workflow: WorkflowName,
        notices: &Notices,
        mode: Mode,
        damage: &Unrecorded,
    ) -> Result<(), Failed> {
        let Unrecorded { code, why } = damage;
        tracing::error!(%code, "the run is recorded, in a store that is damaged: {why}");
        match mode {
            Mode::Normal => {}
            // Who tries something out is not to call the admins.
            Mode::Test | Mode::Onboard | Mode::OnboardPush => return Ok(()),
        }
        let admins = Admins::of_config(&self.site.config, notices);
        let failed = Failed::new(*code, why.clone()).next("mt store verify");
        blocking(move || admins.tell(workflow.as_str(), "is recorded in a damaged store", &failed)).await
    }

    pub(super) async fn close(
        &self,
        store: Option<&Store>,
        run: RunId,
        state: RunState,
        end: SessionEnd,
        kept: Kept,
    ) -> ExitCode {
        let Kept { recorded, whole } = kept;
        let others: BTreeSet<RunId> = state.machines.values().filter_map(|machine| machine.other_run).collect();
        let prefixes = move |view: &View<'_>| -> Result<_, StoreError> {
            let others = others.into_iter().map(|other| Ok((other, view.shortest_prefix(other)?)));
            Ok((view.shortest_prefix(run)?, others.collect::<Result<BTreeMap<_, _>, StoreError>>()?))
        };
        let read = match store {
            Some(store) if recorded => store.read(prefixes).await.and_then(|read| read).ok(),
            Some(_) | None => None,
        };
        // Where the store cannot say what is unique, whole ids are.
        let (prefix, others) = read.unwrap_or_else(|| (run.to_string(), BTreeMap::new()));
        let stopped_by = match end {
            SessionEnd::Interrupted => self.stop.by(),
            SessionEnd::Finished | SessionEnd::Cancelled | SessionEnd::Lost => None,
        };
        let code = ExitCode::of_run(state.run.status, &state.run.tally, recorded && whole, stopped_by);
        let view =
            RunView { state, owner_alive: true, prefix, others, failing: BTreeMap::new(), told: BTreeMap::new() };
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let viewer = crate::cli::output::Viewer { style: Style::stderr(), ..runs::viewer() };
        summary::print_closing(&view, terminal, code, recorded, &viewer);
        code
    }
}
