//! Promise: `mt workflow list | show | check` find workflows by name and by path, say where each comes from, and exit 20
//! for one that cannot be used.

use std::fs;
use std::path::Path;

use managed_tokens::cli::output::OutputFormat;
use managed_tokens::cli::workflow::{Around, WorkflowCommand, run};
use managed_tokens::steps::catalog::{SHIPPED, ShippedActions};
use managed_tokens::workflow::definition::{Library, Overrides};

/// The command line as `mt workflow …` will parse it.
#[derive(clap::Parser)]
struct Line {
    #[command(subcommand)]
    command: WorkflowCommand,
    #[arg(long, global = true, value_enum, default_value_t)]
    output: OutputFormat,
}

struct Ran {
    exit: u8,
    out: String,
    err: String,
}

fn mt_with(directory: &Path, overrides: Result<Overrides, String>, words: &[&str]) -> Ran {
    let line = <Line as clap::Parser>::try_parse_from([&["workflow"], words].concat()).unwrap();
    let library = Library::new(directory, SHIPPED);
    let around = Around { library: &library, catalog: &ShippedActions, overrides, colour: false, output: line.output };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = run(&line.command, &around, &mut out, &mut err).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().replace(&directory.display().to_string(), "[DIR]");
    Ran { exit, out: text(out), err: text(err) }
}

fn mt(directory: &Path, words: &[&str]) -> Ran {
    mt_with(directory, Ok(Overrides::default()), words)
}

const HOOK: &str = r#"Workflow(name: "hook", for_each: Service, deadline: "2m", steps: [
    Step(name: "say", action: Exec(command: ["/bin/echo", "hello"]), timeout: "5s"),
])"#;

fn site() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("hook.ron"), HOOK.replace("\"2m\"", "\"2m\", reserve: \"10s\"")).unwrap();
    fs::write(directory.path().join("token-push.ron"), SHIPPED[0].1.replace("\"30s\"", "\"31s\"")).unwrap();
    fs::write(directory.path().join("broken.ron"), "Workflow(name: \"broken\")").unwrap();
    fs::write(directory.path().join("notes.txt"), "not a workflow").unwrap();
    fs::write(directory.path().join(".#hook.ron"), "an editor's lock").unwrap();
    directory
}

#[test]
fn list_shows_where_each_workflow_comes_from() {
    let site = site();
    let listed = mt(site.path(), &["list"]);
    assert_eq!((listed.exit, listed.err.as_str()), (0, ""));
    // How wide a column is depends on where the test's directory lies.
    insta::assert_snapshot!(regex::Regex::new(" {2,}").unwrap().replace_all(&listed.out, "  "));
    let bare = mt(Path::new("/nonexistent"), &["list"]);
    for shipped in ["token-push     5m        compiled in", "ferry-refresh  5m        compiled in"] {
        assert!(bare.out.contains(shipped), "{}", bare.out);
    }
}

#[test]
fn list_as_json_has_a_schema_version_and_one_object_each() {
    let site = site();
    let document: serde_json::Value =
        serde_json::from_str(&mt(site.path(), &["list", "--output", "json"]).out).unwrap();
    assert_eq!(document["schema_version"], 1);
    let workflows = document["workflows"].as_array().unwrap();
    assert_eq!(workflows.len(), 4);
    assert_eq!(workflows[0]["errors"], 3);
    assert_eq!(workflows[2]["steps"], serde_json::json!(["say"]));
    assert_eq!(workflows[3]["overrides_shipped"], true);
    assert_eq!(workflows[3]["deadline_seconds"], 300.0);
    assert_eq!(mt(site.path(), &["list", "--output", "ndjson"]).out.lines().count(), 4);
}

#[test]
fn a_file_of_the_site_wins_over_the_compiled_in_one() {
    let site = site();
    let shown = mt(site.path(), &["show", "token-push"]);
    assert_eq!(shown.exit, 0);
    assert!(shown.out.contains("31s, then up to 3 more tries"), "{}", shown.out);
    assert!(mt(Path::new("/nonexistent"), &["show", "token-push"]).out.contains("30s, then up to 3 more tries"));
}

#[test]
fn check_of_a_good_file_says_so_and_exits_0() {
    let site = site();
    let path = site.path().join("hook.ron");
    let checked = mt(site.path(), &["check", path.to_str().unwrap()]);
    assert_eq!((checked.exit, checked.err.as_str()), (0, ""));
    assert_eq!(checked.out, "[DIR]/hook.ron: no mistakes in 1 step and 0 in finally\n");
}

#[test]
fn check_of_a_bad_file_prints_every_mistake_and_exits_20() {
    let site = site();
    let checked = mt(site.path(), &["check", "broken"]);
    assert_eq!(checked.exit, 20);
    insta::assert_snapshot!(checked.out);
}

#[test]
fn check_as_json_gives_every_field_of_a_mistake() {
    let site = site();
    let checked = mt(site.path(), &["check", "broken", "--output", "json"]);
    assert_eq!(checked.exit, 20);
    let document: serde_json::Value = serde_json::from_str(&checked.out).unwrap();
    assert_eq!(document["schema_version"], 1);
    let first = &document["diagnostics"][0];
    assert_eq!(first["code"], "MT0107");
    assert_eq!(first["severity"], "error");
    assert_eq!((&first["line"], &first["column"]), (&1.into(), &1.into()));
    assert!(first["message"].as_str().unwrap().contains("for_each"));
    assert!(first["file"].as_str().unwrap().ends_with("broken.ron"));
    assert_eq!(first["help"], "add for_each: Service");
    assert_eq!(first.as_object().unwrap().len(), 7);
    assert_eq!(mt(site.path(), &["check", "broken", "--output", "ndjson"]).out.lines().count(), 3);
}

