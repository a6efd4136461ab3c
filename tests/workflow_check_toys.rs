//! Promise: the reader of workflow files knows no action by itself. A program that has never heard of tokens hands it a
//! catalog of its own.

use managed_tokens::workflow::action::{ActionInfo, Provision};
use managed_tokens::workflow::definition::read::{self, Mistake};
use managed_tokens::workflow::definition::{
    ActionShape, Arguments, Catalog, CountsAs, Diagnostic, ForEach, Per, Place, Workflow, codes, render,
};
use managed_tokens::workflow::id::Product;

struct Kitchen;

impl Catalog for Kitchen {
    fn action(&self, name: &str) -> Option<ActionShape> {
        let shape = |place, arguments| ActionShape {
            place,
            per: &[Per::Subject, Per::Node],
            for_each: &[ForEach::Service, ForEach::Account],
            counts_as: CountsAs::Nothing,
            arguments,
        };
        match name {
            "Boil" => Some(shape(Place::Steps, Arguments::None(boil))),
            "Brew" => Some(shape(Place::Steps, Arguments::Some(brew, "Brew(leaves: 3)"))),
            "WashUp" => Some(shape(Place::Finally, Arguments::None(wash_up))),
            "FillSink" => Some(shape(Place::Finally, Arguments::None(fill_sink))),
            _ => None,
        }
    }

    fn names(&self) -> Vec<&'static str> {
        vec!["Boil", "Brew", "WashUp", "FillSink"]
    }

    fn given(&self) -> Vec<Product> {
        vec![Product::new("Cup")]
    }
}

fn info(needs: &[&str], provides: &[&str]) -> ActionInfo {
    let provision = |name: &&str| Provision { product: Product::new(*name), outlives_process: true };
    ActionInfo {
        needs: needs.iter().map(|name| Product::new(*name)).collect(),
        provides: provides.iter().map(provision).collect(),
    }
}

fn boil() -> ActionInfo {
    info(&[], &["Water"])
}

fn wash_up() -> ActionInfo {
    info(&["Water"], &[])
}

fn fill_sink() -> ActionInfo {
    info(&[], &["Water"])
}

fn brew(text: &str) -> Result<ActionInfo, Vec<Mistake<'_>>> {
    let fields = read::fields(text, "Brew").map_err(|mistake| vec![mistake])?;
    for field in fields {
        read::number(field.value, 1, 9).map_err(|mistake| vec![mistake])?;
    }
    Ok(info(&["Cup", "Water"], &["Tea"]))
}

fn text(steps: &str, finally: &str) -> String {
    format!("Workflow(name: \"tea\", for_each: Account, deadline: \"5m\", steps: [{steps}], finally: [{finally}])")
}

fn workflow(steps: &str, finally: &str) -> Result<Workflow, Vec<Diagnostic>> {
    Workflow::parse(&text(steps, finally), "tea.ron", &Kitchen).map(|(workflow, _)| workflow)
}

const BOIL: &str = "Step(name: \"boil\", action: Boil, timeout: \"1m\"),";
const BREW: &str = "Step(name: \"brew\", action: Brew(leaves: 3), timeout: \"1m\"),";
const WASH: &str = "Step(name: \"wash\", action: WashUp, timeout: \"5s\"),";
const FILL: &str = "Step(name: \"fill\", action: FillSink, timeout: \"5s\"),";

#[track_caller]
fn only(result: Result<Workflow, Vec<Diagnostic>>) -> Diagnostic {
    let found = result.expect_err("a mistake");
    assert_eq!(found.len(), 1, "{}", render(&found, false));
    found.into_iter().next().unwrap()
}

#[test]
fn toy_actions_make_a_workflow() {
    let tea = workflow(&[BOIL, BREW].concat(), "").unwrap();
    assert_eq!(tea.steps[1].action.arguments.as_deref(), Some("(leaves: 3)"));
    assert_eq!(Kitchen.info(&tea.steps[1].action), Some(info(&["Cup", "Water"], &["Tea"])));
    assert_eq!(tea.steps[1].counts_as, CountsAs::Nothing, "the catalog's default");
}

#[test]
fn their_needs_are_looked_at() {
    let mistake = only(workflow(&[BREW, BOIL].concat(), ""));
    assert_eq!(mistake.code, codes::NEEDS);
    assert_eq!(mistake.help.as_deref(), Some("put a Boil step before it"), "FillSink stands in `finally` only");
}

#[test]
fn their_arguments_are_checked_by_them_at_the_right_place() {
    let steps = [BOIL, &BREW.replace("3", "30")].concat();
    let mistake = only(workflow(&steps, ""));
    assert_eq!(mistake.code, codes::BAD_NUMBER);
    assert!(render(std::slice::from_ref(&mistake), false).contains("Brew(leaves: 30)"));
    assert_eq!(mistake.column, Some(text(&steps, "").find("30").unwrap() + 1));
}

#[test]
fn finally_begins_without_what_the_machines_made() {
    let mistake = only(workflow(BOIL, WASH));
    assert_eq!(mistake.code, codes::NEEDS);
    assert!(mistake.message.contains("\"wash\" needs Water"), "{}", mistake.message);
    assert!(workflow(BOIL, &[FILL, WASH].concat()).is_ok());
}

#[test]
fn actions_of_another_program_do_not_exist_here() {
    let mistake = only(workflow("Step(name: \"k\", action: Kinit, timeout: \"1s\")", ""));
    assert_eq!(mistake.code, codes::UNKNOWN_ACTION);
    assert_eq!(mistake.help.as_deref(), Some("the actions are Boil, Brew, WashUp, FillSink"));
}
