//! A workflow drawn as text, Mermaid or dot.

use std::fmt::Write as _;

use super::catalog::Catalog;
use super::effective::{Effective, Origin, StepOrigins};
use super::types::{CountsAs, ForEach, Interrupted, Mode, OnFailure, Overlap, Per, Retry, Step, Workflow};
use crate::workflow::duration;

/// In which language to draw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For the terminal.
    #[default]
    Text,
    /// A Mermaid state diagram.
    Mermaid,
    /// A Graphviz graph.
    Dot,
}

/// Draws the machine of a workflow. `origins`: say where each value comes from (text only).
pub fn show(effective: &Effective, catalog: &dyn Catalog, format: Format, origins: bool) -> String {
    match format {
        Format::Text => text(effective, catalog, origins),
        Format::Mermaid => mermaid(&effective.workflow),
        Format::Dot => dot(&effective.workflow),
    }
}

// Writing to a String cannot fail, hence the ignored results below.

fn text(effective: &Effective, catalog: &dyn Catalog, origins: bool) -> String {
    let workflow = &effective.workflow;
    let from = |origin: &Origin| if origins { format!("  ({origin})") } else { String::new() };
    let mut out = String::new();
    let _ = writeln!(out, "workflow {}: one machine for each {}", workflow.name, subject(workflow.for_each));
    let deadline = duration::format(workflow.deadline);
    let _ = writeln!(out, "  deadline     {deadline}{}", from(&effective.origins.deadline));
    let reserve = duration::format(workflow.reserve);
    let _ = writeln!(out, "  reserve      {reserve} of it for `finally`{}", from(&effective.origins.reserve));
    let overlap = match workflow.overlap {
        Overlap::Skip => "skip what another run is working on".to_owned(),
        Overlap::Wait(wait) => format!("wait up to {} for another run, then skip", duration::format(wait)),
    };
    let _ = writeln!(out, "  overlap      {overlap}{}", from(&effective.origins.overlap));
    let interrupted = match workflow.interrupted {
        Interrupted::ResumeWithin(age) => format!("resume a cut-off run younger than {}", duration::format(age)),
        Interrupted::Supersede => "begin anew; the cut-off run stays as it is".to_owned(),
    };
    let _ = writeln!(out, "  interrupted  {interrupted}{}", from(&effective.origins.interrupted));

    let _ = writeln!(out, "\neach {}, by itself:", subject(workflow.for_each));
    let all = || workflow.steps.iter().chain(&workflow.finally);
    let widths = Widths {
        name: all().map(|step| step.name.as_str().len()).max().unwrap_or(0),
        action: all().map(|step| step.action.name.len()).max().unwrap_or(0),
    };
    for step in &workflow.steps {
        step_text(&mut out, step, &widths, false, catalog, origins.then_some(effective));
    }
    let _ = writeln!(out, "  └─ its machine ends");
    if !workflow.finally.is_empty() {
        let _ = writeln!(out, "\nwhen all machines have ended, once for the run (`finally`):");
        for step in &workflow.finally {
            step_text(&mut out, step, &widths, true, catalog, origins.then_some(effective));
        }
        let _ = writeln!(out, "  └─ the run ends");
    }
    out
}

struct Widths {
    name: usize,
    action: usize,
}

fn step_text(
    out: &mut String,
    step: &Step,
    widths: &Widths,
    run_wide: bool,
    catalog: &dyn Catalog,
    origins: Option<&Effective>,
) {
    let Widths { name, action } = *widths;
    let per = per(step.per).map_or_else(String::new, |per| format!(", {per}"));
    let _ = writeln!(out, "  ├─ {:name$}  {:action$}  {}{per}", step.name, step.action.name, tries(step));
    let mut facts = Vec::new();
    match (step.on_failure, run_wide) {
        (OnFailure::Stop, _) => facts.push("stop if it fails".to_owned()),
        (OnFailure::Continue, false) => facts.push("go on if it fails".to_owned()),
        (OnFailure::Continue, true) => {}
    }
    match step.counts_as {
        CountsAs::Setup | CountsAs::Push => facts.push(format!("counts as {:?}", step.counts_as)),
        CountsAs::Nothing => {}
    }
    if !run_wide {
        facts.push(format!("{} at once", step.parallel));
    }
    if step.when.len() < Mode::ALL.len() {
        let modes: Vec<_> = step.when.iter().map(|mode| format!("{mode:?}")).collect();
        facts.push(format!("only in {}", modes.join(", ")));
    }
    if !facts.is_empty() {
        let _ = writeln!(out, "  │    {}", facts.join("; "));
    }
    if let Some(info) = catalog.info(&step.action) {
        let needs: Vec<_> = info.needs.iter().map(ToString::to_string).collect();
        let provides: Vec<_> = info.provides.iter().map(|provision| provision.product.to_string()).collect();
        let needs = (!needs.is_empty()).then(|| format!("needs {}", needs.join(", ")));
        let provides = (!provides.is_empty()).then(|| format!("provides {}", provides.join(", ")));
        let line = needs.into_iter().chain(provides).collect::<Vec<_>>().join("; ");
        if !line.is_empty() {
            let _ = writeln!(out, "  │    {line}");
        }
    }
    if let Some(of) = origins.and_then(|effective| effective.origins.steps.get(&step.name)) {
        let StepOrigins { timeout, times, backoff, parallel } = of;
        let _ = writeln!(out, "  │    timeout: {timeout}; times: {times}; backoff: {backoff}; parallel: {parallel}");
    }
}

