//! The actions over stand-in programs: small scripts in a PATH of their own. What needs real services is in
//! `tests/steps_lab.rs`.

mod accounts;
mod away;
mod exec;
mod get_vault_token;
mod kinit;
mod nodes;
mod store_in_credd;

use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::codes::*;
use super::environment::Snapshot;
use super::world::test_support::service;
use super::world::{Setup, World};
use super::{BuildError, build};
use crate::config::{CreddName, Credds, IssuerService, Service};
use crate::token_file::Fingerprint;
use crate::workflow::action::{Action, Attempt, AttemptResult, Class, Failure, ProductState, Success};
use crate::workflow::definition::{ActionSpec, CountsAs, Mode, OnFailure, Per, Retry, Step};
use crate::workflow::id::{ProcessId, RunId, StepName, Subject, TargetName};

const TOKEN: &str = "hvs.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const OTHER: &str = "hvs.BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

/// A world of one service over scripts.
struct Bench {
    directory: TempDir,
    service: Service,
    uid: Option<u32>,
    variables: Vec<(String, String)>,
    /// Issuer services of others.
    issuers: Vec<&'static str>,
    expiries: Vec<(String, Timestamp)>,
    own_uid: u32,
    process: ProcessId,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["bin", "private", "state", "state/tokens", "locks"] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::set_permissions(directory.path().join(name), fs::Permissions::from_mode(0o700)).unwrap();
        }
        let mut service = service("dune_production");
        service.keytab = directory.path().join("dunepro.keytab");
        fs::write(&service.keytab, "keys").unwrap();
        let process = ProcessId::generate();
        // Names in /tmp that no other test and no real storer uses.
        let own_uid = 3_000_000_000 + (process.0.random() % 1_000_000_000) as u32;
        let bench = Self {
            directory,
            service,
            uid: Some(1234),
            variables: vec![],
            issuers: vec![],
            expiries: vec![],
            own_uid,
            process,
        };
        bench.script("condor_config_val", "exit 1");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A program that logs its arguments and runs this text.
    fn script(&self, name: &str, text: &str) {
        let log = self.path(&format!("{name}.log"));
        let path = self.path("bin").join(name);
        let logging = format!("printf '%s\\n' \"$*\" >>{}", log.display());
        fs::write(&path, format!("#!/bin/sh\n{logging}\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// An htgettoken that finds or makes this token.
    fn htgettoken(&self, token: &str) {
        self.script(
            "htgettoken",
            &format!(
                "while [ $# -gt 0 ]; do case $1 in --vaulttokenfile) file=$2;; -o) bearer=$2;; esac; shift; done\n\
                 umask 077; echo eyJx.y.z >$bearer; [ -e $file ] || echo {token} >$file\n\
                 echo \"opts $HTGETTOKENOPTS cc $KRB5CCNAME\" >>{}",
                self.path("htgettoken.env").display()
            ),
        );
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    fn world(&self) -> Arc<World> {
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.path("bin").display());
        let fixed = [("PATH".to_owned(), path), ("SSL_CERT_FILE".to_owned(), "/nowhere".to_owned())];
        Arc::new(World::new(Setup {
            process: self.process,
            private: self.path("private"),
            state: self.path("state"),
            locks: self.path("locks"),
            environment: Snapshot::new(fixed.into_iter().chain(self.variables.clone())),
            own_uid: self.own_uid,
            services: vec![(self.service.clone(), self.uid)],
            issuer_services: self.issuers.iter().copied().map(IssuerService::checked).collect(),
            expiries: self.expiries.iter().cloned().collect(),
            email: None,
            outbox: None,
            accounts: None,
        }))
    }

    fn kept(&self) -> PathBuf {
        self.path("state/tokens").join(format!("vt_u{}-dune_production", self.own_uid))
    }

    fn kept_of(&self, credd: &str) -> PathBuf {
        self.path("state/tokens").join(format!("vt_u{}-{credd}-dune_production", self.own_uid))
    }

    /// What is left of this bench in /tmp.
    fn in_tmp(&self) -> Vec<String> {
        let ours = [format!("vt_mt{}", self.process), format!("vt_u{}", self.own_uid)];
        let names = fs::read_dir("/tmp").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| ours.iter().any(|start| name.starts_with(start))).collect()
    }

    /// The files in the private directory, but for the staged token and the ticket cache.
    fn in_private(&self) -> Vec<String> {
        let names = fs::read_dir(self.path("private")).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        names.filter(|name| name != "vt_dune_production" && !name.starts_with('.')).collect()
    }
}

fn keep(path: &Path, token: &str) {
    fs::write(path, format!("{token}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn step(name: &str, arguments: Option<&str>, per: Per) -> Step {
    Step {
        name: StepName::new("step"),
        action: ActionSpec { name: name.to_owned(), arguments: arguments.map(str::to_owned) },
        per,
        timeout: Duration::from_secs(20),
        parallel: 8,
        retry: Retry { times: 0, backoff: (Duration::ZERO, Duration::ZERO) },
        on_failure: OnFailure::Stop,
        counts_as: CountsAs::Setup,
        when: Mode::ALL.to_vec(),
    }
}

fn action(name: &str, world: &Arc<World>) -> Arc<dyn Action> {
    build(&step(name, None, Per::Subject), world).unwrap()
}

fn attempt(target: &str) -> Attempt {
    Attempt {
        run: RunId::generate(),
        session: 1,
        subject: Some(subject()),
        step: StepName::new("step"),
        target: TargetName::new(target),
        mode: Mode::Normal,
        number: 1,
        timeout: Duration::from_secs(20),
        cancel: CancellationToken::new(),
    }
}

fn subject() -> Subject {
    Subject::new("dune_production")
}

/// Waits until it is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let limit = std::time::Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(std::time::Instant::now() < limit, "{what}: not within 20 s");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn try_once(name: &str, target: &str, world: &Arc<World>) -> AttemptResult {
    action(name, world).attempt(&attempt(target)).await
}

fn fingerprint(success: &Success) -> Fingerprint {
    serde_json::from_value(success.detail.as_ref().unwrap()["fingerprint"].clone()).unwrap()
}

fn code(result: AttemptResult) -> (Class, crate::workflow::code::Code) {
    let failure = result.expect_err("a failure");
    (failure.class, failure.code)
}

#[test]
fn every_code_is_explained_once() {
    let numbers: Vec<u16> = EXPLANATIONS.iter().map(|(code, _, _)| code.0).collect();
    assert_eq!(numbers, (20..=67).collect::<Vec<_>>());
}
