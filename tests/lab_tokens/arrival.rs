//! From the vault to the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::support::corner::{Corner, wait_for};
use crate::{
    DUNE, Watcher, always_a_new_token, is_token, kept, kept_of_dune, lab, lifetime_on_node, look_at, mode, node_file,
    strangers,
};

const NOTHING: [PathBuf; 0] = [];
const DAY: u64 = 24 * 3600;

/// With credds for every service.
fn with_credds(config: &mut serde_json::Value) {
    for experiment in config["experiments"].as_object_mut().expect("a map").values_mut() {
        experiment["roles"]["production"]["tokenGetterOverride"] = "storeAndGetToken".into();
    }
}

#[test]
fn tokens_arrive_under_both_names_for_the_account_alone_and_work_and_nothing_is_left_behind() {
    let Some(lab) = lab() else { return };
    let corner = Corner::new(&lab, "arrival");
    corner.configure(with_credds);
    corner.run(&["run", "token-push"]).is_quiet();

    for node in ["node1", "node2"] {
        let mut expected = BTreeSet::new();
        for (experiment, uid) in [("dune", 1234), ("mu2e", 1235)] {
            let names = [format!("vt_u{uid}"), format!("vt_u{uid}-{experiment}_production")];
            let role = format!("default_role_{experiment}_{uid}");
            let kept = corner.path(format!("tokens/vt_u{}-{experiment}_production", corner.own_uid()));
            let kept = fs::read_to_string(kept).expect("it is kept");
            for name in &names {
                assert!(fs::read_to_string(node_file(&lab, node, name)).expect("it arrived") == kept, "{node} {name}");
                assert!(lifetime_on_node(&lab, node, name) > 3 * DAY, "{node} {name} can be used for days");
            }
            assert_eq!(fs::read_to_string(node_file(&lab, node, &role)).expect("it arrived"), "production\n");
            for name in names.into_iter().chain([role]) {
                let path = node_file(&lab, node, &name);
                let meta = look_at(&path);
                assert_eq!(mode(&meta), (0o400, true), "{node} {name}");
                let owner = if lab.has_own_accounts() { uid } else { corner.own_uid() };
                assert_eq!(meta.uid(), owner, "{node} {name}");
                expected.insert(path);
            }
        }
        let there: BTreeSet<PathBuf> = strangers(&lab.path(format!("nodes/{node}/tmp"))).into_iter().collect();
        assert_eq!(there, expected, "nothing else, such as a temporary file");
    }

    let tokens = kept(&corner);
    assert_eq!(tokens.len(), 6, "for each service its own and one for each credd: {tokens:?}");
    for path in &tokens {
        let meta = look_at(path);
        assert_eq!((mode(&meta), meta.uid()), ((0o600, true), corner.own_uid()), "{}", path.display());
    }
    assert_eq!(strangers(&lab.path("tmp")), NOTHING, "no vt_*, bt_* or krb5cc* stays in /tmp");
    assert_eq!(corner.private_files(), NOTHING);

    // The second run finds tokens that are good for days.
    let content = || -> BTreeMap<PathBuf, String> {
        kept(&corner).into_iter().map(|path| (path.clone(), fs::read_to_string(path).expect("it is kept"))).collect()
    };
    let before = content();
    corner.run(&["run", "token-push"]).is_quiet();
    assert!(content() == before, "the kept tokens are used again");
    // Unless they would not live long enough.
    wait_for("the token to be older than that", || {
        look_at(&kept_of_dune(&corner)).modified().expect("a time").elapsed().is_ok_and(|age| age.as_secs() > 2)
    });
    corner.configure(always_a_new_token);
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    let renewed = fs::read_to_string(kept_of_dune(&corner)).expect("it is kept");
    assert!(renewed != before[&kept_of_dune(&corner)]);
    assert!(fs::read_to_string(node_file(&lab, "node2", "vt_u1234")).expect("it arrived") == renewed);
}

#[test]
fn what_is_staged_is_for_the_client_alone_under_names_nobody_can_guess_and_goes_with_the_run() {
    let Some(lab) = lab() else { return };
    let corner = Corner::new(&lab, "staged");
    corner.configure(with_credds);
    // Now there are kept tokens for the storer to start from.
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();

    let storer = corner.hold("condor_vault_storer");
    let rsync = corner.hold("rsync");
    let run = corner.start(&["run", "token-push", "-s", DUNE]);
    wait_for("the storers", || corner.calls("condor_vault_storer").len() == 2);
    let planted = strangers(&lab.path("tmp"));
    assert_eq!(planted.len(), 2, "{planted:?}");
    let private = corner.private_files();
    let process = private[0].file_stem().expect("a process's directory").to_string_lossy().into_owned();
    assert_eq!(process.len(), 26, "a ULID, of which 80 bits are random: {process}");
    for path in &planted {
        assert_eq!(mode(&look_at(path)), (0o600, true), "{}", path.display());
        assert!(path.to_string_lossy().contains(&process), "{}", path.display());
    }
    storer.open();
    wait_for("the pushes", || corner.calls("rsync").len() == 2);
    let (mut directories, mut tokens) = (0, 0);
    for path in corner.private_files() {
        let meta = look_at(&path);
        assert_eq!(meta.uid(), corner.own_uid());
        if meta.is_dir() {
            directories += 1;
            assert_eq!(mode(&meta).0, 0o700, "{}", path.display());
        } else {
            assert_eq!(mode(&meta), (0o600, true), "{}", path.display());
            tokens += usize::from(fs::read_to_string(&path).is_ok_and(|content| is_token(&content)));
        }
    }
    assert!(
        directories >= 3 && tokens >= 5,
        "{directories} directories, {tokens} tokens: two names on two nodes, one copy"
    );
    assert_eq!(strangers(&lab.path("tmp")), NOTHING, "the storers' files are gone with them");
    rsync.open();
    run.end().is_quiet();
    assert_eq!((corner.private_files(), strangers(&lab.path("tmp"))), (vec![], vec![]));
}

#[test]
fn whoever_reads_on_a_node_while_tokens_arrive_sees_whole_ones_or_none() {
    let Some(lab) = lab() else { return };
    let corner = Corner::new(&lab, "readers");
    let names = ["vt_u1234".to_owned(), format!("vt_u1234-{DUNE}")];
    let watcher = Watcher::of(names.iter().map(|name| node_file(&lab, "node1", name)));
    let own = Watcher::of([kept_of_dune(&corner)]);
    for round in 1..=3 {
        corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
        assert_eq!((watcher.replaced(), own.replaced()), (2, 1), "round {round}");
        let kept = fs::read_to_string(kept_of_dune(&corner)).expect("it is kept");
        for name in &names {
            assert!(fs::read_to_string(node_file(&lab, "node1", name)).expect("it arrived") == kept);
        }
        // So that the next round gets another one.
        fs::remove_file(kept_of_dune(&corner)).expect("it is kept");
        assert_eq!(own.replaced(), 0);
    }
}
