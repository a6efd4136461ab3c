//! `token-push` and `refresh-uids-from-ferry`, as links to `mt`.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use support::corner::{Corner, Ended, step};
use support::lab::Lab;

mod support;

const NAMES: [&str; 2] = ["token-push", "refresh-uids-from-ferry"];

fn link(name: &str, words: &[&str]) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join(name);
    symlink(env!("CARGO_BIN_EXE_mt"), &link).unwrap();
    let config = dir.path().join("managedTokens.yml");
    let text = "keytabPath: /k\nkerberosPrincipalPattern: '{{.Account}}@R'\nlogs: {token-push: {logfile: /dev/null}}\nexperiments:\n  \
                dune: {roles: {production: {account: dunepro, destinationNodes: [n1]}, analysis: {account: dune, destinationNodes: [n1]}}}\n";
    fs::write(&config, text).unwrap();
    let mut command = Command::new(&link);
    command.args(words).env("MT_CONFIG", &config).env("MT_STATE_DIR", dir.path().join("state"));
    command.output().unwrap().into()
}

#[test]
fn each_says_its_name_version_and_flags() {
    for name in NAMES {
        let version = link(name, &["--version"]).exits(0).out;
        assert_eq!(version, format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
        let help = link(name, &["--help"]).exits(0).out;
        assert!(help.contains("The old name of `mt run ") && help.contains("--dont-notify"), "{help}");
        let wrong = link(name, &["--no-such-flag"]).exits(2).err;
        assert!(wrong.contains("--no-such-flag"), "{wrong}");
    }
}

#[test]
fn neither_works_for_root() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can see itself refused");
        return;
    }
    for (name, words) in
        [("token-push", &[][..]), ("token-push", &["--list-services"]), ("refresh-uids-from-ferry", &["-t"])]
    {
        let refused = link(name, words).exits(1);
        assert!(refused.err.contains("MT0090") && refused.out.is_empty(), "{refused:?}");
    }
}

#[test]
fn what_cron_calls_by_the_old_names_finds_the_configuration_where_it_always_was() {
    let Some(lab) = Lab::up() else { return };
    let corner = Corner::new(&lab, "cron");
    for name in NAMES {
        symlink(lab.path("bin/mt"), corner.path("bin").join(name)).unwrap();
    }
    // The crontab of the package, with the old names, in a home of its own and without a variable that names a file.
    let home = corner.path("home");
    fs::create_dir_all(home.join(".managed-tokens")).unwrap();
    fs::copy(corner.path("managedTokens.json"), home.join(".managed-tokens/managedTokens.json")).unwrap();
    let crontab = include_str!("../packaging/cron.d/managed-tokens")
        .replace("/usr/bin/mt run token-push", "token-push")
        .replace("/usr/bin/mt run ferry-refresh", "refresh-uids-from-ferry");
    let lines: Vec<&str> = crontab.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines.len(), NAMES.len(), "{crontab}");
    for (line, name) in lines.iter().zip(NAMES) {
        // Five fields of time, and the account.
        let command = line.splitn(7, ' ').nth(6).unwrap();
        assert_eq!(command, name);
        let words = format!("unset MT_CONFIG MT_STATE_DIR; PATH={}:$PATH {command}", corner.path("bin").display());
        let home = format!("HOME={}", home.display());
        let ended: Ended = lab.command(&["env", &home, "/bin/sh", "-c", &words]).output().unwrap().into();
        ended.is_quiet();
    }
    let runs = corner.runs();
    let workflows: Vec<_> = runs.iter().rev().map(|run| (&run["workflow"], &run["status"])).collect();
    assert_eq!(
        workflows,
        [(&"token-push".into(), &"succeeded".into()), (&"ferry-refresh".into(), &"succeeded".into())]
    );
    // The exit code says what no mail of cron's said before.
    corner.spy("kinit", "exit 1");
    let mut failing = corner.called("token-push", &["--dont-notify", "--no-loki", "-e", "dune"]);
    let failed: Ended = failing.output().unwrap().into();
    assert_eq!(failed.code, Some(11), "{failed:?}");
}

#[test]
fn both_do_their_job() {
    let Some(lab) = Lab::up() else { return };
    let corner = Corner::new(&lab, "old");
    for name in NAMES {
        symlink(lab.path("bin/mt"), corner.path("bin").join(name)).unwrap();
    }
    let old = |words: &[&str]| -> Ended {
        let program = corner.path("bin").join(words[0]);
        let words = [&[program.to_str().unwrap()], &words[1..]].concat();
        let mut command = lab.command(&words);
        command.env("MT_CONFIG", corner.path("managedTokens.json")).env("MT_STATE_DIR", corner.state());
        command.output().unwrap().into()
    };
    assert_eq!(old(&["token-push", "--list-services"]).exits(0).out, "dune_production\nmu2e_production\n");
    old(&["token-push", "-t", "-s", "dune_production", "--dont-notify"]).is_quiet();
    let run = corner.show("latest");
    assert_eq!((&run["workflow"], &run["mode"]), (&"token-push".into(), &"test".into()));
    old(&["token-push", "--experiment=dune", "--no-loki"]).is_quiet();
    assert_eq!(step(&corner.show("latest"), "dune_production", "push")["status"], "succeeded");
    let said = old(&["token-push", "-v", "-s", "dune_production", "-t"]).exits(0).err;
    assert!(said.contains("DEBUG") && said.contains("kinit"), "{said}");
    old(&["refresh-uids-from-ferry", "--authmethod", "jwt", "--disable-notifications"]).exits(0);
    let run = corner.show("latest");
    assert_eq!((&run["workflow"], &run["status"]), (&"ferry-refresh".into(), &"succeeded".into()));
    assert!(fs::read_to_string(lab.path("out/ferry.jsonl")).unwrap().contains("\"bearer\": true"));
}
