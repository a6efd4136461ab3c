//! Two services that are one to the token issuer.

use std::fs;

use crate::support::corner::Corner;
use crate::{
    DUNE, NODE1, Watcher, always_a_new_token, is_token, kept, kept_of_dune, lab, lifetime_on_node, node_file, strangers,
};

const OTHER: &str = "dune-2_production";
const ROUNDS: usize = 10;

/// Runs wait for each other, and the chain is as short as can be.
const WORKFLOW: &str = r#"Workflow(
    name: "token-push", for_each: Service, deadline: "5m", overlap: Wait("4m"), interrupted: Supersede,
    steps: [
        Step(name: "kinit", action: Kinit, timeout: "60s", on_failure: Stop, counts_as: Setup),
        Step(name: "get-vault-token", action: GetVaultToken, timeout: "100s", on_failure: Stop, counts_as: Setup),
        Step(name: "push", action: Push, per: Node, timeout: "60s", on_failure: Continue, counts_as: Push),
    ],
    finally: [Step(name: "notify", action: Notify, timeout: "15s")],
)"#;

#[test]
fn two_services_with_one_issuers_name_at_once_keep_their_common_file_whole() {
    let Some(lab) = lab() else { return };
    let corner = Corner::new(&lab, "one-issuer");
    corner.configure(|config| {
        always_a_new_token(config);
        let experiments = config["experiments"].as_object_mut().expect("a map");
        experiments.remove("mu2e");
        experiments["dune"]["roles"]["production"]["destinationNodes"] = serde_json::json!([NODE1]);
        let mut other = experiments["dune"].clone();
        other["experimentOverride"] = "dune".into();
        experiments.insert("dune-2".to_owned(), other);
    });
    corner.workflow("token-push", WORKFLOW);
    corner.run(&["run", "token-push"]).is_quiet();
    assert_eq!(kept(&corner), [kept_of_dune(&corner)], "one file for both");

    let kept = Watcher::of([kept_of_dune(&corner)]);
    let names = ["vt_u1234".to_owned(), format!("vt_u1234-{DUNE}")];
    let arrived = Watcher::of(names.iter().map(|name| node_file(&lab, "node1", name)));
    let runs: Vec<_> = (0..ROUNDS)
        .flat_map(|_| [DUNE, OTHER])
        .map(|service| corner.start(&["run", "token-push", "--new", "-s", service]))
        .collect();
    for run in runs {
        run.end().is_quiet();
    }
    assert_eq!((kept.replaced(), arrived.replaced()), (2 * ROUNDS, 4 * ROUNDS), "each time whole");
    assert!(is_token(&fs::read_to_string(kept_of_dune(&corner)).expect("it is kept")));
    for name in names {
        assert!(lifetime_on_node(&lab, "node1", &name) > 0);
    }
    let listed =
        corner.run(&["runs", "list", "--limit", "100", "--status", "succeeded", "--output", "ndjson"]).exits(0);
    assert_eq!(listed.out.lines().count(), 2 * ROUNDS + 1);
    assert_eq!((corner.private_files(), strangers(&lab.path("tmp"))), (vec![], vec![]));
}
