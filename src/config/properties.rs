//! What holds for every file: the three formats agree, and nothing that is written in one makes the loader panic.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::environment::Environment;
use super::find::Format;
use super::mistake::Position;
use super::node::{Kind, MAX_DEPTH, Node};
use super::resolve::resolve;
use crate::cpu_time;

/// Names that the loader asks for, so that arbitrary values reach every reader.
const KEYS: &[&str] = &[
    "experiments",
    "dune",
    "roles",
    "production",
    "account",
    "destinationNodes",
    "emails",
    "experimentOverride",
    "keytabPath",
    "keytabPathOverride",
    "kerberosPrincipalPattern",
    "userPrincipalOverride",
    "desiredUIDOverride",
    "condorCollectorHost",
    "condorCreddHostOverride",
    "vaultServer",
    "minTokenLifetime",
    "defaultRoleFileDestinationTemplate",
    "pingOptions",
    "sshOptionsOverride",
    "tokenGetterOverride",
    "disableNotifications",
    "timeouts",
    "globalTimeout",
    "workerType",
    "pushTokens",
    "numRetries",
    "retrySleep",
    "notifications",
    "admin_email",
    "slack_alerts_url",
    "email",
    "from",
    "smtpPort",
    "tracing",
    "url",
    "logs",
    "token-push",
    "logfile",
    "ferry",
    "port",
    "host",
];
/// Texts that mean something to some reader.
const TEXTS: &[&str] =
    &["", "dune01", "300s", "3d", "{{.Account}}", "{{", "/tmp/x", "a@b.org", "8445", "true", "-o x", "'"];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(TEXTS).prop_map(str::to_owned),
        prop::sample::select(KEYS).prop_map(str::to_owned),
        "\\PC{0,12}",
        "[\\x00-\\x7f]{0,6}",
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![8 => prop::sample::select(KEYS).prop_map(str::to_owned), 1 => "\\PC{0,8}"]
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0_u64..70_000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A tree that has the shape of a configuration, so that roles are reached.
fn configuration() -> impl Strategy<Value = Value> {
    let role = prop::collection::vec((key(), tree()), 0..8);
    (prop::collection::vec((key(), tree()), 0..6), role).prop_map(|(global, role)| {
        let mut role: Map<_, _> = role.into_iter().collect();
        role.entry("account").or_insert("dunepro".into());
        role.entry("destinationNodes").or_insert("dune01 dune02".into());
        let mut root: Map<_, _> = global.into_iter().collect();
        root.entry("keytabPath").or_insert("/keytabs".into());
        root.entry("kerberosPrincipalPattern").or_insert("{{.Account}}@REALM".into());
        root.insert("experiments".into(), serde_json::json!({"dune": {"roles": {"production": role}}}));
        Value::Object(root)
    })
}

/// Block style, two spaces a level, text in double quotes (whose escapes are JSON's).
fn yaml(value: &Value, indent: usize, out: &mut String) {
    let margin = " ".repeat(indent);
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                *out += &format!("\n{margin}{}:", Value::from(key.as_str()));
                yaml(value, indent + 2, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                *out += &format!("\n{margin}-");
                yaml(item, indent + 2, out);
            }
        }
        leaf => *out += &format!(" {leaf}"),
    }
}

fn ron(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => ron::to_string(text).unwrap(),
        Value::Array(items) => format!("[{}]", items.iter().map(ron).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let entry = |(key, value): (&String, &Value)| format!("{}: {}", ron::to_string(key).unwrap(), ron(value));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(",\n"))
        }
    }
}

/// The same without places.
fn placeless(mut node: Node) -> Node {
    node.at = Position::default();
    match &mut node.kind {
        Kind::List(items) => *items = items.drain(..).map(placeless).collect(),
        Kind::Map(entries) => {
            for entry in entries {
                entry.at = Position::default();
                entry.value = placeless(entry.value.clone());
            }
        }
        Kind::Null | Kind::Bool(_) | Kind::Integer(_) | Kind::Float(_) | Kind::Text(_) => {}
    }
    node
}

proptest! {
    #[test]
    fn json_yaml_and_ron_give_the_same_tree(value in tree()) {
        let json = placeless(Format::Json.parse(&value.to_string()).unwrap());
        let mut text = String::new();
        yaml(&value, 0, &mut text);
        let parsed = Format::Yaml.parse(text.trim_start_matches('\n')).map(placeless);
        prop_assert_eq!(parsed.as_ref(), Ok(&json), "{}", text);
        let text = ron(&value);
        let parsed = Format::Ron.parse(&text).map(placeless);
        prop_assert_eq!(parsed.as_ref(), Ok(&json), "{}", text);
    }

    #[test]
    fn no_tree_makes_the_loader_panic(value in prop_oneof![tree(), configuration()]) {
        let tree = Format::Json.parse(&value.to_string()).unwrap();
        match resolve(&tree, Path::new("x"), &Environment::default()) {
            Ok(config) => for service in config.services {
                prop_assert!(service.default_role_file(1, Some("vault")).is_ok());
                prop_assert!(!service.principal.is_empty());
            },
            Err(error) => prop_assert!(error.render().starts_with("error[MT0")),
        }
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in prop_oneof![
        "[\\[\\]{}():,\"'#a-c0-9 \n*&<|>!%@`/r\\\\.?-]{0,60}",
        "\\PC{0,40}",
        "(- |[a-b]: |\n *|\\[|\\{|\"|&a |\\*a|<<: |\\(|r#|/\\*|,){0,30}",
    ]) {
        for format in [Format::Json, Format::Yaml, Format::Ron] {
            if let Err(error) = format.parse(&text) {
                prop_assert!(error.at.line >= 1 && error.at.column >= 1);
            }
        }
    }
}

