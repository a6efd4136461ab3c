//! An acting `mt` in small.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use managed_tokens::guardian::{self, Owner};
use managed_tokens::{process, stderr};
use nix::unistd::getppid;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// `RUN_DIR SHARED WHAT ARGUMENT`. Says its process id and pid in its first line.
pub fn act() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [run_dir, shared, what, argument] = &args[..] else { panic!("{args:?}") };
    let owner = Owner::take(Path::new(run_dir)).unwrap().leaving_files_in(vec![PathBuf::from(shared)]);
    let owner = guardian::enter(owner).unwrap();
    fs::write(owner.private.join("krb5cc"), "a ticket").unwrap();
    fs::write(Path::new(shared).join(format!("vt_mt-{}-dune", owner.process)), "a token").unwrap();
    println!("{} {} {}", owner.process, std::process::id(), getppid());
    match what.as_str() {
        "panic" => {
            stderr::hold();
            stderr::start();
            let died = std::thread::spawn(|| panic!("a mistake in mt")).join().is_err();
            stderr::finish();
            return ExitCode::from(u8::from(!died) + argument.parse::<u8>().unwrap());
        }
        "exit" => return ExitCode::from(argument.parse::<u8>().unwrap()),
        // SAFETY: it ends this process or does nothing.
        "raise" => drop(unsafe { libc::raise(argument.parse().unwrap()) }),
        "run" | "stubborn" | "terminal" => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let code = runtime.block_on(work(what, argument));
            owner.leave();
            return ExitCode::from(code);
        }
        other => panic!("{other}"),
    }
    ExitCode::FAILURE
}

/// Runs the script. A signal cancels it, unless we are stubborn; each one is told.
async fn work(what: &str, script: &str) -> u8 {
    let cancel = CancellationToken::new();
    let child = process::Command::new("sh").args(["-c", script]).env("PATH", "/usr/bin:/bin");
    let child = if what == "terminal" { child.on_the_terminal() } else { child };
    let kinds = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt(), SignalKind::user_defined1()];
    let mut signals = kinds.map(|kind| signal(kind).unwrap());
    let [term, hup, int, usr1] = &mut signals;
    let running = process::run(child, &cancel);
    tokio::pin!(running);
    println!("ready");
    loop {
        let heard = tokio::select! {
            result = &mut running => return match result {
                Ok(finished) => {
                    print!("{}", finished.output);
                    0
                }
                Err(error) => {
                    println!("{error}");
                    3
                }
            },
            _ = term.recv() => "SIGTERM",
            _ = hup.recv() => "SIGHUP",
            _ = int.recv() => "SIGINT",
            _ = usr1.recv() => "SIGUSR1",
        };
        println!("heard {heard}");
        if what != "stubborn" {
            cancel.cancel();
        }
    }
}
