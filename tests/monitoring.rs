//! The examples in packaging/monitoring and the page docs/metrics.md name what is really pushed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use managed_tokens::telemetry::metrics::families::{FAMILIES, Family, NAMESPACE};

const PAGE: &str = include_str!("../docs/metrics.md");
const DASHBOARD: &str = include_str!("../packaging/monitoring/managed-tokens.dashboard.json");
const RULES: &str = include_str!("../packaging/monitoring/managed-tokens.rules.yml");
const TESTS: &str = include_str!("../packaging/monitoring/managed-tokens.rules.test.yml");

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/monitoring").join(name)
}

/// Every metric of ours that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.strip_prefix(NAMESPACE).is_some_and(|rest| rest.len() > 1)).map(str::to_owned).collect()
}

fn known(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| {
        let ends: &[&str] = if family.type_name() == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        ends.iter().any(|end| format!("{}{end}", family.full_name()) == name)
    })
}

#[test]
fn every_metric_that_the_rules_and_the_dashboard_name_exists() {
    for (file, text) in [("rules", RULES), ("tests of the rules", TESTS), ("dashboard", DASHBOARD)] {
        let named = named(text);
        assert!(named.len() > 5, "{file}: {named:?}");
        for name in named {
            assert!(known(&name).is_some(), "{file}: {name}");
        }
    }
}

#[test]
fn every_label_that_the_rules_and_the_dashboard_select_by_is_one_of_that_metric() {
    for text in [RULES.to_owned(), DASHBOARD.replace("\\\"", "\"")] {
        for (at, _) in text.match_indices(NAMESPACE) {
            let word: String = text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            let Some(family) = known(&word) else { continue };
            let Some(selector) = text[at + word.len()..].strip_prefix('{') else { continue };
            let selector = selector.split('}').next().expect("it is closed");
            for matcher in selector.split(',') {
                let label = matcher.split(['=', '!']).next().expect("a label").trim();
                assert!(label == "job" || family.labels.contains(&label), "{word} has no label {label}");
            }
        }
    }
}

#[test]
fn the_dashboard_shows_every_metric_of_a_run_once_loaded() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_i64().expect("an id")).collect();
    assert_eq!(ids.len(), panels.len(), "an id for each");
    for panel in panels {
        assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{panel}");
        let place = &panel["gridPos"];
        let (x, w) = (place["x"].as_i64().expect("a place"), place["w"].as_i64().expect("a width"));
        assert!(x + w <= 24, "{panel}");
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_the_rules_and_they_fire_when_they_should() {
    let Ok(version) = Command::new("promtool").arg("--version").output() else {
        eprintln!("SKIPPED, promtool is not installed: apt-get install prometheus, or lab/lab install");
        return;
    };
    assert!(version.status.success());
    for (what, name) in [("check", "managed-tokens.rules.yml"), ("test", "managed-tokens.rules.test.yml")] {
        let output = Command::new("promtool").args([what, "rules"]).arg(file(name)).output().expect("it was there");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}");
    }
}

#[test]
fn the_dashboards_queries_are_written_as_prometheus_reads_them() {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("SKIPPED, promtool is not installed: apt-get install prometheus, or lab/lab install");
        return;
    }
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("it is JSON");
    let mut rules = "groups:\n  - name: queries\n    rules:\n".to_owned();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().expect("targets") {
            let query = target["expr"].as_str().expect("a query").replace("$job", "mt");
            rules.push_str(&format!("      - {{alert: Query, expr: {}}}\n", serde_json::Value::from(query)));
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("queries.yml");
    std::fs::write(&path, rules).expect("it can be written");
    // Every rule has the same name, which is only a lint.
    let output =
        Command::new("promtool").args(["check", "rules", "--lint=none"]).arg(&path).output().expect("it was there");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_page_has_a_line_for_every_metric_with_its_type_and_labels() {
    for family in FAMILIES {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let line = format!("| `{}` | {} | {} |", family.name, family.type_name(), labels.join(", "));
        let line = line.replace("|  |", "| |");
        assert!(PAGE.lines().any(|found| found.starts_with(&line)), "docs/metrics.md lacks: {line}");
    }
    for name in named(PAGE) {
        assert!(known(&name).is_some(), "{name}");
    }
}
