//! Promise: a name that a shell, a path, an option parser or a terminal would read as something else is refused by name, in every
//! format of the configuration and on the command line, before any program is started.
//!
//! Every program that `mt` starts is a stand-in here that leaves a file. A run with good names leaves some; no other does.

mod command_line;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use managed_tokens::config::{self, Config, Environment, Format};
use serde_json::{Value, json};

const PROGRAMS: &[&str] = &[
    "kinit",
    "klist",
    "htgettoken",
    "condor_status",
    "condor_config_val",
    "condor_vault_storer",
    "condor_store_cred",
    "ping",
    "ssh",
    "rsync",
    "touch",
    "id",
    "sh",
];
/// Whom root becomes: acting commands refuse root.
const NOBODY: u32 = 65534;

/// Writes a token where it is asked to.
const HTGETTOKEN: &str = r#"while [ $# -gt 0 ]; do
    [ "$1" = --vaulttokenfile ] && printf hvs.CAESIJ0aB0123456789abcdefgh >"$2"
    shift
done
"#;

/// Names that no name of any kind may be.
fn hostile() -> Vec<String> {
    let mut names: Vec<String> = [
        "a b",
        "a\tb",
        "a'b",
        "a\"b",
        "-x",
        "-oproxycommand=touch x",
        "--",
        "$(touch x)",
        "a$(id)",
        "`touch x`",
        "a;touch x",
        "a|sh",
        "a&touch",
        "a>x",
        "a\nb",
        "a\r\nb",
        "a\u{0}b",
        "a\u{1b}[31mb",
        "a\u{7f}",
        "a..b",
        "..",
        "",
        " ",
        "dün",
        "a\u{202e}b",
        "a\u{200b}",
        "~root",
        "a*",
        "{a}",
        "a\\b",
        "%s%n",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("a".repeat(300));
    names.push("ä".repeat(300));
    names
}

/// One kind of name: where it stands in the configuration, and what mistakes about it are called.
struct Kind {
    name: &'static str,
    /// The path that messages name.
    key: &'static str,
    put: fn(&mut Value, &str),
    /// What else is no name of this kind.
    more: &'static [&'static str],
    /// What is refused elsewhere and fine here.
    fine: &'static [&'static str],
}

fn role(config: &mut Value) -> &mut Value {
    &mut config["experiments"]["dune"]["roles"]["production"]
}

fn rename(map: &mut Value, from: &str, to: &str) {
    let value = map.as_object_mut().unwrap().remove(from).unwrap();
    map[to] = value;
}

fn ferry(config: &mut Value, key: &str, name: &str) {
    config["ferry"] = json!({ key: name });
}

const PATHS: &[&str] = &["a/b", "/etc/passwd", "../x", "a/../b"];

