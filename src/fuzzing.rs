//! What is tried with hostile input: one function per target. The fuzz targets in `fuzz/` call it, and so does the test that
//! replays their seeds. Not for anybody else.
//!
//! A function here comes back, or panics with the promise that was broken.

use std::path::Path;

use clap::Parser;

use crate::acting::uids;
use crate::cli::{Cli, old_names};
use crate::config::{self, Config, CreddName, Environment, LoadError};
use crate::notify::outbox::OutboxEntry;
use crate::notify::templates;
use crate::process::Exit;
use crate::redact::redact;
use crate::steps::catalog::ShippedActions;
use crate::steps::classify::{condor, kerberos, remote, vault};
use crate::steps::{credds, ferry, kinit, lookup, vault_options};
use crate::telemetry::traces;
use crate::token_file;
use crate::workflow::action::Failure;
use crate::workflow::definition::{Diagnostic, Format, Overrides, Workflow, effective, render, show};
use crate::workflow::event::Event;
use crate::workflow::id::{ProcessId, RunId};
use crate::workflow::run::{Machine, Run, RunState};
use crate::workflow::store::{self, Access, ImportOrder, KnownUid, Options, StateDir, Store};
use crate::workflow::{counters, duration};

/// A function to try a text with.
pub type Target = fn(&[u8]);

/// Every target, by the name of its file in `fuzz/fuzz_targets` and of the directory of its seeds.
pub const TARGETS: &[(&str, Target)] = &[
    ("workflow", workflow),
    ("config_json", config_json),
    ("config_yaml", config_yaml),
    ("config_ron", config_ron),
    ("template", template),
    ("program_output", program_output),
    ("ferry_answer", ferry_answer),
    ("vault_answer", vault_answer),
    ("condor_options", condor_options),
    ("otlp_answer", otlp_answer),
    ("uids_file", uids_file),
    ("record", record),
    ("history", history),
    ("import_file", import_file),
    ("sidecar", sidecar),
    ("command_line", command_line),
    ("token", token),
    ("redaction", redaction),
];

/// What of a text only a terminal would read.
fn has_control(text: &str) -> bool {
    text.contains(|c: char| c.is_control() && c != '\n' && c != '\t')
}

/// A workflow file: every place lies in the text, what is printed about it holds no control characters, and what is
/// accepted can be drawn and have the configuration's values.
pub fn workflow(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let found = match Workflow::parse(text, "w.ron", &ShippedActions) {
        Ok((workflow, warnings)) => {
            let effective = effective(&workflow, &Overrides::default(), "w.ron");
            for format in [Format::Text, Format::Mermaid, Format::Dot] {
                assert!(!show(&effective, &ShippedActions, format, true).is_empty(), "nothing is drawn");
            }
            warnings
        }
        Err(diagnostics) => {
            assert!(diagnostics.iter().any(Diagnostic::is_error), "refused without a reason: {text}");
            diagnostics
        }
    };
    let lines: Vec<_> = text.split('\n').collect();
    for diagnostic in &found {
        let (Some(line), Some(column)) = (diagnostic.line, diagnostic.column) else {
            panic!("no place: {diagnostic:?}")
        };
        assert!((1..=lines.len()).contains(&line), "{diagnostic:?} in {text}");
        assert!((1..=lines[line - 1].chars().count() + 1).contains(&column), "{diagnostic:?} in {text}");
        assert!(!diagnostic.message.contains(char::is_control), "{diagnostic:?}");
    }
    assert!(!render(&found, false).replace('\n', "").contains(char::is_control), "control characters in {text:?}");
}

/// A configuration in JSON.
pub fn config_json(data: &[u8]) {
    config(data, config::Format::Json);
}

/// A configuration in YAML.
pub fn config_yaml(data: &[u8]) {
    config(data, config::Format::Yaml);
}

/// A configuration in RON.
pub fn config_ron(data: &[u8]) {
    config(data, config::Format::Ron);
}

/// Refused with printable words, or accepted with names that can go on a command line.
fn config(data: &[u8], format: config::Format) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let environment = Environment::new([("HOME", "/home/mt")], "/site");
    match config::parse(text, format, Path::new("/etc/mt/config"), &environment) {
        Ok(config) => {
            config.warnings.iter().for_each(|warning| printable(&warning.render("warning")));
            accepted(&config);
        }
        Err(error) => {
            printable(&error.render());
            let LoadError::Invalid { mistakes, .. } = &error else { panic!("no file was to be read: {error}") };
            assert!(!mistakes.is_empty(), "refused without a reason");
        }
    }
}

