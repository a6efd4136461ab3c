//! The laboratory keeps its own promises: what the other tests rely on.

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output};

use support::lab::Lab;

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Waits until the child has said something.
fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("stdout is piped")).read_line(&mut line).expect("it can be read");
    line
}

const KINIT: &str = "kinit -k -t $LAB/keytabs/dunepro.keytab dunepro/managedtokens/lab.test";

/// The network namespace of a running laboratory. Held open, its number is not given to another one meanwhile.
struct Namespace {
    link: std::path::PathBuf,
    _pin: File,
}

impl Namespace {
    fn of(lab: &Lab) -> Namespace {
        let recorded = std::fs::read_to_string(lab.path("pid/holder")).expect("the holder is recorded");
        let pid = recorded.split_whitespace().next().expect("its pid");
        let place = format!("/proc/{pid}/ns/net");
        Namespace {
            link: std::fs::read_link(&place).expect("it is running"),
            _pin: File::open(&place).expect("it can be held"),
        }
    }

    fn processes(&self) -> Vec<String> {
        let all = std::fs::read_dir("/proc").expect("/proc can be read").flatten();
        all.map(|entry| entry.path())
            .filter(|process| std::fs::read_link(process.join("ns/net")).is_ok_and(|link| link == self.link))
            .map(|process| std::fs::read_to_string(process.join("cmdline")).unwrap_or_default().replace('\0', " "))
            .collect()
    }
}

#[test]
fn the_whole_chain_works_with_the_real_tools() {
    let Some(lab) = Lab::up() else { return };
    let proof = lab.tool("proof").output().expect("lab/lab can be started");
    assert!(proof.status.success(), "{}", text(&proof));
    assert_eq!(lab.mails().len(), 1);
    assert_eq!(lab.mails()[0].to, ["admin@lab.test"]);
    assert_eq!(lab.slack()[0]["text"], "proof");
}

#[test]
fn two_laboratories_do_not_meet() {
    let Some(one) = Lab::up() else { return };
    let Some(other) = Lab::up() else { return };
    assert!(one.run(&["sh", "-c", "echo one >/tmp/mark && echo one >/dev/shm/mark"]).status.success());
    assert!(other.run(&["sh", "-c", "test ! -e /tmp/mark && test ! -e /dev/shm/mark"]).status.success());
    one.kill("kdc");
    assert!(!one.run(&["sh", "-c", KINIT]).status.success());
    let ticket = other.run(&["sh", "-c", KINIT]);
    assert!(ticket.status.success(), "{}", text(&ticket));
}

#[test]
fn down_leaves_no_process_and_no_directory() {
    let Some(lab) = Lab::up() else { return };
    let (dir, namespace) = (lab.dir().to_owned(), Namespace::of(&lab));
    // Neither a stopped program, nor one that ignores signals, nor what it left behind, may stay.
    let mut client = lab.spawn(&["sh", "-c", "trap '' TERM HUP INT; sleep 1000 & echo ready; kill -STOP $$"]);
    first_line(&mut client);
    lab.pause("vault");
    assert!(namespace.processes().len() > 10);
    drop(lab);
    assert_eq!(namespace.processes(), [""; 0]);
    assert!(!dir.exists());
    assert_eq!(client.wait().expect("it was our child").signal(), Some(9));
}

#[test]
fn a_panic_takes_it_down() {
    let Some(lab) = Lab::up() else { return };
    let (dir, namespace) = (lab.dir().to_owned(), Namespace::of(&lab));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _lab = lab;
        panic!("this one is meant");
    }));
    assert!(panicked.is_err());
    assert_eq!(namespace.processes(), [""; 0]);
    assert!(!dir.exists());
}

#[test]
fn a_killed_parent_takes_it_down() {
    // Its guard would hide what is tested, so this laboratory has another parent than the test.
    let Some(probe) = Lab::up() else { return };
    drop(probe);
    let dir = tempfile::Builder::new().prefix("mt-lab.").tempdir_in("/tmp").expect("a directory under /tmp");
    let mut parent = Command::new("sleep").arg("1000").spawn().expect("sleep can be started");
    let lab = |arguments: &[&str]| {
        let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/lab/lab");
        Command::new(tool).args(arguments).env("LAB", dir.path()).output().expect("lab/lab can be started")
    };
    let up = lab(&["up", "--with-parent", &parent.id().to_string()]);
    assert!(up.status.success(), "{}", text(&up));
    let watcher = std::fs::read_to_string(dir.path().join("pid/watcher")).expect("the watcher is recorded");
    parent.kill().expect("it is our child");
    parent.wait().expect("it is our child");
    wait_for_end(watcher.split_whitespace().next().expect("its pid"));
    assert!(!dir.path().exists());
    assert_eq!(lab(&["status"]).status.code(), Some(3));
}

/// Until that process, which is not our child, is gone.
fn wait_for_end(pid: &str) {
    let waiter = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/services/watch_parent.py");
    let waited = Command::new("python3").arg(waiter).args([pid, "true"]).status().expect("python3 can be started");
    assert!(waited.success());
}

#[test]
fn up_twice_is_an_error_and_down_twice_is_not() {
    let Some(lab) = Lab::up() else { return };
    let again = lab.tool("up").output().expect("lab/lab can be started");
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again).contains("is up in"), "{}", text(&again));
    assert!(lab.run(&["true"]).status.success(), "the running one is not harmed");
    for _ in 0..2 {
        assert!(lab.tool("down").output().expect("lab/lab can be started").status.success());
    }
    let up = lab.tool("up").output().expect("lab/lab can be started");
    assert!(up.status.success(), "after a plain `down` it can be raised again: {}", text(&up));
}

