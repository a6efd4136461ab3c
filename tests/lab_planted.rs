//! Promise: what somebody else has put in the way, at any path that `mt` reads or writes, is refused: by the name of the path, with the
//! way out, and without waiting for a FIFO's other end. Nothing is written through it.
//!
//! Places where a refusal would keep tokens from the nodes cost a warning, or the record, and the tokens are pushed all the same.
//! What is planted on nodes, in place of kept tokens and under the storer's names: `lab_tokens/planted.rs`, `token_file.rs`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use support::corner::{Corner, Ended};
use support::lab::Lab;

mod support;

const DUNE: &str = "dune_production";
/// A stranger in the laboratory as on the machine.
const NOBODY: u32 = 65534;
/// A run takes seconds; what hangs, for ever.
const PATIENCE: Duration = Duration::from_secs(100);

/// What is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planted {
    /// A link, to a good one.
    Link,
    /// A FIFO without another end.
    Fifo,
    /// A good one of somebody else.
    Foreign,
    /// A good one, in a directory where everybody may swap it.
    OpenParent,
}
use Planted::{Fifo, Foreign, Link, OpenParent};

const ALL: &[Planted] = &[Link, Fifo, Foreign, OpenParent];

/// What becomes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Becomes {
    /// It ends before it begins, with this code.
    Refused(i32),
    /// The service fails.
    Failed,
    /// Tokens are pushed; the exit code says that something is wrong, or stderr does.
    Pushed(i32),
}
use Becomes::{Failed, Pushed, Refused};

/// A path, how the corner comes to use it, and what is to happen.
struct Place {
    name: &'static str,
    planted: &'static [Planted],
    /// Makes a good one; its path.
    make: fn(&Corner) -> PathBuf,
    arguments: &'static [&'static str],
    becomes: Becomes,
}

const PUSH: &[&str] = &["run", "token-push", "-s", DUNE];
/// As good as a push where it is not tokens that matter, and quicker.
const WORK: &[&str] = &["run", "work", "-s", DUNE];
const WORKFLOW: &str = r#"Workflow(name: "work", for_each: Service, deadline: "5m", steps: [
    Step(name: "work", action: Exec(command: ["touch", "/tmp/worked"]), timeout: "20s"),
])"#;

fn in_conf(corner: &Corner, name: &str, content: &str) -> PathBuf {
    let directory = corner.path("conf");
    if !directory.exists() {
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        corner.give(&directory);
    }
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    corner.give(&path);
    path
}

fn with(corner: &Corner, path: PathBuf, change: fn(&mut Value, &str)) -> PathBuf {
    corner.configure(|config| change(config, path.to_str().unwrap()));
    path
}

fn in_state(corner: &Corner, name: &str) -> PathBuf {
    corner.run(&["uids", "set", "dunepro", "1234"]).exits(0);
    let path = corner.state().join(name);
    if name.starts_with("leases/") {
        fs::write(&path, "").unwrap();
        corner.give(&path);
    }
    assert!(path.exists(), "{} is what is there", path.display());
    path
}

/// A directory in the one that becomes writable for everybody.
fn directory_in_conf(corner: &Corner, name: &str) -> PathBuf {
    in_conf(corner, "other", "");
    let path = corner.path("conf").join(name);
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    corner.give(&path);
    path
}

/// As managed-tokens 0.17 makes it, with a UID in it.
fn database(corner: &Corner) -> PathBuf {
    let path = in_conf(corner, "uid.db", "");
    let tables = "PRAGMA application_id = 1571300691; PRAGMA user_version = 1;
        CREATE TABLE uids (username STRING UNIQUE NOT NULL PRIMARY KEY, uid INTEGER UNIQUE NOT NULL);
        INSERT INTO uids VALUES ('dunepro', 1234);";
    rusqlite::Connection::open(&path).unwrap().execute_batch(tables).unwrap();
    with(corner, path, |c, path| c["dbLocation"] = path.into())
}

/// Mail over TLS with a login, and an error to tell of.
fn mail(config: &mut Value) {
    config["errorCountToSendMessage"] = 1.into();
    config["experiments"]["dune"]["roles"]["production"]["keytabPathOverride"] = "/nonexistent".into();
    config["email"] = json!({
        "from": "managed-tokens@lab.test", "smtpHost": "smtp.lab.test", "tls": "starttls", "username": "labuser",
        "passwordFile": "/nonexistent",
    });
}