#[track_caller]
fn printable(text: &str) {
    assert!(!has_control(text), "control characters: {text:?}");
}

fn accepted(config: &Config) {
    for service in &config.services {
        let names = [service.experiment.as_str(), service.role.as_str(), service.account.as_str(), &service.principal];
        let nodes = service.nodes.iter().map(|node| node.as_str());
        let servers = service.vault_server.iter().map(String::as_str);
        for name in names.into_iter().chain(nodes).chain(servers) {
            assert!(!name.is_empty() && !name.starts_with('-'), "{name:?} is let in");
            let shells =
                |c: char| c.is_whitespace() || c.is_control() || !c.is_ascii() || "\"'`\\;|&<>(){}*!#~".contains(c);
            assert!(!name.contains(shells), "{name:?} is let in");
        }
        let file = service.default_role_file(1, None).or_else(|_| service.default_role_file(1, Some("vault.lab.test")));
        if let Ok(file) = file {
            assert!(file.starts_with('/') && !file.split('/').any(|part| part == ".."), "{file:?} is let in");
        }
        let _ = config.select(&[service.name.to_string()], &[]);
    }
}

/// A template of a site's messages.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    templates::try_text(text);
}

/// What kinit, klist, condor_status, condor_vault_storer, htgettoken, ping, ssh and rsync print.
pub fn program_output(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(principal) = kinit::default_principal(&text) {
        assert!(text.contains(principal) && !principal.contains('\n'), "{principal:?}");
    }
    let credds = credds::parse(&text);
    for pair in credds.windows(2) {
        assert!(pair[0] < pair[1], "not sorted, or twice");
    }
    for credd in &credds {
        assert!(credd.as_str().parse::<CreddName>().is_ok(), "{credd:?} is let in");
        assert!(!credd.as_str().contains('/') && !credd.as_str().starts_with(['-', '.']), "{credd:?} is let in");
    }
    let _ = crate::config::parse_lifetime(&text);
    let facts = [
        ("program", "x"),
        ("keytab", "/k"),
        ("principal", "p"),
        ("collector", "c"),
        ("constraint", "1"),
        ("credd", "s"),
        ("node", "n"),
        ("account", "a"),
        ("vault", "v"),
        ("service", "e_r"),
    ];
    // As in life: what a child prints is redacted when it is taken up.
    let said = redact(&text);
    for exit in [Exit::Code(1), Exit::Code(255), Exit::Code(12), Exit::Signal(9)] {
        for classify in [kerberos::classify, condor::status, condor::store, remote::ping, remote::push, vault::classify]
        {
            failure(&classify(exit, &said, &facts));
        }
        let next = remote::push(exit, &said, &facts).next.unwrap_or_default();
        let shells = ['$', '`', ';', '|', '&', '<', '>', '\'', '\\'];
        assert!(!next.contains("ssh-keygen") || !next.contains(shells), "a command of somebody else's: {next}");
        let _ = remote::only_about(exit, &said, "vt_u1");
    }
}

/// What people are told of a failure.
fn failure(failure: &Failure) {
    assert!(!failure.message.is_empty(), "{failure:?}");
    printable(&failure.message);
    assert!(!failure.message.contains('\n'), "more than a line: {failure:?}");
    assert!(crate::explain::find(failure.code).is_some(), "{} is not explained", failure.code);
    assert_eq!(redact(&failure.message), failure.message, "a secret in a message");
    let next = failure.next.as_deref().unwrap_or_default();
    printable(next);
    assert!(!next.contains('\n'), "more than a line: {failure:?}");
    assert_eq!(redact(next), next, "a secret in advice");
}

/// What FERRY answers: a UID that a person can have, or a failure with printable words.
pub fn ferry_answer(data: &[u8]) {
    match ferry::uid_of_answer(data, "dunepro") {
        Ok(uid) => assert!((1..u32::MAX).contains(&uid), "{uid}"),
        Err(refused) => failure(&refused),
    }
}

/// What the vault answers about a token.
pub fn vault_answer(data: &[u8]) {
    let _ = lookup::read_answer(data, jiff::Timestamp::UNIX_EPOCH);
}

/// What condor_config_val says of htgettoken's options: a server, or a failure with printable words.
pub fn condor_options(data: &[u8]) {
    match vault_options::try_options(String::from_utf8_lossy(data).trim()) {
        Ok(server) => assert!(String::from_utf8_lossy(data).len() >= server.len(), "{server:?} comes from nowhere"),
        Err(refused) => failure(&refused),
    }
}

