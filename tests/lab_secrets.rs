//! Promise: no token, JWT, password, keytab or session key that a run uses is anywhere but in the files that are made for it: not in
//! the store, the logs, mails, Slack, Loki, metrics, traces, what `mt` prints, or the arguments and environment of a child.
//!
//! Every child is wrapped: the wrapper keeps its arguments, its environment, and, when it has ended, whatever lies in the private
//! directory. So the secrets of a run are known without guessing, and nothing is missed between two looks.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use support::corner::{Corner, Ended, STARTED, files_below};
use support::lab::Lab;

mod support;

const DUNE: &str = "dune_production";
/// Said by programs and servers that go wrong.
const BABBLED: &[&str] = &[
    "hvs.CAESIBabbledBabbledBabbledBabbled0123456789",
    "s.BabbledBabbledBabbled0123",
    "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJiYWJibGVkIn0.YmFiYmxlZC1zaWduYXR1cmU",
];
const PASSWORD: &str = "labpass";
/// In the URLs of the configuration: of the pushgateway, Loki, the collector of traces and FERRY.
const URL_PASSWORD: &str = "hunter2-in-a-url";

/// A text and where it was found.
type Found = (String, Vec<u8>);
/// A secret, and what it is.
type Secret = (String, Vec<u8>);

/// A place where no secret may be.
struct Place {
    name: &'static str,
    /// Everything that is there, each with where it was found.
    read: fn(&Scene) -> Vec<Found>,
    /// Puts something there: `None` where the text itself is the place.
    plant: Option<fn(&Scene, &str)>,
}

const PLACES: &[Place] = &[
    Place {
        name: "state directory",
        read: |scene| files(&scene.corner.state()),
        plant: Some(|scene, text| append(&scene.corner.state().join("store/planted"), text)),
    },
    Place {
        name: "logs",
        read: |scene| files(&scene.corner.path("logs")),
        plant: Some(|scene, text| append(&scene.corner.path("logs/debug"), text)),
    },
    Place {
        name: "mails",
        read: |scene| unfolded(files(&scene.corner.lab.path("out/mail"))),
        // As a mailer breaks a long line.
        plant: Some(|scene, text| {
            let (head, tail) = text.split_at(6);
            append(&scene.corner.lab.path("out/mail/planted.eml"), &format!("Subject: x\r\n\r\n{head}=\r\n{tail}\r\n"));
        }),
    },
    Place {
        name: "Slack",
        read: |scene| posted(scene, "slack"),
        plant: Some(|scene, text| post(scene, "slack", text)),
    },
    Place { name: "Loki", read: |scene| posted(scene, "loki"), plant: Some(|scene, text| post(scene, "loki", text)) },
    Place {
        name: "traces",
        read: |scene| files(&scene.corner.lab.path("out/traces")),
        plant: Some(|scene, text| append(&scene.corner.lab.path("out/traces/planted.bin"), text)),
    },
    Place {
        name: "metrics",
        read: |scene| {
            let page = scene.corner.lab.run(&["curl", "-sS", "-m", "20", "http://pushgateway.lab.test:9091/metrics"]);
            assert!(page.status.success(), "{page:?}");
            vec![("the pushgateway's page".to_owned(), page.stdout)]
        },
        plant: Some(|scene, text| {
            let push = format!(
                "printf 'planted{{what=\"%s\"}} 1\\n' '{text}' | curl -sS -m 20 --data-binary @- \
                http://pushgateway.lab.test:9091/metrics/job/planted"
            );
            assert!(scene.corner.lab.run(&["sh", "-c", &push]).status.success());
        }),
    },
    Place {
        name: "arguments of children",
        read: |scene| files(&scene.corner.path("seen/arguments")),
        plant: Some(|scene, text| child(scene, "$1", &[text])),
    },
    Place {
        name: "environment of children",
        read: |scene| files(&scene.corner.path("seen/environment")),
        plant: Some(|scene, text| child(scene, "env", &[&format!("PLANTED={text}")])),
    },
    Place {
        name: "what mt prints",
        read: |scene| files(&scene.corner.path("seen/printed")),
        plant: Some(|scene, text| append(&scene.corner.path("seen/printed/planted"), text)),
    },
];

