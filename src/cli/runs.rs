//! `mt runs list | show | cancel | prune`: reads the store, hands values to the renderers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use super::error::{Failed, codes};
use super::exit::ExitCode;
use super::output::{self, Here, OutputFormat, Viewer};
use super::runs_list::{self, Filter, RunRow};
use super::runs_show::{self, Failing, RunView, ShowOptions};
use super::time::Clock;
use crate::acting::site::{Global, Site};
use crate::acting::{here, told};
use crate::guardian;
use crate::steps::store_uid::changes;
use crate::workflow::counters::{Counter, CounterKey};
use crate::workflow::definition::ForEach;
use crate::workflow::duration;
use crate::workflow::event::SessionStarted;
use crate::workflow::id::{ProcessId, RunId, Subject, WorkflowName};
use crate::workflow::run::{Run, RunState};
use crate::workflow::session::{self, Cancelled, ClaimError, IsDead, open_session};
use crate::workflow::status::{MachineStatus, RunStatus};
use crate::workflow::store::{Access, Found, Retention, StateDir, Store, StoreError, View};

/// `mt runs …`
#[derive(Clone, Debug, Subcommand)]
pub enum RunsCommand {
    /// Which runs there were, newest first
    List(ListArgs),
    /// What one run did: the answer, the reason, the next command
    Show(ShowArgs),
    /// Continue a run that was interrupted or failed
    Resume(super::resume::ResumeArgs),
    /// End a run for good; a live one is stopped first
    Cancel {
        /// The run's id or the beginning of it
        id: String,
    },
    /// Remove old runs
    Prune {
        /// Keep the runs of the last so long
        #[arg(long, value_parser = duration::parse, default_value = "30d")]
        keep: Duration,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}

/// `mt runs list`
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Of this workflow
    #[arg(long)]
    workflow: Option<String>,
    /// With this service or account
    #[arg(long)]
    service: Option<String>,
    /// With one of these statuses
    #[arg(long, value_delimiter = ',', value_parser = runs_list::parse_status)]
    status: Vec<RunStatus>,
    /// Started within the last so long: 7d, 12h
    #[arg(long, value_parser = duration::parse)]
    since: Option<Duration>,
    /// The newest so many
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Show it again every second until interrupted
    #[arg(long)]
    watch: bool,
}

/// `mt runs show`
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// The run's id or the beginning of it; `latest` is the newest
    #[arg(default_value = "latest")]
    id: String,
    /// This service or account only; without an ID, the newest run that has it
    #[arg(long)]
    service: Option<String>,
    /// The healthy ones one by one, and every failure in full
    #[arg(long)]
    all: bool,
    /// The history, event by event
    #[arg(long)]
    events: bool,
    /// When each step began and ended
    #[arg(long)]
    timing: bool,
    /// Show it again every second until it has ended
    #[arg(long)]
    watch: bool,
}

/// How often `--watch` looks again. It has the store only while it looks: stopped in between, it is in nobody's way.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A guardian ends what is left of a worker in less than this.
const CLEARED_WITHIN: Duration = Duration::from_secs(10);

/// Between two looks whether it has.
const CLEARED_YET: Duration = Duration::from_millis(50);

/// How many runs are kept whatever their age.
pub const LEAST_RUNS: usize = 50;

/// The store as a reader opens it.
pub struct Reader {
    store: Store,
    run_dir: std::path::PathBuf,
}

impl Reader {
    /// Opens the store of this site for reading.
    pub fn open(global: &Global) -> Result<Self, Failed> {
        Self::with(global, Access::ReadOnly)
    }

    fn with(global: &Global, access: Access) -> Result<Self, Failed> {
        let path = Site::state_dir(global).map_err(|e| super::of_config(&e))?;
        guardian::refuse_root(&path).map_err(|e| Failed::new(e.code(), e.to_string()))?;
        let state = StateDir::existing(path).map_err(|e| of_store(&e))?;
        let store = Store::open(&state, access).map_err(|e| of_store(&e))?;
        Ok(Self { store, run_dir: state.run() })
    }

    /// Reads.
    pub fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&View<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Failed> {
        self.store.read_blocking(look).and_then(|answer| answer).map_err(|e| of_store(&e))
    }

    /// Lets the store go: whoever prints what was read may be stopped, or waits for a pager.
    fn close(self) {
        self.store.close();
    }

    /// Whether a process is gone with all its children.
    pub fn is_dead(&self) -> IsDead {
        let run_dir = self.run_dir.clone();
        Arc::new(move |process: ProcessId| guardian::owner_is_dead(&run_dir, process))
    }

    fn owner_alive(&self, run: &Run) -> bool {
        open_session(run).is_some_and(|s| !guardian::owner_is_dead(&self.run_dir, s.by.process))
    }
}

