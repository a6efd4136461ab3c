//! The decision table of resume, enumerated completely and compared with oracles written in another style.

use std::collections::BTreeSet;

use managed_tokens::workflow::action::{ActionInfo, ProductState, Provision};
use managed_tokens::workflow::id::{Product, RunId, StepName, TargetName};
use managed_tokens::workflow::resume::{MachineDecision, ProductUse, StepFacts, What, decide, decide_machine, plan};
use managed_tokens::workflow::run::{StepState, TargetState};
use managed_tokens::workflow::status::{MachineStatus, StepStatus};

/// The first line that fits decides. `*` fits everything.
const TARGETS: &str = "
    skipped        *    *           leave
    gone           *    *           gone
    *              no   *           gone
    succeeded      yes  lost        redo
    succeeded      yes  *           reuse
    *              yes  *           redo
";

const MACHINES: &str = "
    succeeded      *    *           leave
    gone           *    *           leave
    superseded     *    *           leave
    *              no   *           gone
    *              yes  newer       superseded
    *              yes  none        work
";

fn first_match<'a>(table: &'a str, row: [&str; 3]) -> &'a str {
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.len() == 4)
        .find(|words| words.iter().zip(row).all(|(want, is)| *want == "*" || *want == is))
        .expect("every row is decided")[3]
}

#[test]
fn every_row_of_the_target_table_is_as_the_oracle_says() {
    let mut rows = 0;
    for &status in StepStatus::ALL {
        for configured in [true, false] {
            for &product in ProductUse::ALL {
                let used = match product {
                    ProductUse::NotNeeded => "not-needed",
                    ProductUse::Usable => "usable",
                    ProductUse::Lost => "lost",
                };
                let expected = first_match(TARGETS, [status.as_str(), if configured { "yes" } else { "no" }, used]);
                assert_eq!(decide(status, configured, product).as_str(), expected, "{status} {configured} {used}");
                rows += 1;
            }
        }
    }
    assert_eq!(rows, 60);
}

#[test]
fn every_row_of_the_machine_table_is_as_the_oracle_says() {
    let other = RunId::generate();
    for &status in MachineStatus::ALL {
        for configured in [true, false] {
            for newer in [None, Some(other)] {
                let row = [
                    status.as_str(),
                    if configured { "yes" } else { "no" },
                    if newer.is_some() { "newer" } else { "none" },
                ];
                let got = match decide_machine(status, configured, newer) {
                    MachineDecision::Leave => "leave",
                    MachineDecision::Work => "work",
                    MachineDecision::Gone => "gone",
                    MachineDecision::Superseded(by) => {
                        assert_eq!(by, other);
                        "superseded"
                    }
                };
                assert_eq!(got, first_match(MACHINES, row), "{row:?}");
            }
        }
    }
}