struct Scene<'a> {
    corner: Corner<'a>,
}

fn files(directory: &Path) -> Vec<Found> {
    let all = files_below(directory).into_iter().filter(|path| path.is_file());
    all.map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

/// As a reader of the mail sees it: `=` at the end of a line goes on on the next.
fn unfolded(files: Vec<Found>) -> Vec<Found> {
    let unfold =
        |content: &[u8]| String::from_utf8_lossy(content).replace("=\r\n", "").replace("\r\n ", "").into_bytes();
    files.into_iter().flat_map(|(name, content)| [(name.clone(), unfold(&content)), (name, content)]).collect()
}

/// The bodies that were posted, as JSON has them and as they were.
fn posted(scene: &Scene<'_>, to: &str) -> Vec<Found> {
    let text = fs::read_to_string(scene.corner.lab.path(format!("out/{to}.jsonl"))).unwrap_or_default();
    let body =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["body"].as_str().unwrap_or_default().to_owned();
    text.lines().map(|line| (to.to_owned(), body(line).into_bytes())).collect()
}

fn post(scene: &Scene<'_>, to: &str, text: &str) {
    append(&scene.corner.lab.path(format!("out/{to}.jsonl")), &format!("{}\n", json!({ "body": text })));
}

fn append(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// A child of the kind that is wrapped, with such a secret.
fn child(scene: &Scene<'_>, how: &str, words: &[&str]) {
    let ping = scene.corner.path("bin/ping");
    let ping = ping.to_str().unwrap();
    let command = match how {
        "env" => [&["env"], words, &[ping]].concat(),
        _ => [&[ping], words].concat(),
    };
    scene.corner.lab.run(&command);
}

impl<'a> Scene<'a> {
    fn new(lab: &'a Lab, name: &str) -> Self {
        let scene = Self { corner: Corner::new(lab, name) };
        for part in ["logs", "seen", "seen/arguments", "seen/environment", "seen/private", "seen/printed"] {
            let path = scene.corner.path(part);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            scene.corner.give(&path);
        }
        let password = scene.corner.path("password");
        fs::write(&password, format!("{PASSWORD}\n")).unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        scene.corner.give(&password);
        scene.corner.configure(|config| {
            let file = |name: &str| scene.corner.path("logs").join(name).to_str().map(str::to_owned);
            config["errorCountToSendMessage"] = 1.into();
            config["logs"] = json!({
                "format": "json",
                "token-push": { "logfile": file("info"), "debugfile": file("debug") },
                "babble": { "logfile": file("info"), "debugfile": file("debug") },
                "refresh-uids-from-ferry": { "logfile": file("ferry.info"), "debugfile": file("ferry.debug") },
            });
            config["prometheus"]["host"] = format!("http://mt:{URL_PASSWORD}@pushgateway.lab.test:9091").into();
            config["loki"] = json!({ "host": format!("https://mt:{URL_PASSWORD}@web.lab.test") });
            let traces = format!("https://mt:{URL_PASSWORD}@web.lab.test/v1/traces");
            config["tracing"] = json!({ "url": traces, "protocol": "otlp" });
            let ferry = config["ferry"]["host"].as_str().unwrap().replace("://", &format!("://mt:{URL_PASSWORD}@"));
            config["ferry"]["host"] = ferry.into();
            config["email"] = json!({
                "from": "managed-tokens@lab.test", "smtpHost": "smtp.lab.test", "tls": "starttls",
                "username": "labuser", "passwordFile": password, "caFile": lab.path("ca/ca.pem"),
            });
            // The whole chain, credds and all.
            config["experiments"]["dune"]["roles"]["production"]["tokenGetterOverride"] = "storeAndGetToken".into();
        });
        for program in STARTED {
            scene.wrap(program);
        }
        scene
    }

    /// Puts a wrapper before a program.
    fn wrap(&self, program: &str) {
        let inside = [self.corner.lab.path("bin"), "/usr/local/bin".into(), "/usr/bin".into(), "/bin".into()];
        let real = inside.iter().map(|dir: &PathBuf| dir.join(program)).find(|path| path.exists());
        let real = real.unwrap_or_else(|| panic!("{program} is not installed"));
        let seen = self.corner.path("seen");
        // The name in the comment is what mt looks for in the storer; the variable is the laboratory's own, which mt inherits.
        self.corner.program(
            program,
            &format!(
                "#!/bin/sh\n# CONDOR_VAULT_STORER_ID\numask 077\nprintf '%s\\n' \"$@\" >{seen}/arguments/{program}.$$\n\
                 tr '\\0' '\\n' </proc/self/environ >{seen}/environment/{program}.$$\n\
                 guardian=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$PPID/status)\n\
                 for pid in $PPID $guardian; do\n\
                 tr '\\0' '\\n' </proc/$pid/cmdline >>{seen}/arguments/{program}.$$.above\n\
                 tr '\\0' '\\n' </proc/$pid/environ | grep -v ^LAB_SLACK= >>{seen}/environment/{program}.$$.above\ndone 2>/dev/null\n\
                 {real} \"$@\"\nend=$?\n[ -d \"$TMPDIR\" ] && cp -r \"$TMPDIR\" {seen}/private/{program}.$$\nexit $end\n",
                seen = seen.display(),
                real = real.display(),
            ),
        );
    }

    /// Runs `mt`, with everything it can say on stderr, and keeps what it prints.
    fn run(&self, arguments: &[&str]) -> Ended {
        let ended = self.corner.run(arguments);
        self.keep(&ended);
        ended
    }

    fn keep(&self, ended: &Ended) {
        append(&self.corner.path("seen/printed/all"), &format!("{}{}", ended.out, ended.err));
    }

    /// Every secret that there was.
    fn secrets(&self) -> Vec<Secret> {
        let lab = self.corner.lab;
        let token = regex::bytes::Regex::new(
            r"\b(?:hvs\.[A-Za-z0-9_-]{20,}|s\.[A-Za-z0-9]{20,})|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+",
        )
        .unwrap();
        let mut found = BTreeSet::new();
        let places = ["seen/private", "tokens"].map(|part| self.corner.path(part));
        let places = places.into_iter().chain(["condor/credd", "nodes/node1/tmp", "jwt"].map(|part| lab.path(part)));
        for (name, content) in places.flat_map(|place| files(&place)) {
            for secret in token.find_iter(&content) {
                found.insert(("token".to_owned(), secret.as_bytes().to_vec()));
            }
            if name.contains("krb5cc") {
                found.extend(keys(&content, 4).into_iter().map(|key| ("session key".to_owned(), key)));
            }
        }
        for (_, content) in files(&lab.path("keytabs")) {
            found.extend(keys(&content, 2).into_iter().map(|key| ("key of a keytab".to_owned(), key)));
        }
        let kinds: BTreeSet<_> = found.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, BTreeSet::from(["key of a keytab", "session key", "token"]), "nothing to look for");
        assert!(
            found.iter().any(|(_, text)| text.starts_with(b"hvs.") || text.starts_with(b"s."))
                && found.iter().any(|(_, text)| text.starts_with(b"eyJ"))
        );
        found.extend(BABBLED.iter().map(|text| ("babbled token".to_owned(), text.as_bytes().to_vec())));
        found.insert(("password of the mail server".to_owned(), PASSWORD.as_bytes().to_vec()));
        found.insert(("password in a URL".to_owned(), URL_PASSWORD.as_bytes().to_vec()));
        let config: Value = serde_json::from_slice(&fs::read(self.corner.path("managedTokens.json")).unwrap()).unwrap();
        for recipients in ["notifications", "notifications_test"] {
            let url = config[recipients]["slack_alerts_url"].as_str().expect("Slack is told");
            let path = url.split_once("://").unwrap().1.split_once('/').unwrap().1;
            assert!(path.len() > 8, "a webhook that can be told from other words: {url}");
            found.insert(("webhook".to_owned(), path.as_bytes().to_vec()));
        }
        found.into_iter().collect()
    }

    /// Where the secrets are, in the clear or in an encoding that programs print.
    fn leaks(&self, secrets: &[Secret]) -> Vec<String> {
        let mut leaks = Vec::new();
        let forms: Vec<(&str, Vec<Vec<u8>>)> =
            secrets.iter().map(|(kind, secret)| (kind.as_str(), forms(secret))).collect();
        for place in PLACES {
            for (file, content) in (place.read)(self) {
                for (kind, forms) in &forms {
                    if forms.iter().any(|form| contains(&content, form)) {
                        leaks.push(format!("{}: a {kind} is in {file}", place.name));
                    }
                }
            }
        }
        leaks.sort();
        leaks.dedup();
        leaks
    }
}

fn contains(content: &[u8], wanted: &[u8]) -> bool {
    // Faster than a window after the other, where there are megabytes.
    let first = wanted[0];
    let mut rest = content;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        if rest[at..].starts_with(wanted) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// A secret as it is, in hexadecimal and in base64; of a token its end too, which is as good as the whole.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.to_vec()];
    if secret.len() > 24 && secret.is_ascii() {
        forms.push(secret[secret.len() - 20..].to_vec());
    }
    forms.push(secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes());
    // Wherever it begins there: what depends on what is before and behind it is left out.
    for (before, digits) in [(0, 0), (1, 2), (2, 3)] {
        let encoded = base64(&[&vec![0; before], secret].concat());
        forms.push(encoded[digits.min(encoded.len())..].to_vec());
    }
    forms.retain(|form| form.len() > 4);
    forms
}

/// Without the last characters, which depend on what follows.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks_exact(3)
        .flat_map(|three| {
            let bits = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
            [18, 12, 6, 0].map(|shift| LETTERS[(bits >> shift & 63) as usize])
        })
        .collect()
}

