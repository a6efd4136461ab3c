//! What docs/configuration.md says is so.

use std::path::Path;

use managed_tokens::config::{Environment, Format, LoadError, parse};

const PAGE: &str = include_str!("../docs/configuration.md");

/// The blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let begin = format!("```{language}\n");
    PAGE.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

fn load(text: &str, format: Format) -> Result<managed_tokens::config::Config, LoadError> {
    parse(text, format, Path::new("managedTokens.yml"), &Environment::new([("HOME", "/nonexistent")], "/site"))
}

#[test]
fn every_example_loads_without_a_warning() {
    for (language, format) in [("yaml", Format::Yaml), ("json", Format::Json), ("ron", Format::Ron)] {
        let blocks = blocks(language);
        assert!(!blocks.is_empty(), "{language}");
        for block in blocks {
            let config = load(block, format).unwrap_or_else(|error| panic!("{language}: {error}"));
            assert_eq!(config.warnings, [], "{language}");
            assert!(config.services.iter().any(|service| service.name.as_str() == "dune_production"));
        }
    }
}

/// Every path of the fixture that has every key, with `<…>` for names.
fn paths(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(entries) => {
            for (key, value) in entries {
                paths(value, &format!("{path}.{key}"), found);
            }
        }
        _ => found.push(path.trim_start_matches('.').to_owned()),
    }
}

#[test]
fn every_key_is_documented() {
    let text = std::fs::read_to_string("tests/fixtures/config/every-key.json").unwrap();
    let mut found = Vec::new();
    paths(&serde_json::from_str(&text).unwrap(), "", &mut found);
    assert!(found.len() > 70, "{found:?}");
    for path in found {
        let parts: Vec<_> = path.split('.').collect();
        let key = match parts.as_slice() {
            ["experiments", _, key] | ["experiments", _, "roles", _, key] => (*key).to_owned(),
            ["logs", _, key] => format!("logs.<executable>.{key}"),
            ["workerType", worker, key] => {
                assert!(PAGE.contains(&format!("`{worker}`")), "{worker}");
                format!("workerType.<type>.{key}")
            }
            _ => path.clone(),
        };
        let own = format!("`{key}`").to_lowercase();
        let global = key.strip_suffix("Override").map(|global| format!("| `{global}` | yes |").to_lowercase());
        let page = PAGE.to_lowercase();
        assert!(page.contains(&own) || global.is_some_and(|row| page.contains(&row)), "{path} is not documented");
    }
}

#[test]
fn the_shown_error_is_the_real_one() {
    let block =
        PAGE.split("$ mt config check -c managedTokens.yml\n").nth(1).unwrap().split("1 error;").next().unwrap();
    let text = blocks("yaml")[0].replace(
        "timeouts: {globalTimeout: 5m, pushTimeout: 30s}",
        "timeouts:\n  globalTimeout: 5m\n  pushTimeout: \"30\"",
    );
    let error = load(&text, Format::Yaml).unwrap_err().to_string();
    assert_eq!(error.trim(), block.trim());
}