#[test]
fn nesting_is_bounded_in_every_format() {
    let nested = |open: &str, close: &str, levels: usize| format!("{}1{}", open.repeat(levels), close.repeat(levels));
    for format in [Format::Json, Format::Yaml, Format::Ron] {
        assert!(format.parse(&nested("[", "]", MAX_DEPTH)).is_ok(), "{format:?}");
        for levels in [MAX_DEPTH + 1, 1_000, 100_000] {
            assert!(format.parse(&nested("[", "]", levels)).is_err(), "{format:?} {levels}");
        }
    }
    assert!(Format::Ron.parse(&nested("Some(", ")", 100_000)).is_err());
    assert!(Format::Yaml.parse(&nested("- ", "", 100_000)).is_err());
}

#[test]
fn aliases_of_a_long_text_do_not_fill_the_memory() {
    let long = "x".repeat(1 << 20);
    let aliases = |times| format!("a: &a {long}\nb: [{}]\n", vec!["*a"; times].join(", "));
    assert!(Format::Yaml.parse(&aliases(10)).is_ok());
    let error = Format::Yaml.parse(&aliases(100)).unwrap_err();
    assert!(error.what.contains("more than 64 MiB, aliases counted in full"), "{error:?}");
    // An anchor is a copy, too.
    let nested = (0..60).fold(String::new(), |text, level| format!("{text}&a{level} [")) + &long + &"]".repeat(60);
    let many = (0..3).map(|key| format!("k{key}: {nested}\n")).collect::<String>();
    let error = Format::Yaml.parse(&many).unwrap_err();
    assert!(error.what.contains("more than 64 MiB, aliases counted in full"), "{error:?}");
}

#[test]
fn a_long_configuration_takes_time_in_proportion_to_its_length() {
    let many = |length: usize, piece: &dyn Fn(usize) -> String| -> String { (0..length / 16).map(piece).collect() };
    type Make = fn(&dyn Fn(usize, &dyn Fn(usize) -> String) -> String, usize) -> String;
    let forms: [(&str, Format, Make); 6] = [
        ("nodes", Format::Yaml, |many, n| {
            let nodes = many(n, &|i| format!("n{i}.example.org "));
            format!("experiments: {{dune: {{roles: {{production: {{account: a, destinationNodes: {nodes}}}}}}}}}")
        }),
        ("unknown keys", Format::Json, |many, n| {
            format!("{{{}\"experiments\": {{}}}}", many(n, &|i| format!("\"key{i}\": {i},")))
        }),
        ("keys in a long key", Format::Json, |many, n| {
            format!("{{\"{}\": {{{}\"x\": 1}}}}", "k".repeat(n), many(n, &|i| format!("\"key{i}\": {i},")))
        }),
        ("the same key", Format::Json, |many, n| {
            format!("{{{}\"k\": 1}}", many(n, &|_| "\"experiments\": 1,".to_owned()))
        }),
        ("merged keys", Format::Yaml, |many, n| {
            let keys = |name: &str| many(n, &|i| format!("  {name}{i}: {i}\n"));
            format!("a: &a\n{}b:\n  <<: *a\n{}", keys("a"), keys("b"))
        }),
        ("services without an account", Format::Yaml, |many, n| {
            format!("experiments:\n  dune:\n    roles:\n{}", many(n, &|i| format!("      r{i}: {{}}\n")))
        }),
    ];
    let environment = Environment::new([("HOME", "/home/mt")], "/site");
    for (name, format, make) in forms {
        let time = |length: usize| {
            let text = make(&many, length);
            cpu_time::of(|| drop(crate::config::parse(&text, format, Path::new("c"), &environment)))
        };
        let (short, long) = (time(32 << 10), time(256 << 10));
        // Eight times as long; the square would be 64 times.
        assert!(long < short * 24 + std::time::Duration::from_millis(100), "{name}: {short:?} and {long:?}");
    }
}

#[test]
fn a_file_of_more_values_than_a_configuration_has_is_refused_in_every_format() {
    let environment = Environment::new([("HOME", "/home/mt")], "/site");
    let list = vec!["1"; 300_000].join(",");
    for (format, text) in [
        (Format::Json, format!("{{\"a\": [{list}]}}")),
        (Format::Yaml, format!("a: [{list}]")),
        (Format::Ron, format!("(a: [{list}])")),
    ] {
        let error = crate::config::parse(&text, format, Path::new("c"), &environment).unwrap_err().to_string();
        assert!(error.contains("more than 200000 values"), "{error}");
    }
    let nodes = "n ".repeat(2_000);
    let text = format!("experiments: {{dune: {{roles: {{production: {{account: a, destinationNodes: {nodes}}}}}}}}}");
    let error = crate::config::parse(&text, Format::Yaml, Path::new("c"), &environment).unwrap_err().render();
    assert!(error.contains("destinationNodes: has more than 1000 items"), "{error}");
}

#[test]
fn aliases_of_aliases_do_not_fill_the_memory() {
    let mut text = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let previous = level - 1;
        let aliases = vec![format!("*a{previous}"); 10].join(", ");
        text += &format!("k{level}: &a{level} [{aliases}]\n");
    }
    let error = Format::Yaml.parse(&text).unwrap_err();
    assert!(error.what.contains("aliases counted in full"), "{error:?}");
}