#[test]
fn a_foreign_directory_is_never_touched() {
    let Some(lab) = Lab::up() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("precious"), "content").expect("it can be written");
    for command in [["up"].as_slice(), &["down", "--purge"]] {
        let output =
            lab.tool(command[0]).args(&command[1..]).env("LAB", dir.path()).output().expect("lab/lab can be started");
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    }
    assert!(dir.path().join("precious").exists());
}

#[test]
fn run_passes_codes_signals_and_nothing_else() {
    let Some(lab) = Lab::up() else { return };
    assert_eq!(lab.run(&["sh", "-c", "exit 7"]).status.code(), Some(7));
    let mut child = lab.spawn(&["sh", "-c", "echo ready; exec sleep 1000"]);
    first_line(&mut child);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), nix::sys::signal::Signal::SIGTERM)
        .expect("it runs");
    assert_eq!(child.wait().expect("our child").signal(), Some(15), "the child's pid is the program's own");
    let mut environment = lab.command(&["env"]);
    environment.env("HTGETTOKENOPTS", "x").env("_condor_CREDD_HOST", "x").env("KRB5CCNAME", "x").env("TMPDIR", "x");
    let environment = text(
        &environment
            .env("MT_LOG", "yes")
            .env("OTHER", "yes")
            .env("LAB_RUN_ENV_PASS", "OTHER")
            .output()
            .expect("it runs"),
    );
    for leaked in ["HTGETTOKENOPTS=", "_condor_CREDD_HOST=", "KRB5CCNAME=", "TMPDIR="] {
        assert!(!environment.contains(leaked), "{environment}");
    }
    for passed in ["MT_LOG=yes", "OTHER=yes", "MT_CONFIG=/tmp/"] {
        assert!(environment.contains(passed), "{environment}");
    }
}

#[test]
fn mt_of_this_build_is_there_and_the_client_can_run_it() {
    let Some(lab) = Lab::up() else { return };
    let which = lab.run(&["sh", "-c", "test -x \"$(command -v mt)\" && command -v mt"]);
    assert_eq!(text(&which).trim(), lab.path("bin/mt").to_str().expect("a plain path"));
}

#[test]
fn faults_are_seen_and_taken_back() {
    let Some(lab) = Lab::up() else { return };
    let credd = "_condor_CREDD_HOST=schedd1.lab.test condor_store_cred query-oauth -s dune_production";
    for (name, kind, command, seen) in [
        ("keytab-dunepro", "wrong", KINIT, "no suitable keys"),
        ("keytab-dunepro", "stale", KINIT, "Password incorrect"),
        ("keytab-dunepro", "missing", KINIT, "not found"),
        ("schedd1", "denied", credd, "not allowed"),
        ("schedd1", "down", credd, "Operation failed"),
        ("collector", "down", "condor_status -schedd", "Couldn't contact"),
        ("vault", "sealed", "curl -s https://vault.lab.test:8200/v1/auth/token/lookup-self", "sealed"),
        ("slack", "status 503", "curl -s -d '{}' -w '%{http_code}' $LAB_SLACK", "503"),
        ("slack", "raw no_service", "curl -s -d '{}' $LAB_SLACK", "no_service"),
        (
            "ferry",
            "status 500",
            "curl -s -w '%{http_code}' --cert $LAB/ca/client.pem --key $LAB/ca/client.key $LAB_FERRY/",
            "500",
        ),
        (
            "smtp",
            "refuse",
            "echo x | curl -sv --mail-from a@lab.test --mail-rcpt b@lab.test -T - smtp://$LAB_SMTP",
            "550",
        ),
        ("node1", "hostkey", "ssh dunepro@node1.lab.test true", "IDENTIFICATION HAS CHANGED"),
    ] {
        let run = || text(&lab.run(&["sh", "-c", command]));
        lab.fault(name, kind);
        let with = run();
        assert!(with.contains(seen), "{name} {kind}: {with}");
        lab.fault(name, "ok");
        let without = run();
        assert!(!without.contains(seen), "{name} ok: {without}");
    }
    let unknown = lab.tool("fault").args(["vault", "nonsense"]).output().expect("lab/lab can be started");
    assert!(!unknown.status.success() && text(&unknown).contains("norefresh"), "{}", text(&unknown));
}

#[test]
fn a_paused_service_answers_again() {
    let Some(lab) = Lab::up() else { return };
    let health = ["curl", "-s", "-m", "1", "https://vault.lab.test:8200/v1/sys/health"];
    lab.pause("vault");
    assert_eq!(lab.run(&health).status.code(), Some(28), "a time-out");
    lab.resume("vault");
    assert!(lab.run(&health).status.success());
}

#[test]
fn what_arrives_on_a_node_belongs_to_the_account() {
    let Some(lab) = Lab::up() else { return };
    let push = format!(
        "{KINIT} && echo content >/tmp/file && rsync --perms --chmod=u=r,go= /tmp/file dunepro@node1.lab.test:/tmp/file"
    );
    let pushed = lab.run(&["sh", "-c", &push]);
    assert!(pushed.status.success(), "{}", text(&pushed));
    assert_eq!(text(&lab.node("node1", &["stat", "-c", "%U %a", "/tmp/file"])).trim(), "dunepro 400");
    if lab.has_own_accounts() {
        assert_eq!(text(&lab.node("node1", &["stat", "-c", "%u", "/tmp/file"])).trim(), "1234");
    }
    assert!(!lab.node("node2", &["test", "-e", "/tmp/file"]).status.success(), "every node has its own /tmp");
}
