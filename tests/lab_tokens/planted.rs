//! What others put in the way.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use crate::support::corner::{Corner, step, target};
use crate::support::lab::Lab;
use crate::{DUNE, NODE1, NODE2, kept_of_dune, lab, lifetime_on_node, look_at, mode, node_file, strangers};

const PRECIOUS: &str = "precious\n";

/// A file that whoever follows a link to it could overwrite.
fn victim(path: &Path, owner: u32) -> PathBuf {
    fs::write(path, PRECIOUS).expect("it can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("it is ours");
    chown(path, Some(owner), Some(owner)).expect("root may, and else it is ours already");
    path.to_owned()
}

#[track_caller]
fn unharmed(victim: &Path) {
    assert_eq!(fs::read_to_string(victim).expect("it is there"), PRECIOUS);
    assert_eq!(mode(&look_at(victim)), (0o666, true));
}

/// A link in a node's /tmp, whose target is named as the node sees it.
fn plant_on_node(lab: &Lab, node: &str, name: &str, to: &str, owner: u32) {
    let link = node_file(lab, node, name);
    symlink(format!("/tmp/{to}"), &link).expect("nothing is there yet");
    std::os::unix::fs::lchown(&link, Some(owner), Some(owner)).expect("root may, and else it is ours already");
}

fn account(lab: &Lab, corner: &Corner, uid: u32) -> u32 {
    if lab.has_own_accounts() { uid } else { corner.own_uid() }
}

#[test]
fn a_link_of_the_accounts_own_on_a_node_is_replaced_and_not_followed() {
    let Some(lab) = lab() else { return };
    let corner = Corner::new(&lab, "own-link");
    let owner = account(&lab, &corner, 1234);
    let other = format!("vt_u1234-{DUNE}");
    let victim = victim(&node_file(&lab, "node1", "victim"), owner);
    plant_on_node(&lab, "node1", "vt_u1234", "victim", owner);
    plant_on_node(&lab, "node1", &other, "victim", owner);
    plant_on_node(&lab, "node1", "default_role_dune_1234", "nowhere", owner);
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    unharmed(&victim);
    for name in ["vt_u1234", &other, "default_role_dune_1234"] {
        assert_eq!(mode(&look_at(&node_file(&lab, "node1", name))), (0o400, true), "{name}");
    }
    assert!(lifetime_on_node(&lab, "node1", "vt_u1234") > 0);
    assert!(!node_file(&lab, "node1", "nowhere").exists());
}

#[test]
fn a_link_of_somebody_else_on_a_node_is_not_followed_and_the_push_says_what_is_in_its_way() {
    let Some(lab) = lab() else { return };
    if !lab.has_own_accounts() {
        eprintln!("SKIPPED: only root can give a link to somebody else");
        return;
    }
    let corner = Corner::new(&lab, "foreign-link");
    let victim = victim(&node_file(&lab, "node1", "victim"), 1234);
    plant_on_node(&lab, "node1", "vt_u1234", "victim", 1235);
    let ended = corner.run(&["run", "token-push", "-s", DUNE]).exits(11);
    unharmed(&victim);
    // Sticky /tmp: only its owner can remove it.
    assert!(look_at(&node_file(&lab, "node1", "vt_u1234")).is_symlink());
    let run = corner.show("latest");
    let attempts = target(&run, DUNE, "push", NODE1)["attempts"].as_array().expect("attempts");
    assert_eq!((attempts.len(), &attempts[0]["class"]), (1, &serde_json::json!("permanent")), "no use in trying again");
    let message = attempts[0]["message"].as_str().expect("a message");
    for word in ["vt_u1234", "Operation not permitted"] {
        assert!(message.contains(word) && ended.err.contains(word), "{word}: {ended:?}");
    }
    // What is not in its way arrives, here and elsewhere.
    assert!(lifetime_on_node(&lab, "node1", &format!("vt_u1234-{DUNE}")) > 0);
    assert_eq!(target(&run, DUNE, "push", NODE2)["status"], "succeeded");
}

#[test]
fn links_planted_for_the_kept_file_and_its_lock_are_refused_and_the_token_is_pushed_all_the_same() {
    let Some(lab) = lab() else { return };
    for planted_as in ["vt", ".lock"] {
        let corner = Corner::new(&lab, &format!("kept{planted_as}"));
        let victim = victim(&corner.path("victim"), corner.own_uid());
        let kept = kept_of_dune(&corner);
        let link = match planted_as {
            "vt" => kept.clone(),
            _ => kept.with_file_name(format!(".vt_u{}-{DUNE}.lock", corner.own_uid())),
        };
        symlink(&victim, &link).expect("nothing is there yet");
        let ended = corner.run(&["run", "token-push", "-s", DUNE]).exits(0);
        unharmed(&victim);
        assert!(look_at(&link).is_symlink(), "it stays for a look");
        assert!(ended.err.contains("symbolic link") && ended.err.contains(&*kept.to_string_lossy()), "{ended:?}");
        let run = corner.show("latest");
        let note = target(&run, DUNE, "get-vault-token", "-")["attempts"][0]["note"].as_str().expect("a note");
        assert!(note.contains("symbolic link"), "{note}");
        assert!(lifetime_on_node(&lab, "node1", "vt_u1234") > 0);
    }
}

/// A storer as before 2023: its files have one name per user and service.
fn old_storer(corner: &Corner) {
    corner.configure(|config| {
        config["experiments"]["dune"]["roles"]["production"]["tokenGetterOverride"] = "storeAndGetToken".into();
    });
    let real = corner.lab.path("bin/condor_vault_storer");
    corner.program("condor_vault_storer", &format!("#!/bin/sh\nexec {} \"$@\"\n", real.display()));
}

#[test]
fn a_link_planted_under_the_shared_name_of_an_old_storer_is_refused() {
    let Some(lab) = lab() else { return };
    let corner = Corner::new(&lab, "old-link");
    old_storer(&corner);
    let victim = victim(&corner.path("victim"), corner.own_uid());
    let link = lab.path(format!("tmp/vt_u{}-{DUNE}", corner.own_uid()));
    symlink(&victim, &link).expect("nothing is there yet");
    let ended = corner.run(&["run", "token-push", "-s", DUNE]).exits(11);
    unharmed(&victim);
    assert!(look_at(&link).is_symlink(), "it stays for a look");
    assert!(ended.err.contains(&format!("/tmp/vt_u{}-{DUNE}: it is a symbolic link", corner.own_uid())), "{ended:?}");
    let run = corner.show("latest");
    assert_eq!(step(&run, DUNE, "store-in-credd")["status"], "failed");
    assert_eq!(step(&run, DUNE, "push")["status"], "succeeded", "the token does not depend on it");
}

#[test]
fn what_lies_under_the_shared_name_of_an_old_storer_is_put_back() {
    let Some(lab) = lab() else { return };
    let corner = Corner::new(&lab, "old-storer");
    old_storer(&corner);
    let own = |suffix: &str| lab.path(format!("tmp/vt_u{}{suffix}", corner.own_uid()));
    let files = [own(""), own(&format!("-{DUNE}"))];
    for (file, token) in files.iter().zip(["hvs.theirs-1", "hvs.theirs-2"]) {
        fs::write(file, token).expect("it can be written");
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("it is ours");
        corner.give(file);
    }
    corner.run(&["run", "token-push", "-s", DUNE]).is_quiet();
    for (file, token) in files.iter().zip(["hvs.theirs-1", "hvs.theirs-2"]) {
        assert_eq!(fs::read_to_string(file).expect("it is back"), token);
        let meta = look_at(file);
        assert_eq!((mode(&meta), meta.uid()), ((0o600, true), corner.own_uid()));
    }
    assert_eq!(strangers(&lab.path("tmp")).len(), 2);
}