/// What a collector of traces answers: taken, or refused in one printable line without secrets.
pub fn otlp_answer(data: &[u8]) {
    let url = "https://mt:hunter2@collector".parse().expect("it is one");
    for why in traces::try_answer(&url, data) {
        printable(&why);
        assert!(!why.contains("hunter2"), "the password of its address: {why}");
        assert!(!why.contains('\n') && why.chars().count() < 1_000, "{why}");
        assert_eq!(redact(&why), why, "a secret in a message");
    }
}

/// `uids.json`: read, or refused in printable words.
pub fn uids_file(data: &[u8]) {
    in_memory(|place| {
        let path = place.join("uids.json");
        std::fs::write(&path, data).expect("there is room in memory");
        if let Err(refused) = uids::read(&path) {
            printable(&refused.to_string());
        }
    });
}

/// One record of the store, of any kind: read or refused; what is read can be written and read again.
pub fn record(data: &[u8]) {
    store::try_record::<Run>(data);
    store::try_record::<Machine>(data);
    store::try_record::<Event>(data);
    store::try_record::<KnownUid>(data);
    store::try_record::<counters::Counter>(data);
    store::try_record::<OutboxEntry>(data);
}

/// A history, one event a line: the fold of it is total, and two folds of it are one.
pub fn history(data: &[u8]) {
    let events: Vec<Event> = data.split(|byte| *byte == b'\n').map_while(|l| serde_json::from_slice(l).ok()).collect();
    let Ok(Some(state)) = RunState::fold(&events) else { return };
    let again = RunState::fold(&events).expect("it could be folded before").expect("it was a run before");
    assert_eq!(state.run, again.run, "the fold depends on something else");
    assert_eq!(state.machines, again.machines, "the fold depends on something else");
}

/// An export: refused, and nothing is made; or imported, and then the store is whole, can be written, and what was left out
/// or mended is told.
pub fn import_file(data: &[u8]) {
    in_memory(|place| import_in(place, data));
}