#[test]
fn check_without_a_name_checks_all() {
    let site = site();
    let checked = mt(site.path(), &["check"]);
    assert_eq!(checked.exit, 20);
    assert!(checked.out.contains("[DIR]/hook.ron: no mistakes"), "{}", checked.out);
    assert!(checked.out.contains("[DIR]/token-push.ron: no mistakes"), "{}", checked.out);
    assert!(checked.out.ends_with("3 errors; more about each: mt explain MT0107\n"), "{}", checked.out);
}

#[test]
fn what_the_configuration_makes_impossible_is_a_warning_and_exits_0() {
    let overrides = Overrides {
        deadline: Some((std::time::Duration::from_secs(60), "globalTimeout".into())),
        ..Overrides::default()
    };
    let checked = mt_with(Path::new("/nonexistent"), Ok(overrides), &["check", "token-push"]);
    assert_eq!(checked.exit, 0);
    assert!(checked.out.contains("warning[MT0109]"), "{}", checked.out);
    assert!(checked.out.contains("the configuration sets globalTimeout"), "{}", checked.out);
}

#[test]
fn show_effective_needs_the_configuration_and_plain_show_does_not() {
    let broken = || Err("managedTokens.json: line 3: expected a comma".to_owned());
    let nowhere = Path::new("/nonexistent");
    assert_eq!(mt_with(nowhere, broken(), &["show", "token-push"]).exit, 0);
    assert_eq!(mt_with(nowhere, broken(), &["check", "token-push"]).exit, 0);
    let ran = mt_with(nowhere, broken(), &["show", "token-push", "--effective"]);
    assert_eq!((ran.exit, ran.out.as_str()), (20, ""));
    assert!(ran.err.contains("line 3: expected a comma"), "{}", ran.err);
}

#[test]
fn show_of_a_bad_file_prints_its_mistakes_to_stderr() {
    let site = site();
    let ran = mt(site.path(), &["show", "broken"]);
    assert_eq!((ran.exit, ran.out.as_str()), (20, ""));
    assert!(ran.err.contains("error[MT0107]"), "{}", ran.err);
    for (format, start) in [("mermaid", "stateDiagram-v2\n"), ("dot", "digraph \"hook\" {")] {
        assert!(mt(site.path(), &["show", "hook", "--format", format]).out.starts_with(start));
    }
}

#[test]
fn an_unknown_name_is_met_with_the_nearest_one() {
    let ran = mt(Path::new("/nonexistent"), &["show", "tokenpush"]);
    assert_eq!(ran.exit, 20);
    assert!(ran.err.contains("MT0125") && ran.err.contains("did you mean token-push?"), "{}", ran.err);
    assert!(mt(Path::new("/nonexistent"), &["show", "zzz"]).err.contains("there are ferry-refresh, token-push"));
}

#[test]
fn a_file_must_be_named_as_the_workflow_in_it() {
    let site = site();
    fs::rename(site.path().join("hook.ron"), site.path().join("hooks.ron")).unwrap();
    let ran = mt(site.path(), &["check", "hooks"]);
    assert_eq!(ran.exit, 20);
    assert!(ran.out.contains("error[MT0126]: the file is named hooks.ron and holds the workflow hook"), "{}", ran.out);
    assert!(ran.out.contains("hooks.ron:1:16"), "{}", ran.out);
    let by_path = site.path().join("hooks.ron");
    assert_eq!(mt(site.path(), &["check", by_path.to_str().unwrap()]).exit, 0, "a draft may be called anything");
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let site = site();
    let ran = mt(site.path(), &["check", "./nothing.ron"]);
    assert_eq!(ran.exit, 20);
    assert!(ran.out.contains("error[MT0124]: cannot read the workflow file: No such file"), "{}", ran.out);
    let directory = site.path().to_str().unwrap().to_owned();
    assert!(mt(site.path(), &["check", &directory]).out.contains("MT0124"));
    fs::write(site.path().join("latin.ron"), b"// one\n// caf\xe9\n").unwrap();
    let ran = mt(site.path(), &["check", "latin"]);
    assert!(ran.out.contains("line 2 is not UTF-8"), "{}", ran.out);
    fs::write(site.path().join("huge.ron"), "/é".repeat(1 << 20)).unwrap();
    assert!(mt(site.path(), &["check", "huge"]).out.contains("MT0120"), "not called half a character");
    let endless = mt(site.path(), &["check", "/dev/zero"]).out;
    assert!(endless.contains("MT0124") && endless.contains("not a regular file"), "{endless}");
}

#[test]
fn names_from_the_directory_cannot_drive_the_terminal() {
    let site = site();
    fs::write(site.path().join("a\u{1b}[2Jb.ron"), "x").unwrap();
    let ran = [mt(site.path(), &["list"]), mt(site.path(), &["check"])];
    assert!(!ran.iter().any(|ran| ran.out.contains('\u{1b}')));
}