const KINDS: &[Kind] = &[
    Kind {
        name: "experiment",
        key: "experiments",
        put: |c, n| rename(&mut c["experiments"], "dune", n),
        more: PATHS,
        fine: &[],
    },
    Kind {
        name: "role",
        key: "experiments.dune.roles",
        put: |c, n| rename(&mut c["experiments"]["dune"]["roles"], "production", n),
        more: &["a/b", "../x", "a_b"],
        fine: &[],
    },
    Kind {
        name: "issuer's experiment",
        key: "experiments.dune.experimentOverride",
        put: |c, n| c["experiments"]["dune"]["experimentOverride"] = n.into(),
        more: PATHS,
        fine: &["", " "],
    },
    Kind {
        name: "account",
        key: "experiments.dune.roles.production.account",
        put: |c, n| role(c)["account"] = n.into(),
        more: PATHS,
        fine: &[],
    },
    Kind {
        name: "node",
        key: "experiments.dune.roles.production.destinationNodes[1]",
        put: |c, n| role(c)["destinationNodes"] = json!(["node1.lab.test", n]),
        more: &["a/b", "dunepro@node1", "a:b", "node1.lab.test:/etc", "-", "a.-b"],
        fine: &[],
    },
    Kind {
        name: "credd",
        key: "condorCreddHost",
        put: |c, n| c["condorCreddHost"] = n.into(),
        more: PATHS,
        fine: &[""],
    },
    Kind {
        name: "collector",
        key: "condorCollectorHost",
        put: |c, n| c["condorCollectorHost"] = n.into(),
        more: PATHS,
        fine: &["", " ", "a b", "a\tb", "a\nb", "a\r\nb"],
    },
    Kind {
        name: "principal",
        key: "experiments.dune.roles.production.userPrincipalOverride",
        put: |c, n| role(c)["userPrincipalOverride"] = n.into(),
        more: &["-k", "a@b c"],
        fine: &[""],
    },
    Kind {
        name: "principal pattern",
        key: "kerberosPrincipalPattern",
        put: |c, n| c["kerberosPrincipalPattern"] = n.into(),
        more: &["{{.Nobody}}", "{{.Account"],
        fine: &[],
    },
    Kind {
        name: "vault server",
        key: "vaultServer",
        put: |c, n| c["vaultServer"] = n.into(),
        more: &["-a", "https://a b"],
        fine: &[""],
    },
    Kind {
        name: "label",
        key: "devEnvironmentLabel",
        put: |c, n| c["devEnvironmentLabel"] = n.into(),
        more: PATHS,
        fine: &["", " "],
    },
    Kind {
        name: "FERRY's experiment",
        key: "ferry.serviceExperiment",
        put: |c, n| ferry(c, "serviceExperiment", n),
        more: PATHS,
        fine: &["", " "],
    },
    Kind {
        name: "FERRY's role",
        key: "ferry.serviceRole",
        put: |c, n| ferry(c, "serviceRole", n),
        more: PATHS,
        fine: &["", " "],
    },
    Kind {
        name: "FERRY's principal",
        key: "ferry.serviceKerberosPrincipal",
        put: |c, n| ferry(c, "serviceKerberosPrincipal", n),
        more: &["-k"],
        fine: &["", " "],
    },
    Kind {
        name: "FERRY's vault server",
        key: "ferry.vaultServer",
        put: |c, n| ferry(c, "vaultServer", n),
        more: &["-a"],
        fine: &["", " "],
    },
    Kind {
        name: "path on the nodes",
        key: "defaultRoleFileDestinationTemplate",
        put: |c, n| c["defaultRoleFileDestinationTemplate"] = n.into(),
        more: &[
            "/tmp/{{.Acount}}",
            "/tmp/{{.Account",
            "/tmp/../etc/{{.Account}}",
            "tmp/x",
            "/tmp/a b",
            "/tmp/$(id)",
            "/tmp/a;b",
            "/tmp/a\nb",
            "/tmp/{{if .Account}}x{{end}}",
            "/tmp/{{.KeytabPath}}/../x",
        ],
        fine: &[],
    },
];

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        // Directly below /tmp, so that whom root becomes can reach it.
        let place = Self { dir: tempfile::Builder::new().prefix("mt-names.").tempdir_in("/tmp").unwrap() };
        let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        open(place.dir.path());
        for part in ["bin", "ran", "home"] {
            fs::create_dir(place.path(part)).unwrap();
            open(&place.path(part));
        }
        // By another process: a child that another thread starts meanwhile would hold what we write open, and nobody can
        // start a program that is open for writing.
        let copied = Command::new("cp").args([Path::new(env!("CARGO_BIN_EXE_mt")), &place.path("mt")]).status();
        assert!(copied.unwrap().success());
        let script = r#"for p in "$@"; do printf '#!/bin/sh\n: >%s/ran/%s\nexit 1\n' "$PWD" "$p" >bin/"$p"; done; chmod 755 bin/*"#;
        let made = Command::new("sh").args(["-c", script, "sh"]).args(PROGRAMS).current_dir(place.dir.path()).status();
        assert!(made.unwrap().success());
        fs::write(place.path("keytab"), "").unwrap();
        fs::set_permissions(place.path("keytab"), fs::Permissions::from_mode(0o600)).unwrap();
        if nix::unistd::geteuid().is_root() {
            for part in ["ran", "home", "keytab"] {
                chown(place.path(part), Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        place
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn good(&self) -> Value {
        json!({
            "keytabPath": self.path(""), "kerberosPrincipalPattern": "{{.Account}}/mt@LAB.TEST", "vaultServer": "vault.lab.test",
            "condorCreddHost": "schedd1.lab.test", "stateDir": self.path("home/state"), "disableNotifications": true,
            "logs": {"token-push": {"logfile": "/dev/null"}},
            "experiments": {"dune": {"roles": {"production": {
                "account": "dunepro", "destinationNodes": ["node1.lab.test"], "desiredUIDOverride": 1234,
                "keytabPathOverride": self.path("keytab"),
            }}}},
        })
    }

    fn mt<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        self.called("mt", arguments).output().unwrap()
    }

    fn in_environment(&self, arguments: &[&str], name: &str, value: &OsStr) -> Output {
        self.called("mt", arguments).env(name, value).output().unwrap()
    }

    /// Another stand-in. By another process, as all of them.
    fn program(&self, name: &str, text: &str) {
        let script = r#"printf '#!/bin/sh\nPATH=/usr/bin:/bin\n%s' "$1" >"$2""#;
        let made = Command::new("sh").args(["-c", script, "sh", text]).arg(self.path("bin").join(name)).status();
        assert!(made.unwrap().success());
    }

    /// By this name.
    fn called<S: AsRef<OsStr>>(&self, program: &str, arguments: &[S]) -> Command {
        let mut command = Command::new(self.path("mt"));
        command.arg0(self.path(program));
        command.args(arguments).stdin(Stdio::null()).current_dir(self.path("home")).env_clear();
        command.env("PATH", self.path("bin")).env("HOME", self.path("home")).env("MT_CONFIG", self.path("c.json"));
        if nix::unistd::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn with<S: AsRef<OsStr>>(&self, file: &str, text: &[u8], arguments: &[S]) -> Output {
        fs::write(self.path(file), text).unwrap();
        fs::set_permissions(self.path(file), fs::Permissions::from_mode(0o644)).unwrap();
        let file = self.path(file).into_os_string();
        let arguments: Vec<OsString> =
            [OsString::from("-c"), file].into_iter().chain(arguments.iter().map(|a| a.as_ref().to_owned())).collect();
        self.mt(&arguments)
    }

    fn ran(&self) -> Vec<String> {
        fs::read_dir(self.path("ran")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// A value as RON, with the escapes that RON has.
fn ron(value: &Value) -> String {
    let text = |text: &str| {
        let escaped: String = text
            .chars()
            .map(|c| match c {
                '"' | '\\' => format!("\\{c}"),
                c if c.is_control() => format!("\\u{{{:x}}}", u32::from(c)),
                c => c.to_string(),
            })
            .collect();
        format!("\"{escaped}\"")
    };
    match value {
        Value::String(string) => text(string),
        Value::Array(items) => format!("[{}]", items.iter().map(ron).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let entries: Vec<_> = map.iter().map(|(key, value)| format!("{}: {}", text(key), ron(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn formats(config: &Value) -> [(&'static str, String); 3] {
    // JSON is YAML.
    [("c.json", config.to_string()), ("c.yml", config.to_string()), ("c.ron", ron(config))]
}

/// The text as a configuration, in this process.
fn load(text: &str, file: &str, directory: &Path) -> Result<Config, String> {
    let environment = Environment::new([("HOME", "/nonexistent")], directory);
    let format = Format::of(Path::new(file)).unwrap();
    config::parse(text, format, &directory.join(file), &environment).map_err(|error| error.render())
}

/// Says what it was, for people: no control character, nothing that turns the direction of what follows.
fn is_readable(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let bad = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}');
    !text.contains(bad) && text.len() < 4_000
}

fn escaped(name: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' => c.escape_default().to_string(),
        c if c.is_ascii_graphic() || c == ' ' => c.to_string(),
        c => c.escape_default().to_string(),
    };
    name.chars().take(20).map(escape).collect()
}

/// The beginning of a word as a message shows it.
fn shown(name: &str) -> String {
    escaped(name.split_inclusive(' ').next().unwrap_or_default().trim_end())
}

/// What the message about a name says: the path of its key, and the name in quotes.
fn named(kind: &Kind, name: &str) -> Vec<String> {
    // A list of collectors is read name by name.
    let name = if kind.name == "collector" { name.split(' ').next().unwrap_or_default() } else { name };
    let end = if name.chars().count() > 20 { "" } else { "\"" };
    let quoted = format!("{}: \"{}{end}", kind.key, escaped(name));
    match name.trim() {
        "" => vec![quoted, format!("{}: is empty", kind.key)],
        _ => vec![quoted],
    }
}

#[test]
fn good_names_start_programs_in_every_format() {
    let place = Place::new();
    for (file, text) in formats(&place.good()) {
        let ended = place.with(file, text.as_bytes(), &["run", "token-push", "--new"]);
        assert_eq!(ended.status.code(), Some(11), "{file}: {ended:?}");
        let ran = place.ran();
        assert!(ran.contains(&"kinit".to_owned()), "{file}: the stand-ins are what is started: {ran:?} {ended:?}");
        ran.iter().for_each(|program| fs::remove_file(place.path("ran").join(program)).unwrap());
    }
}

#[test]
fn a_hostile_name_in_the_configuration_is_refused_by_name_before_anything_runs() {
    let place = Place::new();
    let names = hostile();
    let (mut tried, mut wrong) = (0, Vec::new());
    for kind in KINDS {
        let all = names.iter().map(String::as_str).filter(|name| !kind.fine.contains(name));
        for name in all.chain(kind.more.iter().copied()) {
            let mut config = place.good();
            (kind.put)(&mut config, name);
            let is_named = |said: &str| named(kind, name).iter().any(|words| said.contains(words));
            for (file, text) in formats(&config) {
                let loaded = load(&text, file, place.dir.path());
                if !loaded.as_ref().is_err_and(|said| said.contains("MT0") && is_named(said)) {
                    wrong.push(format!("{} {name:?} in {file}: {loaded:?}", kind.name));
                }
            }
            // One format each as a whole program: it ends where the text does not load.
            let (file, text) = &formats(&config)[tried % 3];
            tried += 1;
            let ended = place.with(file, text.as_bytes(), &["run", "token-push"]);
            let said = String::from_utf8_lossy(&ended.stderr);
            let refused = ended.status.code() == Some(20) && said.contains("MT0") && said.contains(file);
            if !(refused && is_readable(&ended.stderr) && is_named(&said)) {
                let left = place.ran();
                wrong.push(format!("{} {name:?} in {file}: {:?}, {said:?}, started {left:?}", kind.name, ended.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(tried > 350, "{tried}");
    assert_eq!(place.ran(), [""; 0], "something was started");
    assert!(!place.path("home/state").exists(), "something was recorded");
}

#[test]
fn a_configuration_that_is_not_utf8_is_refused_with_the_line() {
    let place = Place::new();
    for kind in KINDS {
        let mut config = place.good();
        (kind.put)(&mut config, "a@@@b");
        for (file, text) in formats(&config) {
            let (before, after) = text.split_once("@@@").unwrap();
            let bytes = [before.as_bytes(), &[b'\n', 0xff], after.as_bytes()].concat();
            let ended = place.with(file, &bytes, &["run", "token-push"]);
            let said = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(20), "{}: {said}", kind.name);
            assert!(said.contains(file) && said.contains("line 2 is not UTF-8"), "{}: {said}", kind.name);
        }
    }
    assert_eq!(place.ran(), [""; 0]);
}

#[test]
fn a_hostile_variable_of_the_environment_is_refused_by_name_before_anything_runs() {
    let place = Place::new();
    let mut config = place.good();
    config.as_object_mut().unwrap().remove("vaultServer");
    config.as_object_mut().unwrap().remove("condorCreddHost");
    fs::write(place.path("c.json"), config.to_string()).unwrap();
    let mut wrong = Vec::new();
    for (variable, before, fine) in [
        ("_condor_COLLECTOR_HOST", "", &["", " ", "a b", "a\tb", "a\nb", "a\r\nb"][..]),
        (
            "_condor_SEC_CREDENTIAL_GETTOKEN_OPTS",
            "--vaultserver=",
            &["", " ", "a b", "a\tb", "a'b", "a\"b", "a\nb", "a\r\nb", "a\\b"],
        ),
        ("MANAGED_TOKENS_DEV_ENVIRONMENT_LABEL", "", &["", " "]),
    ] {
        let hostile = hostile();
        for name in hostile.iter().filter(|name| !name.contains('\0') && !fine.contains(&name.as_str())) {
            let ended = place.in_environment(&["run", "token-push"], variable, format!("{before}{name}").as_ref());
            let said = String::from_utf8_lossy(&ended.stderr);
            // The options of htgettoken are words.
            let first = name.split(' ').next().unwrap_or_default();
            let is_named =
                ["", before].map(|before| said.contains(&format!("{variable}: \"{before}{}", escaped(first))));
            let is_named = is_named.contains(&true);
            if !(ended.status.code() == Some(20) && is_named && is_readable(&ended.stderr)) {
                wrong.push(format!("{variable} {name:?}: {:?} {said}", ended.status));
            }
        }
        let not_utf8 = OsString::from_vec([before.as_bytes(), b"a\xffb"].concat());
        let ended = place.in_environment(&["run", "token-push"], variable, &not_utf8);
        if !(ended.status.code().is_some_and(|code| code != 0 && code < 128) && is_readable(&ended.stderr)) {
            wrong.push(format!("{variable} that is not UTF-8: {ended:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(place.ran(), [""; 0], "something was started");
}

#[test]
fn a_hostile_credd_that_a_collector_names_is_left_out() {
    let place = Place::new();
    let mut config = place.good();
    config.as_object_mut().unwrap().remove("condorCreddHost");
    config["condorCollectorHost"] = "collector.lab.test".into();
    fs::write(place.path("c.json"), config.to_string()).unwrap();
    let names: Vec<_> = hostile().into_iter().filter(|name| !name.contains(['\'', '\0'])).collect();
    let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
    // Everything works, and the storer says for which credd.
    let programs = [
        ("condor_status", format!("cat <<'END'\n{lines}schedd1.lab.test\nEND\n")),
        ("kinit", String::new()),
        ("klist", "echo 'Default principal: dunepro/mt@LAB.TEST'\n".to_owned()),
        ("htgettoken", HTGETTOKEN.to_owned()),
        (
            "condor_vault_storer",
            format!(
                "printf '%s\\n' \"$_condor_CREDD_HOST\" \"$@\" >>{}/ran/storer\nexit 1\n",
                place.dir.path().display()
            ),
        ),
    ];
    for (program, text) in programs {
        place.program(program, &text);
    }
    let ended = place.mt(&["run", "token-push"]);
    let storer = fs::read_to_string(place.path("ran/storer")).expect("the storer ran");
    assert!(storer.contains("schedd1.lab.test"), "for the one that is none: {storer}");
    for name in names.iter().filter(|name| name.trim().len() > 2 && !name.contains('\n')) {
        assert!(!storer.contains(name.as_str()), "{name:?} reached the storer: {storer}");
    }
    assert!(is_readable(&ended.stderr), "{ended:?}");
}