/// With a directory of our own, and nothing left of it.
fn in_memory(work: impl FnOnce(&Path)) {
    let place = Path::new(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" });
    // One at a time in this process.
    let place = place.join(format!("mt-fuzz-{}-{:?}", std::process::id(), std::thread::current().id()));
    let cleared = || match std::fs::remove_dir_all(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{}: {error}", place.display()),
        Ok(()) | Err(_) => {}
    };
    cleared();
    crate::private_dir::create(&place).expect("there is room in memory");
    work(&place);
    cleared();
}

/// `store.json`, with the store's id for `@`: refused, and the store stays as it is; or believed, and the store can be written.
/// Whatever it says, nothing is lost.
pub fn sidecar(data: &[u8]) {
    in_memory(|place| {
        let state = StateDir::create(place.join("state")).expect("a directory of ours");
        let open = |access| Store::open(&state, access);
        let write = |store: &Store, number: u64| {
            store.write_blocking(move |tx| tx.put_counter("fuzz", &number)).expect("it can be written");
        };
        let store = open(Access::ReadWrite).expect("it can be made");
        write(&store, 1);
        store.close();
        let path = state.sidecar();
        let own = std::fs::read(&path).expect("it has one");
        let id = serde_json::from_slice::<serde_json::Value>(&own).expect("it is JSON")["store_id"].clone();
        let parts: Vec<&[u8]> = data.split(|byte| *byte == b'@').collect();
        let said = parts.join(id.as_str().expect("a ULID").as_bytes());
        std::fs::write(&path, said).expect("there is room in memory");
        let expected = match open(Access::ReadWrite) {
            Err(refused) => {
                let said = refused.to_string();
                assert!(said.contains(&*place.to_string_lossy()) && said.len() < 1_000, "{said}");
                printable(&said);
                1
            }
            Ok(store) => {
                write(&store, 2);
                store.close();
                open(Access::ReadWrite).expect("what was just written").close();
                2
            }
        };
        std::fs::write(&path, own).expect("there is room in memory");
        let store = open(Access::ReadOnly).expect("it is as it was");
        let found = store.read_blocking(|view| view.counter::<u64>("fuzz")).expect("it is there");
        assert_eq!(found.expect("it can be read"), Some(expected));
        store.close();
    });
}

fn import_in(place: &Path, data: &[u8]) {
    let (path, partial) = (place.join("export"), data.first() == Some(&b'\n'));
    std::fs::write(&path, data.strip_prefix(b"\n").unwrap_or(data)).expect("there is room in memory");
    let state = StateDir::create(place.join("state")).expect("a directory of ours");
    // The directory may be small.
    let options = Options { min_free: 1 << 20, ..Options::default() };
    let order = |path: &Path| ImportOrder {
        from: store::From::File { path: path.to_owned(), partial },
        uids: std::collections::BTreeMap::new(),
        replace: true,
    };
    match store::import(&state, &order(&path), &options) {
        Err(refused) => {
            let said = refused.to_string();
            assert!(said.contains(&*place.to_string_lossy()) && said.len() < 1_000, "{said}");
            printable(&said);
            assert!(!state.store().exists(), "refused, and yet there is a store: {said}");
        }
        Ok(imported) => {
            let whole = |after: &str| {
                let found = store::verify(&state, &options).expect("it can be looked at");
                assert!(
                    found.unusable.is_none() && found.trees.iter().all(|tree| tree.unreadable == 0),
                    "{after}: {found:?}"
                );
                for (run, what) in &found.damaged_runs {
                    let is_told = |(told, became): &(RunId, String)| told == run && became.ends_with("kept as it is");
                    assert!(imported.mended.iter().any(is_told), "{after}: {run}: {what}, and not told: {imported:?}");
                }
            };
            whole("after the import");
            let store = Store::open(&state, Access::ReadWrite).expect("it can be opened");
            store.write_blocking(|tx| tx.put_counter("fuzz", &1_u64)).expect("it can be written");
            let uids = store.read_blocking(|view| view.uids()).expect("it is there").expect("they can be read");
            assert!(uids.values().all(|known| (1..u32::MAX).contains(&known.uid)), "{uids:?}");
            store.close();
            whole("after a commit");
        }
    }
}

/// Words of a command line, one a line: ids, selectors, durations. Nothing is executed.
pub fn command_line(data: &[u8]) {
    use std::os::unix::ffi::OsStringExt;
    let words = data.split(|byte| *byte == b'\n').map(|word| std::ffi::OsString::from_vec(word.to_vec()));
    let words: Vec<_> = words.take(16).collect();
    for program in ["mt", "token-push", "refresh-uids-from-ferry"] {
        let _ = old_names::parse(std::iter::once(program.into()).chain(words.iter().cloned()));
    }
    let _ = Cli::try_parse_from(["mt".into(), "run".into(), "token-push".into()].into_iter().chain(words));
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(run) = text.parse::<RunId>() {
        assert_eq!(run.to_string().parse::<RunId>(), Ok(run), "an id is not itself");
    }
    let _ = text.parse::<ProcessId>();
    let _ = duration::parse(text);
    let _ = config::parse_duration(text);
    assert_eq!(store::find_in_none(text), store::Found::None, "found in an empty store");
    selection(text);
}

/// A selector finds what is configured, or is refused by name in one printable line.
fn selection(text: &str) {
    const CONFIG: &str = r#"{"keytabPath": "/k", "kerberosPrincipalPattern": "{{.Account}}@R", "experiments": {"dune":
        {"roles": {"production": {"account": "dunepro", "destinationNodes": ["dune01"]}}}}}"#;
    let environment = Environment::new([("HOME", "/home/mt")], "/site");
    let config = config::parse(CONFIG, config::Format::Json, Path::new("c.json"), &environment);
    let config = config.expect("a configuration as simple as can be");
    let given = [text.to_owned()];
    for result in [config.select(&given, &[]), config.select(&[], &given)] {
        match result {
            Ok(services) => assert_eq!(services.len(), 1, "{text:?}"),
            Err(unknown) => {
                let said = unknown.to_string();
                assert!(!said.contains(char::is_control), "control characters: {said:?}");
            }
        }
    }
}

/// The content of a token file.
pub fn token(data: &[u8]) {
    token_file::try_content(data);
}

/// Redacting twice changes nothing more, and no token of the usual shape stays.
pub fn redaction(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let once = redact(&text);
    assert_eq!(redact(&once), once, "redacted twice is another text");
    printable(&once);
    let planted = "hvs.CAESIJ0aB0123456789abcdefghijkl";
    let with = format!("{text} {planted} {text}");
    if !text.contains("0123456789abcdefghijkl") {
        assert!(!redact(&with).contains("0123456789abcdefghijkl"), "a token stays in {with:?}");
    }
}
