//! What mails say, and what becomes of them with servers of every temper. The servers speak real SMTP over real sockets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{DueCounter, Kind, Outbox, OutboxEntry, OutboxError, OutboxStatus, prepare};
use crate::config::Email;
use crate::steps::codes::*;
use crate::steps::environment::Snapshot;
use crate::steps::notify::Notify;
use crate::steps::{Setup, World};
use crate::workflow::action::{Action, Attempt, AttemptResult, Class};
use crate::workflow::definition::{CountsAs, ForEach, Mode, OnFailure, Per};
use crate::workflow::event::{PlannedStep, Selection, SessionStarted};
use crate::workflow::id::{ProcessId, RunId, StepName, Subject, TargetName, WorkflowName};
use crate::workflow::run::{Machine, Run, RunState, Session, StepState, TargetState};
use crate::workflow::status::{MachineStatus, RunStatus, StepStatus};

const RUN: &str = "01K4Q8VTP00000000000000000";

fn at() -> Timestamp {
    "2026-09-03T13:58:00Z".parse().unwrap()
}

/// A run of two services, mu2e_production with three nodes.
fn state() -> RunState {
    let push = PlannedStep {
        name: StepName::new("push"),
        action: "Push".to_owned(),
        per: Per::Node,
        counts_as: CountsAs::Push,
        on_failure: OnFailure::Continue,
    };
    let target = |n| TargetState {
        name: TargetName::new(format!("mu2e0{n}.fnal.gov")),
        status: StepStatus::Failed,
        attempts: vec![],
    };
    let step = StepState {
        name: push.name.clone(),
        status: StepStatus::Failed,
        targets: (1..=3).map(target).collect(),
        why: None,
    };
    let machine = |name: &str, steps| Machine {
        subject: Subject::new(name),
        status: MachineStatus::Failed,
        started_at: None,
        ended_at: None,
        steps,
        other_run: None,
    };
    let machines = [machine("mu2e_production", vec![step]), machine("nova_production", vec![])];
    let by = SessionStarted {
        process: ProcessId(RUN.parse().unwrap()),
        host: "mt01".to_owned(),
        boot_id: String::new(),
        pid: 1,
        trigger: "cron".to_owned(),
        trace: None,
    };
    RunState {
        run: Run {
            id: RUN.parse().unwrap(),
            workflow: WorkflowName::new("token-push"),
            definition: String::new(),
            for_each: ForEach::Service,
            mode: Mode::Normal,
            selection: Selection::default(),
            status: RunStatus::Running,
            started_at: at(),
            ended_at: None,
            sessions: vec![Session { number: 1, by, started_at: at(), ended_at: None, end: None }],
            tally: BTreeMap::new(),
            plan: vec![push],
            steps: vec![],
            superseded_by: None,
            events: 0,
        },
        machines: machines.into_iter().map(|machine| (machine.subject.clone(), machine)).collect(),
    }
}

fn push(node: &str) -> DueCounter {
    DueCounter {
        subject: Subject::new("mu2e_production"),
        target: Some(TargetName::new(node)),
        value: 3,
        kind: Kind::Push,
        message: format!("ssh: connect to host {node} port 22: Connection refused"),
        next: Some("look at the node; then  mt runs resume".to_owned()),
        failing_runs: 6,
        failing_since: Some(at()),
    }
}

fn setup() -> DueCounter {
    DueCounter {
        subject: Subject::new("nova_production"),
        target: None,
        value: 3,
        kind: Kind::Setup,
        message: "get-vault-token: the vault holds no usable refresh token for this service".to_owned(),
        next: Some("mt run token-push --onboard -s nova_production".to_owned()),
        failing_runs: 3,
        failing_since: Some(at()),
    }
}

fn entries(due: &[DueCounter]) -> Vec<OutboxEntry> {
    prepare(&state(), 2, due, "managed-tokens@lab.test", &["admin@lab.test".to_owned(), "second@lab.test".to_owned()])
}

#[test]
fn the_subject_is_the_answer() {
    let subject = |due: &[DueCounter]| entries(due).remove(0).subject;
    let one = "[managed tokens] mu2e_production: token not refreshed on 1 of 3 nodes for 3 runs";
    assert_eq!(subject(&[push("mu2e03.fnal.gov")]), one);
    let setup_only = "[managed tokens] nova_production: get-vault-token: the vault holds no usable refresh token for this service (3 runs in a row)";
    assert_eq!(subject(&[setup()]), setup_only);
    let both = "[managed tokens] errors of 2 services: mu2e_production, nova_production";
    assert_eq!(subject(&[setup(), push("mu2e03.fnal.gov")]), both);
}