const PLACES: &[Place] = &[
    Place {
        name: "configuration",
        planted: ALL,
        make: |corner| {
            let text = fs::read_to_string(corner.path("managedTokens.json")).unwrap();
            in_conf(corner, "c.json", &text)
        },
        arguments: &["-c", "conf/c.json", "run", "token-push", "-s", DUNE],
        becomes: Refused(20),
    },
    Place {
        name: "workflow",
        planted: ALL,
        make: |corner| in_conf(corner, "token-push.ron", include_str!("../workflows/token-push.ron")),
        arguments: &["run", "conf/token-push.ron", "-s", DUNE],
        becomes: Refused(20),
    },
    Place {
        name: "keytab",
        planted: ALL,
        make: |corner| {
            let path = in_conf(corner, "dunepro.keytab", "");
            fs::copy(corner.lab.path("keytabs/dunepro.keytab"), &path).unwrap();
            with(corner, path, |c, path| {
                c["experiments"]["dune"]["roles"]["production"]["keytabPathOverride"] = path.into()
            })
        },
        arguments: PUSH,
        becomes: Failed,
    },
    Place {
        name: "template",
        planted: ALL,
        make: |corner| {
            let path = in_conf(corner, "admin.txt", "Subject: x\n{{ summary }}\n");
            with(corner, path, |c, path| c["templates"] = json!({"adminMail": path}))
        },
        arguments: &["config", "check"],
        becomes: Refused(20),
    },
    Place {
        name: "template of mails to stakeholders",
        planted: ALL,
        make: |corner| {
            let path = in_conf(corner, "stakeholder.txt", "Subject: x\n{{ summary }}\n");
            with(corner, path, |c, path| c["templates"] = json!({"stakeholderMail": path}))
        },
        arguments: &["config", "check"],
        becomes: Refused(20),
    },
    Place {
        name: "template of messages to Slack",
        planted: ALL,
        make: |corner| {
            let path = in_conf(corner, "slack.txt", "{{ summary }}\n");
            with(corner, path, |c, path| c["templates"] = json!({"slack": path}))
        },
        arguments: &["config", "check"],
        becomes: Refused(20),
    },
    Place {
        name: "workflow by its name",
        planted: ALL,
        make: |corner| {
            corner.workflow("token-push", include_str!("../workflows/token-push.ron"));
            let path = corner.path("workflows/token-push.ron");
            corner.give(&path);
            path
        },
        arguments: PUSH,
        becomes: Refused(20),
    },
    Place {
        name: "the log file for everything",
        planted: ALL,
        make: |corner| {
            let path = in_conf(corner, "mt.debug", "");
            with(corner, path, |c, path| c["logs"] = json!({"work": {"debugfile": path}}))
        },
        arguments: WORK,
        becomes: Pushed(0),
    },
    Place {
        name: "the log file",
        planted: ALL,
        make: |corner| {
            let path = in_conf(corner, "mt.log", "");
            with(corner, path, |c, path| c["logs"] = json!({"work": {"logfile": path}}))
        },
        arguments: WORK,
        becomes: Pushed(0),
    },
    Place {
        name: "state directory",
        planted: ALL,
        make: |corner| directory_in_conf(corner, "state"),
        arguments: &["--state-dir", "conf/state", "run", "work", "-s", DUNE],
        becomes: Pushed(21),
    },
    Place {
        name: "directory of private directories",
        planted: &[Link, Fifo, Foreign],
        make: |corner| in_state(corner, "run"),
        arguments: WORK,
        becomes: Pushed(21),
    },
    Place {
        name: "directory of leases",
        planted: &[Link, Fifo, Foreign],
        make: |corner| in_state(corner, "leases"),
        arguments: WORK,
        becomes: Pushed(21),
    },
    Place {
        name: "lease",
        planted: &[Link, Fifo, Foreign],
        make: |corner| in_state(corner, "leases/dune_production"),
        arguments: WORK,
        // The token matters more than the lock.
        becomes: Pushed(0),
    },
    Place {
        name: "store",
        planted: &[Link, Fifo, Foreign],
        make: |corner| in_state(corner, "store"),
        arguments: WORK,
        becomes: Pushed(21),
    },
    Place {
        name: "sidecar",
        planted: &[Link, Fifo, Foreign],
        make: |corner| in_state(corner, "store.json"),
        arguments: WORK,
        becomes: Pushed(21),
    },
    Place {
        name: "queue lock",
        planted: &[Link, Fifo, Foreign],
        make: |corner| in_state(corner, "queue.lock"),
        arguments: WORK,
        becomes: Pushed(21),
    },
    Place {
        name: "store lock",
        planted: &[Link, Fifo, Foreign],
        make: |corner| in_state(corner, "store.lock"),
        arguments: WORK,
        becomes: Pushed(21),
    },
    Place {
        name: "directory of kept tokens",
        planted: &[Link, Fifo, Foreign],
        make: |corner| {
            let path = directory_in_conf(corner, "tokens");
            with(corner, path, |c, path| c["serviceCreddVaultTokenPathRoot"] = path.into())
        },
        arguments: PUSH,
        becomes: Pushed(0),
    },
    Place {
        name: "kept token",
        planted: ALL,
        make: |corner| {
            let directory = directory_in_conf(corner, "tokens");
            let path = directory.join(format!("vt_u{}-{DUNE}", corner.own_uid()));
            fs::write(&path, "hvs.CAESIJ0aB0123456789abcdefgh").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            corner.give(&path);
            with(corner, directory, |c, path| c["serviceCreddVaultTokenPathRoot"] = path.into());
            path
        },
        arguments: PUSH,
        becomes: Pushed(0),
    },
    Place {
        name: "UIDs beside the store",
        planted: &[Link, Fifo, Foreign],
        make: |corner| {
            let path = in_state(corner, "uids.json");
            // Read where the store cannot say.
            fs::remove_file(corner.state().join("queue.lock")).unwrap();
            fs::create_dir(corner.state().join("queue.lock")).unwrap();
            path
        },
        arguments: WORK,
        becomes: Pushed(21),
    },
    Place {
        name: "lock of the UIDs beside the store",
        planted: &[Link, Fifo, Foreign],
        make: |corner| {
            let path = in_state(corner, "uids.lock");
            // Taken where the two differ.
            fs::write(corner.state().join("uids.json"), "{}").unwrap();
            path
        },
        arguments: WORK,
        becomes: Pushed(0),
    },
    Place {
        name: "database of the existing service",
        planted: ALL,
        make: database,
        arguments: WORK,
        becomes: Pushed(0),
    },
    Place {
        name: "journal of that database",
        planted: &[Link, Fifo, Foreign],
        make: |corner| {
            database(corner);
            in_conf(corner, "uid.db-wal", "")
        },
        arguments: WORK,
        becomes: Pushed(0),
    },
    Place {
        name: "password of the mail server",
        planted: ALL,
        make: |corner| {
            let path = in_conf(corner, "password", "labpass\n");
            with(corner, path, |c, path| {
                mail(c);
                c["email"]["passwordFile"] = path.into();
            })
        },
        arguments: PUSH,
        becomes: Failed,
    },
    Place {
        name: "authority of the mail server",
        planted: ALL,
        make: |corner| {
            let ca = fs::read_to_string(corner.lab.path("ca/ca.pem")).unwrap();
            in_conf(corner, "password", "labpass\n");
            let path = in_conf(corner, "ca.pem", &ca);
            with(corner, path, |c, path| {
                mail(c);
                c["email"]["passwordFile"] = path.replace("ca.pem", "password").into();
                c["email"]["caFile"] = path.into();
            })
        },
        arguments: PUSH,
        becomes: Failed,
    },
    Place {
        name: "certificate for FERRY",
        planted: ALL,
        make: |corner| {
            let certificate = fs::read_to_string(corner.lab.path("ca/client.pem")).unwrap();
            let path = in_conf(corner, "client.pem", &certificate);
            with(corner, path, |c, path| c["ferry"]["hostCert"] = path.into())
        },
        arguments: &["run", "ferry-refresh", "-s", DUNE],
        becomes: Failed,
    },
    Place {
        name: "keytab for FERRY",
        planted: ALL,
        make: |corner| {
            let path = in_conf(corner, "ferry.keytab", "");
            let config: Value =
                serde_json::from_str(&fs::read_to_string(corner.path("managedTokens.json")).unwrap()).unwrap();
            fs::copy(config["ferry"]["serviceKeytabPath"].as_str().unwrap(), &path).unwrap();
            with(corner, path, |c, path| c["ferry"]["serviceKeytabPath"] = path.into())
        },
        arguments: &["run", "ferry-refresh", "-s", DUNE, "--authmethod", "jwt"],
        becomes: Failed,
    },
    Place {
        name: "key for FERRY",
        planted: ALL,
        make: |corner| {
            let key = fs::read_to_string(corner.lab.path("ca/client.key")).unwrap();
            let path = in_conf(corner, "client.key", &key);
            with(corner, path, |c, path| c["ferry"]["hostKey"] = path.into())
        },
        arguments: &["run", "ferry-refresh", "-s", DUNE],
        becomes: Failed,
    },
];

