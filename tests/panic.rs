//! Promise: what a panic says is said, wherever it comes, and however slowly stderr is read.

use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;
use std::{fs, os::fd::AsFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::json;

/// Whom root becomes: acting commands refuse root.
const NOBODY: u32 = 65534;

/// A pipe with no room in it, and how much is.
fn full_pipe() -> (io::PipeReader, io::PipeWriter, usize) {
    let (reader, mut writer) = io::pipe().unwrap();
    let flags = OFlag::from_bits_retain(fcntl(writer.as_fd(), FcntlArg::F_GETFL).unwrap());
    fcntl(writer.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
    let mut filled = 0;
    while let Ok(written) = writer.write(&[b'x'; 4096]) {
        filled += written;
    }
    fcntl(writer.as_fd(), FcntlArg::F_SETFL(flags)).unwrap();
    (reader, writer, filled)
}

#[test]
fn a_panic_of_the_main_thread_is_said_before_the_process_ends() {
    let dir = tempfile::Builder::new().prefix("mt-panic.").tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (mt, config, state) = (dir.path().join("mt"), dir.path().join("c.json"), dir.path().join("state"));
    assert!(Command::new("cp").args([env!("CARGO_BIN_EXE_mt").as_ref(), mt.as_os_str()]).status().unwrap().success());
    let role = json!({"account": "dunepro", "destinationNodes": ["node1.lab.test"], "desiredUIDOverride": 1234});
    let text = json!({
        "keytabPath": "/nonexistent", "kerberosPrincipalPattern": "{{.Account}}/mt@LAB.TEST", "vaultServer": "vault.lab.test",
        "condorCreddHost": "schedd1.lab.test", "disableNotifications": true, "logs": {"token-push": {"logfile": "/dev/null"}},
        "experiments": {"dune": {"roles": {"production": role}}},
    });
    fs::write(&config, text.to_string()).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    fs::create_dir(&state).unwrap();

    let (mut reader, writer, filled) = full_pipe();
    let mut command = Command::new(&mt);
    command
        .args(["-c".as_ref(), config.as_os_str(), "--state-dir".as_ref(), state.as_os_str()])
        .args(["run", "token-push"]);
    command.env_clear().env("MT_CRASH_AT", "sweep-before:1:panic").current_dir(dir.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
    if nix::unistd::geteuid().is_root() {
        chown(&state, Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut child = command.spawn().unwrap();
    drop(command); // and with it our end of its stderr
    // Long enough for whoever does not wait to be gone.
    thread::sleep(Duration::from_millis(700));
    let mut said = Vec::new();
    reader.read_to_end(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said[filled..]).into_owned();
    assert_eq!(child.wait().unwrap().code(), Some(101), "{said}");
    assert!(said.contains("a panic at sweep-before"), "{said:?}");
}