/// A store error as a command prints it.
pub fn of_store(error: &StoreError) -> Failed {
    Failed::new(error.code(), error.to_string()).exit(ExitCode::StoreUnusable)
}

/// A claim error as a command prints it.
pub fn of_claim(error: &ClaimError) -> Failed {
    match error {
        ClaimError::Store(error) => of_store(error),
        ClaimError::NoSuchRun(_) => Failed::new(codes::NO_SUCH_RUN, error.to_string()).next("mt runs list"),
        ClaimError::Alive { run, .. } => Failed::new(codes::RUN_NOT_CLAIMABLE, error.to_string())
            .next(format!("mt runs show {run} --watch, or mt runs cancel {run}")),
        ClaimError::Ended { run, .. } => {
            Failed::new(codes::RUN_NOT_CLAIMABLE, error.to_string()).next(format!("mt runs show {run}"))
        }
        ClaimError::Illegal { .. } => Failed::new(codes::UNEXPECTED, error.to_string()),
    }
}

/// Who reads, now.
pub fn viewer() -> Viewer {
    let here = Here { host: here::host(), boot_id: here::boot_id() };
    Viewer { clock: Clock::system(), style: output::Style::stdout(), here }
}

/// Dispatches `mt runs …` but for `resume`, which acts.
pub fn run(global: &Global, command: &RunsCommand) -> Result<ExitCode, Failed> {
    match command {
        RunsCommand::List(args) => list(global, args),
        RunsCommand::Show(args) => show(global, args),
        RunsCommand::Resume(args) => super::resume::resume(global, args),
        RunsCommand::Cancel { id } => cancel(global, id),
        RunsCommand::Prune { keep, dry_run } => prune(global, *keep, *dry_run),
    }
}

