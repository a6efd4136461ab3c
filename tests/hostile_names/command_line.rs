//! Words of the command line.

use super::*;

#[test]
fn a_hostile_selector_on_the_command_line_is_refused_by_name_before_anything_runs() {
    let place = Place::new();
    fs::write(place.path("c.json"), place.good().to_string()).unwrap();
    assert!(place.mt(&["uids", "set", "dunepro", "1234"]).status.success(), "there is a store to look into");
    let commands: &[&[&str]] = &[
        &["run", "token-push", "--service=@"],
        &["run", "token-push", "--experiment=@"],
        &["run", "token-push", "--onboard", "--service=@"],
        &["run", "token-push", "--authmethod=@"],
        &["run", "--", "@"],
        &["services", "show", "--", "@"],
        &["uids", "set", "--", "@", "1234"],
        &["uids", "set", "dunepro", "--", "@"],
        &["counters", "reset", "--", "@"],
        &["runs", "list", "--limit=@"],
        &["runs", "show", "--service=@"],
        &["--configfile=@", "config", "check"],
        &["run", "token-push", "--admin=@"],
        &["runs", "list", "--since=@"],
        &["runs", "list", "--status=@"],
        &["runs", "show", "--", "@"],
        &["runs", "resume", "--", "@"],
        &["runs", "cancel", "--", "@"],
        &["runs", "prune", "--keep=@"],
        &["workflow", "show", "--", "@"],
        &["workflow", "check", "--", "@"],
        &["explain", "--", "@"],
    ];
    let mut wrong = Vec::new();
    for command in commands {
        // A NUL cannot be in an argument.
        let names = hostile();
        for name in names.iter().filter(|name| !name.contains('\0')).filter(|name| {
            // What every command takes alike is tried with one of them.
            command[0] == "services" || !name.contains(char::is_control)
        }) {
            let arguments: Vec<_> = command.iter().map(|word| word.replace('@', name)).collect();
            let ended = place.mt(&arguments);
            // `workflow check` says it on stdout.
            let said = String::from_utf8_lossy(&[&ended.stderr[..], &ended.stdout].concat()).into_owned();
            let refused = ended.status.code().is_some_and(|code| code != 0 && code < 128);
            let named = said.contains(&shown(name)) || said.contains(&name.chars().take(12).collect::<String>());
            if !(refused && named && is_readable(&ended.stderr) && is_readable(&ended.stdout)) {
                wrong.push(format!("{arguments:?}: {ended:?}"));
            }
        }
        let not_utf8: Vec<_> = command
            .iter()
            .map(|word| OsString::from_vec(word.bytes().map(|byte| if byte == b'@' { 0xff } else { byte }).collect()))
            .collect();
        let ended = place.mt(&not_utf8);
        let refused = ended.status.code().is_some_and(|code| code != 0 && code < 128);
        if !(refused && is_readable(&ended.stderr)) {
            wrong.push(format!("{not_utf8:?}: {ended:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(place.ran(), [""; 0], "something was started");
}

#[test]
fn a_hostile_word_for_an_old_flag_is_refused_or_harmless() {
    let place = Place::new();
    fs::write(place.path("c.json"), place.good().to_string()).unwrap();
    let mut wrong = Vec::new();
    for (program, flag) in [
        ("token-push", "--service=@"),
        ("token-push", "--experiment=@"),
        ("token-push", "--admin=@"),
        ("token-push", "--configfile=@"),
        ("token-push", "--test=@"),
        ("token-push", "--run-onboarding=@"),
        ("token-push", "--push-tokens=@"),
        ("token-push", "--list-services=@"),
        ("token-push", "--disable-notifications=@"),
        ("token-push", "--dont-notify=@"),
        ("token-push", "--no-loki=@"),
        ("token-push", "--verbose=@"),
        ("refresh-uids-from-ferry", "--authmethod=@"),
        ("refresh-uids-from-ferry", "--test=@"),
    ] {
        for name in hostile().iter().filter(|name| !name.contains('\0')) {
            let ended = place.called(program, &[flag.replace('@', name)]).output().unwrap();
            let refused = ended.status.code().is_some_and(|code| code != 0 && code != 101 && code < 128);
            if !(refused && is_readable(&ended.stderr) && is_readable(&ended.stdout) && place.ran().is_empty()) {
                wrong.push(format!("{program} {flag} with {name:?}: {ended:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(place.ran(), [""; 0], "something was started");
}

#[test]
fn a_hostile_word_that_only_narrows_a_list_or_names_a_directory_runs_nothing() {
    let place = Place::new();
    fs::write(place.path("c.json"), place.good().to_string()).unwrap();
    let mut wrong = Vec::new();
    for command in [
        &["runs", "list", "--workflow=@"][..],
        &["runs", "list", "--service=@"],
        &["counters", "reset", "--", "dune_production", "@"],
        &["--state-dir=@", "runs", "list"],
    ] {
        for name in hostile().iter().filter(|name| !name.contains('\0')) {
            let arguments: Vec<_> = command.iter().map(|word| word.replace('@', name)).collect();
            let ended = place.mt(&arguments);
            let fine = ended.status.code().is_some_and(|code| code != 101 && code < 128);
            if !(fine && is_readable(&ended.stderr) && is_readable(&ended.stdout)) {
                wrong.push(format!("{arguments:?}: {ended:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(place.ran(), [""; 0], "something was started");
}
