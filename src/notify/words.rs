//! What the templates are given: the answer first, then the reason, then the next command.
//!
//! The names of the fields are what a site's own templates use (docs/notifications.md): they are only ever added to.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::due::{DueCounter, Kind, News, Trouble};
use crate::workflow::counters::CounterKey;
use crate::workflow::definition::{CountsAs, ForEach, Mode};
use crate::workflow::event::PlannedStep;
use crate::workflow::id::{Subject, TargetName};
use crate::workflow::run::RunState;

/// Longer ones are cut by mail programs anyway.
const MOST_SUMMARY: usize = 140;
/// One line of one error.
const MOST_MESSAGE: usize = 300;

/// All that a template knows.
#[derive(Clone, Debug, Serialize)]
pub struct Words {
    /// The answer in one line.
    pub summary: String,
    /// Nothing is wrong: the message of a test that went well.
    pub all_well: bool,
    /// Which run.
    pub run: RunWords,
    /// Errors outside any service.
    pub troubles: Vec<TroubleWords>,
    /// Errors by service.
    pub services: Vec<ServiceWords>,
    /// What works again: `dune_production`, `dune_production node1.example.org`.
    pub recovered: Vec<String>,
}

/// The run, or what there is of it when nothing could be started.
#[derive(Clone, Debug, Serialize)]
pub struct RunWords {
    /// The whole id.
    pub id: String,
    /// The workflow.
    pub workflow: String,
    /// Where it ran.
    pub host: String,
    /// `2026-09-03 13:58 UTC`.
    pub started: String,
    /// Was it a test?
    pub test: bool,
    /// Can `mt runs show` show it?
    pub recorded: bool,
}

/// An error outside any service.
#[derive(Clone, Debug, Serialize)]
pub struct TroubleWords {
    /// `MT0072`.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What mends it; empty: not known.
    pub next: String,
}

/// One line for an error outside any service, to be put before a text that is written already.
pub fn trouble_line(trouble: &Trouble) -> String {
    let words = TroubleWords::of(trouble);
    let next = if words.next.is_empty() { String::new() } else { format!("; next: {}", words.next) };
    format!("{} [{}]{next}", one_line(&words.message), words.code)
}

/// A service with errors.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceWords {
    /// Its configured name.
    pub name: String,
    /// The answer for it in one line, its name included.
    pub summary: String,
    /// What failed before the pushes.
    pub setup: Vec<SetupWords>,
    /// What is no error.
    pub news: Vec<String>,
    /// The nodes it could not be pushed to.
    pub pushes: Vec<PushWords>,
    /// The longest name of a node, or of the column.
    pub node_width: usize,
    /// What mends the pushes, each once.
    pub next: Vec<String>,
}

/// One setup error.
#[derive(Clone, Debug, Serialize)]
pub struct SetupWords {
    /// Place, step and message.
    pub text: String,
    /// `failing for 3 runs, since …`; empty where nobody counts.
    pub row: String,
    /// What mends it; empty: not known.
    pub next: String,
}

/// One push error.
#[derive(Clone, Debug, Serialize)]
pub struct PushWords {
    /// The node.
    pub node: String,
    /// Runs in the present row of errors.
    pub runs: u32,
    /// What failed.
    pub message: String,
}

impl Words {
    /// What there is to say of a run. `recorded`: the store knows it.
    pub fn of(state: &RunState, news: &News, recorded: bool) -> Self {
        let services: Vec<ServiceWords> =
            by_subject(&news.due).into_iter().map(|(service, due)| ServiceWords::of(state, service, &due)).collect();
        let recovered: Vec<String> = news.recovered.iter().map(again).collect();
        let noun = match state.run.for_each {
            ForEach::Service => "services",
            ForEach::Account => "accounts",
        };
        let all_well = news.is_empty();
        let summary = match (services.as_slice(), news.troubles.as_slice(), recovered.as_slice()) {
            ([], [], []) => match state.machines.len() {
                1 => format!("the test went well: 1 {}", noun.trim_end_matches('s')),
                all => format!("the test went well: {all} {noun}"),
            },
            ([], [], [one]) => format!("{one} works again"),
            ([], [], many) => format!("{} work again: {}", many.len(), many.join(", ")),
            ([], [_], _) => "an error outside any service".to_owned(),
            ([], many, _) => format!("{} errors outside any service", many.len()),
            ([one], [], _) => one.summary.clone(),
            (many, troubles, _) => {
                let only_news = news.due.iter().all(|one| one.kind == Kind::News);
                let what = if only_news { "news" } else { "errors" };
                let names = many.iter().map(|service| service.name.as_str()).collect::<Vec<_>>().join(", ");
                let of = if many.len() == 1 { noun.trim_end_matches('s') } else { noun };
                let outside = if troubles.is_empty() { "" } else { " and outside any service" };
                format!("{what} of {} {of}{outside}: {names}", many.len())
            }
        };
        Self {
            summary: cut(&summary, MOST_SUMMARY),
            all_well,
            run: RunWords::of(state, recorded),
            troubles: news.troubles.iter().map(TroubleWords::of).collect(),
            services,
            recovered,
        }
    }
}