/// Name, needs, and what it makes and whether that outlives the process.
type Link = (&'static str, Vec<&'static str>, Option<(&'static str, bool)>);

/// kinit makes a ticket that dies with the process; get makes a token that outlives it; store and push use them.
fn chain() -> [Link; 4] {
    [
        ("kinit", vec![], Some(("Ticket", false))),
        ("get", vec!["Ticket"], Some(("Token", true))),
        ("store", vec!["Ticket"], None),
        ("push", vec!["Ticket", "Token"], None),
    ]
}

fn state(name: &str, status: StepStatus) -> StepState {
    let target = TargetState { name: TargetName::only(), status, attempts: Vec::new() };
    StepState { name: StepName::new(name), status, targets: vec![target], why: None }
}

/// Written forwards, as a fixpoint: a step runs if it has work of its own, or if a step that runs needs what it made
/// and that cannot be had any more. The planner walks backwards once.
fn oracle(statuses: [StepStatus; 4], token_usable: bool) -> (BTreeSet<usize>, BTreeSet<usize>) {
    let chain = chain();
    let done = |i: usize| matches!(statuses[i], StepStatus::Succeeded | StepStatus::Skipped | StepStatus::Gone);
    let mut runs: BTreeSet<usize> = (0..4).filter(|&i| !done(i)).collect();
    loop {
        let before = runs.clone();
        for (i, (_, _, makes)) in chain.iter().enumerate() {
            let Some((product, outlives)) = makes else { continue };
            let needed = chain
                .iter()
                .enumerate()
                .any(|(j, (_, needs, _))| j > i && runs.contains(&j) && needs.contains(product));
            let usable = *outlives && token_usable;
            if needed && !usable && statuses[i] == StepStatus::Succeeded {
                runs.insert(i);
            }
        }
        if runs == before {
            break;
        }
    }
    let adopt = (0..4)
        // A skipped or vanished step made nothing, so there is nothing to take over.
        .filter(|&i| !runs.contains(&i) && statuses[i] == StepStatus::Succeeded)
        .filter(|&i| {
            chain[i].2.is_some_and(|(product, outlives)| {
                outlives
                    && token_usable
                    && chain
                        .iter()
                        .enumerate()
                        .any(|(j, (_, needs, _))| j > i && runs.contains(&j) && needs.contains(&product))
            })
        })
        .collect();
    (runs, adopt)
}

#[test]
fn every_combination_of_a_chain_of_steps_is_planned_as_the_oracle_says() {
    let mut combinations = 0;
    let all = StepStatus::ALL;
    for &a in all {
        for &b in all {
            for &c in all {
                for &d in all {
                    for usable in [true, false] {
                        let statuses = [a, b, c, d];
                        let states: Vec<StepState> =
                            chain().iter().zip(statuses).map(|((name, _, _), s)| state(name, s)).collect();
                        let facts: Vec<StepFacts<'_>> = chain()
                            .into_iter()
                            .zip(&states)
                            .map(|((_, needs, makes), state)| StepFacts {
                                state,
                                fans_out: false,
                                info: ActionInfo {
                                    needs: needs.into_iter().map(Product::new).collect(),
                                    provides: makes
                                        .into_iter()
                                        .map(|(p, outlives_process)| Provision {
                                            product: Product::new(p),
                                            outlives_process,
                                        })
                                        .collect(),
                                },
                                product: if usable {
                                    ProductState::Usable("kept token unchanged".into())
                                } else {
                                    ProductState::Lost("the kept token is gone".into())
                                },
                                unconfigured: BTreeSet::new(),
                            })
                            .collect();
                        let plans = plan(&facts);
                        let runs: BTreeSet<usize> = (0..4).filter(|&i| plans[i].runs).collect();
                        let (expected, adopt) = oracle(statuses, usable);
                        assert_eq!(runs, expected, "{statuses:?} usable={usable}");
                        let adopted: BTreeSet<usize> = (0..4).filter(|&i| plans[i].adopt).collect();
                        assert_eq!(adopted, adopt, "{statuses:?} usable={usable}");
                        combinations += 1;
                    }
                }
            }
        }
    }
    assert_eq!(combinations, 20_000);
}

#[test]
fn targets_that_succeeded_are_reused_beside_one_that_is_redone_and_one_that_is_gone() {
    let target = |name: &str, status| TargetState { name: TargetName::new(name), status, attempts: Vec::new() };
    let push = StepState {
        name: StepName::new("push"),
        status: StepStatus::Pending,
        targets: vec![
            target("node1", StepStatus::Succeeded),
            target("node2", StepStatus::Pending),
            target("node3", StepStatus::Failed),
        ],
        why: None,
    };
    let facts = StepFacts {
        state: &push,
        fans_out: true,
        info: ActionInfo::default(),
        product: ProductState::Lost(String::new()),
        unconfigured: BTreeSet::from([TargetName::new("node3")]),
    };
    let plans = plan(&[facts]);
    let what: Vec<What> = plans[0].targets.iter().map(|t| t.what).collect();
    assert_eq!(what, [What::Reuse, What::Redo, What::Gone]);
    assert!(plans[0].runs && plans[0].listed);
}