/// The keys in a keytab or a cache: the number of an AES type, the length (as wide as this), and so many bytes.
fn keys(content: &[u8], width: usize) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for (kind, length) in [(17_u8, 16_usize), (18, 32), (19, 16), (20, 32)] {
        let mut head = vec![0, kind];
        head.extend(vec![0; width - 1]);
        head.push(u8::try_from(length).unwrap());
        for at in 0..content.len().saturating_sub(head.len() + length) {
            let key = &content[at + head.len()..][..length];
            // What only looks like a key has long stretches of one byte.
            if content[at..].starts_with(&head) && key.iter().collect::<BTreeSet<_>>().len() > length / 3 {
                found.push(key.to_vec());
            }
        }
    }
    found
}

#[test]
fn no_secret_of_a_run_is_anywhere_but_in_the_files_that_are_made_for_it() {
    let Some(lab) = Lab::up() else { return };
    let scene = Scene::new(&lab, "secrets");
    let corner = &scene.corner;

    scene.run(&["run", "token-push", "-vv"]).exits(0);
    scene.run(&["run", "token-push", "-vv", "--test", "-s", DUNE]).exits(0);
    scene.run(&["run", "token-push", "-vv", "--onboard", "--push", "-s", DUNE]).exits(0);
    scene.run(&["run", "ferry-refresh", "-vv"]).exits(0);
    scene.run(&["run", "ferry-refresh", "-vv", "--authmethod", "jwt"]).exits(0);
    let jwt = scene.run(&["runs", "show", "--events", "--output", "json"]).exits(0);
    assert!(jwt.out.contains("fetch-uid"), "a bearer token was used: {jwt:?}");

    // The vault says no; a program says what it must not; FERRY answers with a token.
    lab.fault("vault", "403 dunepro");
    scene.run(&["run", "token-push", "-vv"]).exits(10);
    scene.run(&["runs", "resume", "--failed", "--explain"]).exits(0);
    lab.fault("vault", "ok");
    let babble = BABBLED.join(" ");
    corner.program("babble", &format!("#!/bin/sh\necho '{babble}'; echo 'password={PASSWORD}' >&2; exit 3\n"));
    corner.workflow(
        "babble",
        r#"Workflow(name: "babble", for_each: Service, deadline: "5m", steps: [
            Step(name: "babble", action: Exec(command: ["babble"]), timeout: "20s"),
        ], finally: [Step(name: "notify", action: Notify, timeout: "15s")])"#,
    );
    scene.run(&["run", "babble", "-vv"]).exits(11);
    let real = corner.path("bin/htgettoken");
    let kept = fs::read_to_string(&real).unwrap();
    corner.program(
        "htgettoken",
        &format!("#!/bin/sh\necho '{babble}' >&2; echo 'X-Vault-Token: {}'; exit 1\n", BABBLED[1]),
    );
    scene.run(&["run", "token-push", "-vv", "--new"]).exits(11);
    corner.program("htgettoken", &kept);
    lab.fault("ferry", &format!("raw {{\"ferry_status\": \"failure\", \"ferry_error\": [\"{babble}\"]}}"));
    scene.run(&["run", "ferry-refresh", "-vv", "--authmethod", "jwt"]).exits(11);
    lab.fault("ferry", "ok");

    // Jaeger, and a store that cannot be used.
    let config = fs::read_to_string(corner.path("managedTokens.json")).unwrap();
    let jaeger = config.replace("/v1/traces", "/api/traces").replace("\"otlp\"", "\"jaeger\"");
    assert_ne!(jaeger, config);
    fs::write(corner.path("managedTokens.json"), &jaeger).unwrap();
    lab.fault("vault", "ok");
    scene.run(&["run", "token-push", "-vv", "--new", "-s", DUNE]).exits(0);
    let lock = corner.state().join("queue.lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    scene.run(&["run", "token-push", "-vv", "--new", "-s", DUNE]).exits(21);
    fs::remove_dir(&lock).unwrap();
    fs::write(corner.path("managedTokens.json"), &config).unwrap();

    // What people look at afterwards.
    let ids: Vec<String> = corner.runs().iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect();
    assert!(ids.len() >= 8, "{ids:?}");
    for id in &ids {
        for more in
            [&["--all"][..], &["--events"], &["--timing"], &["--output", "json"], &["--events", "--output", "json"]]
        {
            scene.run(&[&["runs", "show", id.as_str()], more].concat()).exits(0);
        }
    }
    for command in [
        &["run", "token-push", "--dry-run", "-vv"][..],
        &["run", "ferry-refresh", "--dry-run", "--authmethod", "jwt"],
        &["runs", "list", "--output", "json"],
        &["config", "show"],
        &["config", "show", "--output", "json"],
        &["services", "show", DUNE, "--output", "json"],
        &["counters", "list"],
        &["uids", "list"],
        &["store", "export", "-"],
        &["config", "check"],
        &["workflow", "show", "token-push"],
    ] {
        scene.run(command).exits(0);
    }

    // Everything that could tell has been used.
    assert!(lab.mails().len() >= 2 && !lab.slack().is_empty(), "somebody was told");
    for place in PLACES {
        assert!(!(place.read)(&scene).is_empty(), "nothing to look at: {}", place.name);
    }
    let mails: String = lab.mails().iter().map(|mail| mail.text.clone()).collect();
    assert!(mails.contains("[redacted]"), "what was babbled is in a mail, but for the secret: {mails}");
    let secrets = scene.secrets();
    eprintln!("{} secrets looked for", secrets.len());
    assert_eq!(scene.leaks(&secrets), [""; 0]);
}

#[test]
fn a_secret_planted_in_any_of_the_places_is_found() {
    let Some(lab) = Lab::up() else { return };
    let scene = Scene::new(&lab, "planted");
    scene.run(&["uids", "set", "dunepro", "1234"]).exits(0);
    for (number, place) in PLACES.iter().enumerate() {
        let Some(plant) = place.plant else { continue };
        let secret = format!("planted-{number}-{}", "0123456789abcdef");
        let secrets = [("planted secret".to_owned(), secret.clone().into_bytes())];
        assert_eq!(scene.leaks(&secrets), [""; 0], "before");
        plant(&scene, &secret);
        let leaks = scene.leaks(&secrets);
        assert!(leaks.len() == 1 && leaks[0].starts_with(place.name), "{}: {leaks:?}", place.name);
    }
    // In other clothes, too.
    let key: Vec<u8> = (0..32).map(|n| n * 7 + 1).collect();
    let secrets = [("session key".to_owned(), key.clone())];
    append(&scene.corner.path("logs/debug"), &String::from_utf8(base64(&key)).unwrap());
    assert_eq!(scene.leaks(&secrets).len(), 1);
}