fn list(global: &Global, args: &ListArgs) -> Result<ExitCode, Failed> {
    loop {
        let reader = Reader::open(global)?;
        let text = list_once(&reader, args, global.output)?;
        reader.close();
        if args.watch && global.output == OutputFormat::Table {
            clear_screen();
        }
        print(&text)?;
        if !args.watch {
            return Ok(ExitCode::Success);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn list_once(reader: &Reader, args: &ListArgs, format: OutputFormat) -> Result<String, Failed> {
    let viewer = viewer();
    let filter = Filter {
        workflow: args.workflow.as_deref().map(WorkflowName::new),
        service: args.service.as_deref().map(Subject::new),
        statuses: args.status.clone(),
        since: args.since.and_then(|age| viewer.clock.now.checked_sub(age).ok()),
        limit: Some(args.limit),
    };
    let is_dead = reader.is_dead();
    let rows = reader.read(move |view| rows(view, &is_dead, &filter))?;
    Ok(runs_list::render(&rows, format, &viewer))
}

/// The runs asked for, newest first. Looks at none that is older than asked for, and at none behind the limit: a year's
/// history must not be read for the last hour's.
fn rows(view: &View<'_>, is_dead: &IsDead, filter: &Filter) -> Result<Vec<RunRow>, StoreError> {
    let mut rows: Vec<RunRow> = Vec::new();
    let mut failed = None;
    view.runs_newest_first(|run| {
        if filter.since.is_some_and(|since| run.started_at < since) {
            return std::ops::ControlFlow::Break(());
        }
        match row(view, run, is_dead, filter) {
            Ok(Some(row)) => rows.push(row),
            Ok(None) => {}
            Err(error) => failed = Some(error),
        }
        if failed.is_some() || filter.limit.is_some_and(|limit| rows.len() >= limit) {
            std::ops::ControlFlow::Break(())
        } else {
            std::ops::ControlFlow::Continue(())
        }
    })?;
    failed.map_or(Ok(rows), Err)
}

/// The run as a row, if the filter lets it through.
fn row(view: &View<'_>, run: Run, is_dead: &IsDead, filter: &Filter) -> Result<Option<RunRow>, StoreError> {
    let owner_alive = open_session(&run).is_some_and(|s| !is_dead(s.by.process));
    let has_service = match &filter.service {
        Some(service) => view.machine(run.id, service)?.is_some(),
        None => true,
    };
    let row = RunRow { prefix: view.shortest_prefix(run.id)?, owner_alive, remark: remark(view, &run)?, run };
    Ok(filter.select(vec![row], |_, _| has_service).pop())
}

/// What a run for accounts has found out.
fn remark(view: &View<'_>, run: &Run) -> Result<Option<String>, StoreError> {
    if run.for_each != ForEach::Account {
        return Ok(None);
    }
    let Some(state) = session::load(view, run.id)? else { return Ok(None) };
    Ok(match changes(&state).len() {
        0 => None,
        1 => Some("1 uid changed".to_owned()),
        many => Some(format!("{many} uids changed")),
    })
}

fn show(global: &Global, args: &ShowArgs) -> Result<ExitCode, Failed> {
    let threshold = Site::load(global).map(|s| s.config.error_count_to_send_message).ok();
    let options =
        ShowOptions { service: args.service.as_deref().map(Subject::new), all: args.all, timing: args.timing };
    let mut shown = None;
    loop {
        let reader = Reader::open(global)?;
        // What was the latest at first is shown to its end.
        let run = match shown {
            Some(run) => run,
            None => find_for(&reader, &args.id, args.service.as_deref())?,
        };
        shown = Some(run);
        let (text, running) = if args.events {
            let events = reader.read(move |view| view.events(run))?;
            (runs_show::render_events(&events, &options, global.output, &viewer()), false)
        } else {
            let view = view_of(&reader, run, threshold)?;
            if let Some(service) = &options.service
                && !view.state.machines.contains_key(service)
            {
                return Err(Failed::new(codes::NO_SUCH_SERVICE, format!("run {} has no {service}", view.prefix))
                    .next(format!("mt runs show {} --all", view.prefix)));
            }
            let running = view.told().run.status == RunStatus::Running;
            (runs_show::render(&view, &options, global.output, &viewer()), running)
        };
        reader.close();
        if args.watch && global.output == OutputFormat::Table {
            clear_screen();
        }
        print(&text)?;
        if !(args.watch && running) {
            return Ok(ExitCode::Success);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The run a person means.
pub fn find(reader: &Reader, id: &str) -> Result<RunId, Failed> {
    let wanted = id.to_owned();
    found(reader.read(move |view| view.find_run(&wanted))?, id)
}

fn find_for(reader: &Reader, id: &str, service: Option<&str>) -> Result<RunId, Failed> {
    let (Some(service), "latest") = (service, id) else { return find(reader, id) };
    let subject = Subject::new(service);
    let newest = reader.read(move |view| {
        let (mut newest, mut failed) = (None, None);
        view.runs_newest_first(|run| {
            match view.machine(run.id, &subject) {
                Ok(Some(_)) => newest = Some(run.id),
                Ok(None) => return std::ops::ControlFlow::Continue(()),
                Err(error) => failed = Some(error),
            }
            std::ops::ControlFlow::Break(())
        })?;
        failed.map_or(Ok(newest), Err)
    })?;
    newest.ok_or_else(|| {
        Failed::new(codes::NO_SUCH_RUN, format!("no run has a machine for {service}")).next("mt services list")
    })
}

/// One run, or why not.
pub fn found(found: Found, id: &str) -> Result<RunId, Failed> {
    match found {
        Found::One(run) => Ok(run),
        Found::None if id == "latest" => {
            Err(Failed::new(codes::NO_SUCH_RUN, "there is no run yet").next("mt run token-push"))
        }
        Found::None => {
            Err(Failed::new(codes::NO_SUCH_RUN, format!("no run's id begins with {id:?}")).next("mt runs list"))
        }
        Found::Several(runs) => {
            let ids: Vec<String> = runs.iter().map(ToString::to_string).collect();
            let message = format!("several runs' ids begin with {id:?}: {}", ids.join(", "));
            Err(Failed::new(codes::NO_SUCH_RUN, message).next("give more of the id"))
        }
    }
}

/// A run with everything `show` wants to know.
pub fn view_of(reader: &Reader, run: RunId, threshold: Option<u32>) -> Result<RunView, Failed> {
    let found = reader.read(move |view| {
        let Some(state) = session::load(view, run)? else { return Ok(None) };
        let prefix = view.shortest_prefix(run)?;
        let mut others = BTreeMap::new();
        let named = state.machines.values().filter_map(|m| m.other_run).chain(state.run.superseded_by);
        for other in named.collect::<std::collections::BTreeSet<_>>() {
            others.insert(other, view.shortest_prefix(other)?);
        }
        let counters = counters_of(view, &state)?;
        let told = told::told(view, &state, &counters, threshold)?;
        Ok(Some((state, prefix, others, counters, told)))
    })?;
    let Some((state, prefix, others, counters, told)) = found else {
        return Err(Failed::new(codes::NO_SUCH_RUN, format!("the store has no run {run}")));
    };
    let failing = failing(&state, &counters);
    let owner_alive = reader.owner_alive(&state.run);
    Ok(RunView { state, owner_alive, prefix, others, failing, told })
}

fn counters_of(view: &View<'_>, state: &RunState) -> Result<BTreeMap<CounterKey, Counter>, StoreError> {
    let mut counters = BTreeMap::new();
    let failed = |m: &&crate::workflow::run::Machine| m.status != MachineStatus::Succeeded;
    for machine in state.machines.values().filter(failed) {
        let key = CounterKey { subject: machine.subject.clone(), target: None };
        for (name, counter) in view.counters::<Counter>(&key.as_key())? {
            // A prefix also finds the counters of a service whose name begins with this one's.
            if name == counter.key.as_key() && counter.key.subject == machine.subject {
                counters.insert(counter.key.clone(), counter);
            }
        }
    }
    Ok(counters)
}

/// The rows of failures that this run is the present end of.
fn failing(
    state: &RunState,
    counters: &BTreeMap<CounterKey, Counter>,
) -> BTreeMap<(Subject, Option<crate::workflow::id::TargetName>), Failing> {
    counters
        .values()
        .filter(|c| c.run == state.run.id && c.failing_runs > 0)
        .filter_map(|c| {
            let since = c.failing_since?;
            Some(((c.key.subject.clone(), c.key.target.clone()), Failing { runs: c.failing_runs, since }))
        })
        .collect()
}

fn cancel(global: &Global, id: &str) -> Result<ExitCode, Failed> {
    let reader = Reader::with(global, Access::ReadWrite)?;
    let run = find(&reader, id)?;
    let runtime = super::small_runtime()?;
    let give_up = Instant::now() + CLEARED_WITHIN;
    loop {
        let cancelled =
            runtime.block_on(session::cancel(&reader.store, run, reader.is_dead())).map_err(|e| of_claim(&e))?;
        match cancelled {
            Cancelled::Done => {
                output::write_err(&format!("run {run} is cancelled\n"));
                return Ok(ExitCode::Success);
            }
            Cancelled::Tell { worker } if tell_to_stop(run, &worker)? => {
                output::write_err(&format!("run {run} is being cancelled: told process {} to stop\n", worker.pid));
                return Ok(ExitCode::Success);
            }
            // It has ended just now, and its guardian still clears up.
            Cancelled::Tell { .. } if Instant::now() < give_up => std::thread::sleep(CLEARED_YET),
            Cancelled::Tell { worker } => {
                let pid = worker.pid;
                let message = format!("process {pid}, which worked on run {run}, is gone, but not all that it started");
                return Err(Failed::new(codes::RUN_NOT_CLAIMABLE, message).next(format!("mt runs cancel {run}, later")));
            }
        }
    }
}

/// Tells the worker alone: its pid may have been given to another process. False: it has ended.
fn tell_to_stop(run: RunId, worker: &SessionStarted) -> Result<bool, Failed> {
    let pid = worker.pid;
    if worker.host != here::host() {
        let message = format!("run {run} is worked on by process {pid} on {}, out of reach from here", worker.host);
        return Err(
            Failed::new(codes::RUN_NOT_CLAIMABLE, message).next(format!("on {}: mt runs cancel {run}", worker.host))
        );
    }
    if worker.boot_id != here::boot_id() {
        return Ok(false);
    }
    let Some(started) = worker.start_ticks else {
        let message = format!("run {run} does not say when its process {pid} was started: it could be another one now");
        return Err(
            Failed::new(codes::RUN_NOT_CLAIMABLE, message).next(format!("ps -p {pid}, and if it is mt: kill {pid}"))
        );
    };
    guardian::terminate(pid, started)
        .map_err(|error| Failed::new(codes::UNEXPECTED, format!("cannot tell process {pid} to stop: {error}")))
}

fn prune(global: &Global, keep: Duration, dry_run: bool) -> Result<ExitCode, Failed> {
    let access = if dry_run { Access::ReadOnly } else { Access::ReadWrite };
    let reader = Reader::with(global, access)?;
    let is_dead = reader.is_dead();
    let is_live = move |run: &Run| open_session(run).is_some_and(|s| !is_dead(s.by.process));
    let report =
        reader.store.prune(Retention { keep, min_runs: LEAST_RUNS }, dry_run, is_live).map_err(|e| of_store(&e))?;
    let verb = if dry_run { "would remove" } else { "removed" };
    print(&format!("{verb} {} runs, kept {}\n", report.runs.len(), report.kept))?;
    Ok(ExitCode::Success)
}

/// Writes to stdout; a reader that has gone away is not an error.
pub fn print(text: &str) -> Result<(), Failed> {
    output::write_out(text).map_err(|e| Failed::new(codes::UNEXPECTED, format!("cannot write to stdout: {e}")))
}

fn clear_screen() {
    if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        // A terminal that has gone away shows in the next print.
        let _ = output::write_out("\x1b[H\x1b[2J");
    }
}

#[cfg(test)]
mod tests;