/// Puts it there. `None`: this machine cannot.
fn plant(corner: &Corner, path: &Path, what: Planted) -> Option<PathBuf> {
    let aside = path.with_extension("good");
    // Whose the thing itself is decides, not whose the directory is.
    match what {
        Link => {
            fs::rename(path, &aside).unwrap();
            symlink(&aside, path).unwrap();
            let stranger = if corner.lab.has_own_accounts() { NOBODY } else { return None };
            lchown(path, Some(stranger), Some(stranger)).unwrap();
        }
        Fifo => {
            fs::rename(path, &aside).unwrap();
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
            corner.give(path);
        }
        Foreign => {
            if !corner.lab.has_own_accounts() {
                return None;
            }
            // Open to us, so that it is its owner alone that speaks against it.
            let mode = if path.is_dir() { 0o755 } else { 0o644 };
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        OpenParent => fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o777)).unwrap(),
    }
    Some(path.to_owned())
}

/// Runs `mt` in the corner's own directory, and not for ever.
fn run(corner: &Corner, arguments: &[&str], about: &str) -> Ended {
    let base = corner.path("");
    let arguments: Vec<String> = arguments
        .iter()
        .map(|word| if word.starts_with("conf/") { base.join(word).display().to_string() } else { (*word).to_owned() })
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut started = corner.start(&words);
    let (done, ended) = mpsc::channel::<()>();
    // Whoever drops `done` says that it is over.
    thread::scope(|scope| {
        let pid = started.pid();
        scope.spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                // A worker that waits for ever would keep our end of its output open.
                for pid in corner.mt_pids().into_iter().map(nix::unistd::Pid::from_raw).chain([pid]) {
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                }
            }
        });
        let ended = started.wait();
        drop(done);
        assert!(ended.code.is_some(), "{about}: it hangs: {ended:?}");
        ended
    })
}