impl Words {
    /// What there is to say when no run could begin.
    pub fn of_trouble(run: RunWords, summary: String, trouble: &Trouble) -> Self {
        let troubles = vec![TroubleWords::of(trouble)];
        Self { summary, all_well: false, run, troubles, services: Vec::new(), recovered: Vec::new() }
    }
}

impl RunWords {
    fn of(state: &RunState, recorded: bool) -> Self {
        let run = &state.run;
        Self {
            id: run.id.to_string(),
            workflow: run.workflow.to_string(),
            host: run.sessions.last().map_or_else(|| "?".to_owned(), |session| session.by.host.clone()),
            started: moment(run.started_at),
            test: run.mode == Mode::Test,
            recorded,
        }
    }
}

impl TroubleWords {
    /// The words for it.
    pub fn of(trouble: &Trouble) -> Self {
        Self {
            code: trouble.code.to_string(),
            message: trouble.message.trim_end().to_owned(),
            next: trouble.next.as_deref().map(one_line).unwrap_or_default(),
        }
    }
}

impl ServiceWords {
    fn of(state: &RunState, service: &Subject, due: &[&DueCounter]) -> Self {
        let kind = |kind| due.iter().filter(move |one| one.kind == kind);
        let node = |one: &DueCounter| one.target.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        let pushes: Vec<PushWords> = kind(Kind::Push)
            .map(|one| PushWords { node: node(one), runs: runs(one), message: one_line(&one.message) })
            .collect();
        let widths = pushes.iter().map(|push| push.node.chars().count());
        let next: BTreeSet<String> = kind(Kind::Push).filter_map(|one| one.next.as_deref()).map(one_line).collect();
        Self {
            name: service.to_string(),
            summary: cut(&summary(state, service, due), MOST_SUMMARY),
            setup: kind(Kind::Setup).map(|one| SetupWords::of(one)).collect(),
            news: kind(Kind::News).map(|one| one_line(&one.message)).collect(),
            node_width: widths.chain(["Node".len()]).max().unwrap_or_default(),
            pushes,
            next: next.into_iter().collect(),
        }
    }
}

impl SetupWords {
    fn of(one: &DueCounter) -> Self {
        let place = one.target.as_ref().map(|target| format!("{target}: ")).unwrap_or_default();
        let since = one.failing_since.map(|at| format!(", since {}", moment(at))).unwrap_or_default();
        let row = match (one.failing_runs, runs(one)) {
            // Nobody counts.
            (0, _) => String::new(),
            (_, 1) => format!("failing for 1 run{since}"),
            (_, runs) => format!("failing for {runs} runs{since}"),
        };
        Self {
            text: format!("{place}{}", one_line(&one.message)),
            row,
            next: one.next.as_deref().map(one_line).unwrap_or_default(),
        }
    }
}

fn runs(one: &DueCounter) -> u32 {
    one.failing_runs.max(one.value)
}

/// What is due, by service, setup first.
fn by_subject(due: &[DueCounter]) -> BTreeMap<&Subject, Vec<&DueCounter>> {
    let mut grouped: BTreeMap<&Subject, Vec<&DueCounter>> = BTreeMap::new();
    for one in due {
        grouped.entry(&one.subject).or_default().push(one);
    }
    for list in grouped.values_mut() {
        list.sort_by_key(|one| (one.kind, one.target.clone()));
    }
    grouped
}

fn summary(state: &RunState, service: &Subject, due: &[&DueCounter]) -> String {
    let alone = [Kind::Setup, Kind::News].iter().find_map(|kind| due.iter().find(|one| one.kind == *kind));
    if let Some(one) = alone {
        return format!("{service}: {}{}", one_line(&one.message), in_a_row(runs(one)));
    }
    let failed = due.len();
    let all = node_count(state, service).max(failed);
    let nodes = if all == 1 { "node" } else { "nodes" };
    let longest = due.iter().map(|one| runs(one)).max().unwrap_or_default();
    format!("{service}: token not refreshed on {failed} of {all} {nodes}{}", for_runs(longest))
}

fn for_runs(runs: u32) -> String {
    if runs > 1 { format!(" for {runs} runs") } else { String::new() }
}

fn in_a_row(runs: u32) -> String {
    if runs > 1 { format!(" ({runs} runs in a row)") } else { String::new() }
}

/// The nodes to which this run was to push for the service.
fn node_count(state: &RunState, service: &Subject) -> usize {
    let pushes = |step: &&PlannedStep| step.counts_as == CountsAs::Push;
    let Some(machine) = state.machines.get(service) else { return 0 };
    let steps: BTreeSet<_> = state.run.plan.iter().filter(pushes).map(|step| &step.name).collect();
    let targets = machine.steps.iter().filter(|step| steps.contains(&step.name)).flat_map(|step| &step.targets);
    targets.map(|target| &target.name).collect::<BTreeSet<&TargetName>>().len()
}

/// What works again, as people read it.
pub fn again(key: &CounterKey) -> String {
    match &key.target {
        None => key.subject.to_string(),
        Some(target) => format!("{} {target}", key.subject),
    }
}

/// `2026-09-03 13:58 UTC`.
pub fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// White space and line breaks made one space, and not too long.
pub fn one_line(text: &str) -> String {
    cut(&text.split_whitespace().collect::<Vec<_>>().join(" "), MOST_MESSAGE)
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