/// `30s, up to 3 more tries after 2s to 15s`.
fn tries(step: &Step) -> String {
    let timeout = duration::format(step.timeout);
    let Retry { times, backoff: (first, longest) } = step.retry;
    let tries = if times == 1 { "try" } else { "tries" };
    match (times, first == longest) {
        (0, _) => timeout,
        (_, true) => format!("{timeout}, then up to {times} more {tries} after {}", duration::format(first)),
        (_, false) => format!(
            "{timeout}, then up to {times} more {tries} after {} to {}",
            duration::format(first),
            duration::format(longest)
        ),
    }
}

fn per(per: Per) -> Option<&'static str> {
    match per {
        Per::Subject => None,
        Per::Credd => Some("per credd"),
        Per::Node => Some("per node"),
    }
}

fn subject(for_each: ForEach) -> &'static str {
    match for_each {
        ForEach::Service => "service",
        ForEach::Account => "account",
    }
}

/// What the diagrams write beside a step. Names of steps and actions hold no character that would have to be escaped.
fn label(step: &Step, line_break: &str) -> String {
    let mut label = format!("{}{line_break}{} {}", step.name, step.action.name, duration::format(step.timeout));
    if let Some(per) = per(step.per) {
        label.push_str(&format!(" {per}"));
    }
    if step.retry.times > 0 {
        label.push_str(&format!(", {} tries", step.retry.times.saturating_add(1)));
    }
    label
}

fn mermaid(workflow: &Workflow) -> String {
    let mut out = String::from("stateDiagram-v2\n");
    let _ = writeln!(out, "    state \"each {}\" as machine {{", subject(workflow.for_each));
    for (number, step) in workflow.steps.iter().enumerate() {
        let _ = writeln!(out, "        state \"{}\" as s{number}", label(step, "<br/>"));
    }
    let _ = writeln!(out, "        [*] --> s0");
    for (number, step) in workflow.steps.iter().enumerate() {
        let next = if number + 1 < workflow.steps.len() { format!("s{}", number + 1) } else { "[*]".to_owned() };
        match step.on_failure {
            OnFailure::Stop => {
                let _ = writeln!(out, "        s{number} --> {next} : succeeded");
                let _ = writeln!(out, "        s{number} --> [*] : failed");
            }
            OnFailure::Continue => {
                let _ = writeln!(out, "        s{number} --> {next}");
            }
        }
    }
    let _ = writeln!(out, "    }}");
    let _ = writeln!(out, "    [*] --> machine");
    let mut before = "machine".to_owned();
    for (number, step) in workflow.finally.iter().enumerate() {
        let _ = writeln!(out, "    state \"{}\" as f{number}", label(step, "<br/>"));
        let _ = writeln!(out, "    {before} --> f{number}");
        before = format!("f{number}");
    }
    let _ = writeln!(out, "    {before} --> [*]");
    out
}

fn dot(workflow: &Workflow) -> String {
    let mut out = format!("digraph \"{}\" {{\n    rankdir=TB;\n    node [shape=box, style=rounded];\n", workflow.name);
    let _ = writeln!(out, "    start [shape=point];");
    let _ = writeln!(out, "    subgraph cluster_machine {{\n        label=\"each {}\";", subject(workflow.for_each));
    for (number, step) in workflow.steps.iter().enumerate() {
        let _ = writeln!(out, "        s{number} [label=\"{}\"];", label(step, "\\n"));
    }
    let _ = writeln!(out, "        ended [shape=doublecircle, label=\"\", width=0.2];\n    }}");
    let _ = writeln!(out, "    start -> s0;");
    for (number, step) in workflow.steps.iter().enumerate() {
        let last = number + 1 == workflow.steps.len();
        let next = if last { "ended".to_owned() } else { format!("s{}", number + 1) };
        match step.on_failure {
            OnFailure::Stop => {
                let _ = writeln!(out, "    s{number} -> {next} [label=\"succeeded\"];");
                let _ = writeln!(out, "    s{number} -> ended [label=\"failed\", style=dashed];");
            }
            OnFailure::Continue => {
                let _ = writeln!(out, "    s{number} -> {next};");
            }
        }
    }
    let mut before = "ended".to_owned();
    for (number, step) in workflow.finally.iter().enumerate() {
        let _ = writeln!(out, "    f{number} [label=\"{}\"];\n    {before} -> f{number};", label(step, "\\n"));
        before = format!("f{number}");
    }
    let _ = writeln!(out, "    done [shape=doublecircle, label=\"\", width=0.2];\n    {before} -> done;\n}}");
    out
}