/// Everything that is there: names, modes, and what is in files.
fn content(path: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mode = fs::symlink_metadata(path).unwrap().permissions().mode();
    let mut found = match path.is_dir() {
        true => vec![(path.to_owned(), mode, Vec::new())],
        false => vec![(path.to_owned(), mode, fs::read(path).unwrap())],
    };
    if path.is_dir() {
        let mut inside: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        inside.sort();
        found.extend(inside.iter().flat_map(|path| content(path)));
    }
    found
}

#[test]
fn what_others_put_in_the_way_is_refused_by_name_and_never_waited_for() {
    let Some(lab) = Lab::up() else { return };
    let mut wrong = Vec::new();
    for (number, place) in PLACES.iter().enumerate() {
        for what in place.planted {
            let about = format!("{what:?} as {}", place.name);
            let corner = Corner::new(&lab, &format!("{number}{what:?}"));
            corner.workflow("work", WORKFLOW);
            let path = (place.make)(&corner);
            let Some(planted) = plant(&corner, &path, *what) else {
                eprintln!("SKIPPED {about}: only root can give things to somebody else");
                continue;
            };
            // What is somebody else's, or was aside when the run began.
            let untouched = match what {
                Link | Fifo => Some(path.with_extension("good")),
                Foreign => Some(path.clone()),
                OpenParent => None,
            };
            let before = untouched.as_deref().map(content);
            let mails = lab.mails().len();
            let ended = run(&corner, place.arguments, &about);
            if untouched.as_deref().map(content) != before {
                wrong.push(format!("{about}: something was written through it"));
            }
            if place.name.ends_with("of the mail server") && lab.mails().len() != mails {
                wrong.push(format!("{about}: a mail went out"));
            }
            let mut said = format!("{}{}", ended.out, ended.err);
            if place.becomes == Failed {
                // What became of the message is not worth a message.
                said += &corner.run(&["runs", "show", "--output", "json"]).out;
            }
            let code = match place.becomes {
                Refused(code) | Pushed(code) => code,
                Failed => 11,
            };
            let shown = planted.to_string_lossy();
            let directory = planted.parent().unwrap().to_string_lossy();
            let is_named = said.contains(&*shown) || *what == OpenParent && said.contains(&*directory);
            // Whatever else is wrong, the work is done.
            let is_done = !place.arguments.contains(&"work") || lab.path("tmp/worked").exists();
            let _ = fs::remove_file(lab.path("tmp/worked"));
            if ended.code != Some(code) || !is_named || !is_done {
                wrong.push(format!("{about} ({shown}): {ended:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