#[test]
fn the_text_is_grouped_by_service_with_setup_before_the_table_of_nodes() {
    let mut own = setup();
    own.subject = Subject::new("mu2e_production");
    let body = entries(&[push("mu2e03.fnal.gov"), setup(), push("mu2e1.fnal.gov"), own]).remove(0).body;
    let expected = "\
token-push on mt01, run of 2026-09-03 13:58 UTC

mu2e_production
  get-vault-token: the vault holds no usable refresh token for this service
    failing for 3 runs, since 2026-09-03 13:58 UTC
    next: mt run token-push --onboard -s nova_production
  Node             Runs  Error
  mu2e03.fnal.gov     6  ssh: connect to host mu2e03.fnal.gov port 22: Connection refused
  mu2e1.fnal.gov      6  ssh: connect to host mu2e1.fnal.gov port 22: Connection refused
    next: look at the node; then mt runs resume

nova_production
  get-vault-token: the vault holds no usable refresh token for this service
    failing for 3 runs, since 2026-09-03 13:58 UTC
    next: mt run token-push --onboard -s nova_production

mt runs show 01k4q8vtp00000000000000000
";
    assert_eq!(body, expected);
}

#[test]
fn nothing_due_or_nobody_to_tell_makes_no_mail() {
    assert_eq!(entries(&[]), []);
    assert_eq!(prepare(&state(), 1, &[setup()], "a@b", &[]), []);
}

#[test]
fn the_message_id_is_that_of_run_session_and_group() {
    let entry = entries(&[setup()]).remove(0);
    assert_eq!(entry.message_id, "<01k4q8vtp00000000000000000.2.admins@lab.test>");
    assert_eq!(entry.reports.len(), 1);
    assert_eq!((entry.reports[0].value, entry.reports[0].counter.target.as_ref()), (3, None));
}

/// How a server behaves.
#[derive(Clone, Copy)]
enum Temper {
    Good,
    RefusesSender,
    RefusesOneRecipient,
    SaysLater,
    HangsUpAfterTheText,
}

/// A mail server: where it listens, and what it was told.
async fn server(temper: Temper) -> (Email, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let email = Email::plain("managed-tokens@lab.test", "127.0.0.1", listener.local_addr().unwrap().port());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            write.write_all(b"220 ready\r\n").await.unwrap();
            let mut in_text = false;
            while let Ok(Some(line)) = lines.next_line().await {
                log.lock().unwrap().push(line.clone());
                let upper = line.to_ascii_uppercase();
                let answer = match temper {
                    _ if in_text && line != "." => continue,
                    Temper::HangsUpAfterTheText if in_text => break,
                    _ if in_text => "250 taken",
                    Temper::RefusesSender if upper.starts_with("MAIL") => "550 5.7.1 not from you",
                    Temper::SaysLater if upper.starts_with("MAIL") => "451 4.3.0 later",
                    Temper::RefusesOneRecipient if upper.contains("SECOND@") => "550 5.1.1 no such user",
                    _ if upper.starts_with("DATA") => "354 go on",
                    _ if upper.starts_with("QUIT") => "221 bye",
                    _ => "250 fine",
                };
                in_text = answer.starts_with("354");
                write.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
            }
        }
    });
    (email, heard)
}

/// An outbox in memory; it says every change aloud.
#[derive(Default)]
struct Kept(Mutex<Vec<OutboxEntry>>);

impl Kept {
    fn set(&self, entry: &OutboxEntry, status: OutboxStatus) -> BoxFuture<'_, Result<(), OutboxError>> {
        let mut entries = self.0.lock().unwrap();
        entries.iter_mut().find(|kept| kept.key() == entry.key()).unwrap().status = status;
        Box::pin(async { Ok(()) })
    }

    fn status(&self) -> OutboxStatus {
        self.0.lock().unwrap()[0].status
    }
}

impl Outbox for Kept {
    fn pending(&self, _run: RunId) -> BoxFuture<'_, Result<Vec<OutboxEntry>, OutboxError>> {
        Box::pin(async { Ok(self.0.lock().unwrap().clone()) })
    }

    fn mark_sending<'a>(&'a self, entry: &'a OutboxEntry) -> BoxFuture<'a, Result<(), OutboxError>> {
        self.set(entry, OutboxStatus::Sending)
    }

    fn mark_unsent<'a>(&'a self, entry: &'a OutboxEntry) -> BoxFuture<'a, Result<(), OutboxError>> {
        self.set(entry, OutboxStatus::Prepared)
    }

    fn mark_sent<'a>(&'a self, entry: &'a OutboxEntry, _at: Timestamp) -> BoxFuture<'a, Result<(), OutboxError>> {
        self.set(entry, OutboxStatus::Sent)
    }
}

