//! Words to try templates with.

use super::words::{PushWords, RunWords, ServiceWords, SetupWords, TroubleWords, Words};

/// A message with everything in it, one with little, and the one of a test that went well.
pub(super) fn all() -> Vec<Words> {
    let service = |name: &str, setup: Vec<SetupWords>| ServiceWords {
        name: name.to_owned(),
        summary: format!("{name}: token not refreshed on 1 of 2 nodes for 3 runs"),
        setup,
        news: vec!["the UID has changed".to_owned()],
        pushes: vec![PushWords { node: "node1.example.org".into(), runs: 3, message: "Connection refused".into() }],
        node_width: 17,
        next: vec!["look at the node".to_owned()],
    };
    let setup =
        SetupWords { text: "kinit: no keytab".into(), row: "failing for 3 runs".into(), next: "put it there".into() };
    let full = Words {
        summary: "errors of 2 services: dune_production, mu2e_production".to_owned(),
        all_well: false,
        run: RunWords {
            id: "01k4q8vtp00000000000000000".to_owned(),
            workflow: "token-push".to_owned(),
            host: "mt01".to_owned(),
            started: "2026-09-03 13:58 UTC".to_owned(),
            test: false,
            recorded: true,
        },
        troubles: vec![TroubleWords { code: "MT0071".into(), message: "no store".into(), next: "look".into() }],
        services: vec![service("dune_production", vec![setup]), service("mu2e_production", vec![])],
        recovered: vec!["nova_production node1.example.org".to_owned()],
    };
    let little = Words {
        troubles: vec![],
        services: vec![service("dune_production", vec![])],
        recovered: vec![],
        ..full.clone()
    };
    let well = Words { all_well: true, services: vec![], ..little.clone() };
    vec![full, little, well]
}