async fn notify(email: Option<Email>, kept: &Arc<Kept>) -> AttemptResult {
    let world = Arc::new(World::new(Setup {
        process: ProcessId::generate(),
        private: PathBuf::from("/nowhere"),
        state: PathBuf::from("/nowhere"),
        environment: Snapshot::default(),
        own_uid: 1,
        services: vec![],
        expiries: BTreeMap::new(),
        email,
        outbox: Some(Arc::clone(kept) as Arc<dyn Outbox>),
        accounts: None,
    }));
    let attempt = Attempt {
        run: RUN.parse().unwrap(),
        session: 2,
        subject: None,
        step: StepName::new("notify"),
        target: TargetName::only(),
        mode: Mode::Normal,
        number: 1,
        timeout: Duration::from_secs(15),
        cancel: CancellationToken::new(),
    };
    Notify::new(world).attempt(&attempt).await
}

fn waiting() -> Arc<Kept> {
    Arc::new(Kept(Mutex::new(entries(&[setup()]))))
}

#[tokio::test]
async fn what_the_server_has_taken_is_marked_as_sent_and_not_sent_again() {
    let (email, heard) = server(Temper::Good).await;
    let kept = waiting();
    notify(Some(email.clone()), &kept).await.unwrap();
    assert_eq!(kept.status(), OutboxStatus::Sent);
    let text = heard.lock().unwrap().join("\n");
    assert!(text.contains("Message-ID: <01k4q8vtp00000000000000000.2.admins@lab.test>"), "{text}");
    assert!(text.contains("RCPT TO:<admin@lab.test>") && text.contains("RCPT TO:<second@lab.test>"), "{text}");
    assert!(text.contains("Auto-Submitted: auto-generated") && !text.contains("repeat"), "{text}");
    let before = heard.lock().unwrap().len();
    notify(Some(email), &kept).await.unwrap();
    assert_eq!(heard.lock().unwrap().len(), before);
}

#[tokio::test]
async fn what_was_perhaps_sent_goes_out_again_and_says_so() {
    let (email, _) = server(Temper::HangsUpAfterTheText).await;
    let kept = waiting();
    let failure = notify(Some(email), &kept).await.unwrap_err();
    assert_eq!((failure.class, failure.code), (Class::Transient, MAIL_UNCERTAIN), "{failure:?}");
    assert_eq!(kept.status(), OutboxStatus::Sending);
    let (email, heard) = server(Temper::Good).await;
    notify(Some(email), &kept).await.unwrap();
    let text = heard.lock().unwrap().join("\n");
    assert!(text.contains("(possibly a repeat)"), "{text}");
    assert!(text.contains("Message-ID: <01k4q8vtp00000000000000000.2.admins@lab.test>"), "{text}");
}

#[tokio::test]
async fn what_was_certainly_not_sent_waits_as_it_was() {
    for (temper, expected) in
        [(Temper::RefusesSender, (Class::Permanent, MAIL_REFUSED)), (Temper::SaysLater, (Class::Transient, MAIL_LATER))]
    {
        let (email, _) = server(temper).await;
        let kept = waiting();
        let failure = notify(Some(email), &kept).await.unwrap_err();
        assert_eq!((failure.class, failure.code), expected, "{failure:?}");
        assert_eq!(kept.status(), OutboxStatus::Prepared);
    }
}

#[tokio::test]
async fn one_bad_address_does_not_silence_the_others() {
    let (email, heard) = server(Temper::RefusesOneRecipient).await;
    let kept = waiting();
    let success = notify(Some(email), &kept).await.unwrap();
    assert!(success.note.unwrap().contains("second@lab.test"));
    assert_eq!(kept.status(), OutboxStatus::Sent);
    assert!(heard.lock().unwrap().iter().any(|line| line == "."), "the text went to the other");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let smtp_port = listener.local_addr().unwrap().port();
    drop(listener);
    let email = Email::plain("a@lab.test", "127.0.0.1", smtp_port);
    let failure = notify(Some(email), &waiting()).await.unwrap_err();
    assert_eq!((failure.class, failure.code), (Class::Transient, MAIL_UNREACHABLE), "{failure:?}");
    assert!(failure.message.contains("Connection refused"), "{failure:?}");
}

#[tokio::test]
async fn a_mail_without_a_server_to_send_it_is_not_forgotten() {
    let kept = waiting();
    let failure = notify(None, &kept).await.unwrap_err();
    assert_eq!((failure.class, failure.code), (Class::Permanent, MAIL_NOT_CONFIGURED));
    assert_eq!(kept.status(), OutboxStatus::Prepared);
}
