//! What becomes of mails with servers of every temper. The servers speak real SMTP over real sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{Email, MailLogin, MailTls};
use crate::notify::codes::{MAIL_LOGIN, MAIL_TLS, PASSWORD_FILE};
use crate::notify::{Outbox, OutboxError, OutboxStatus};
use crate::redact::Secret;
use crate::steps::codes::*;
use crate::steps::environment::Snapshot;
use crate::steps::notify::Notify;
use crate::steps::{Setup, World};
use crate::workflow::action::{Action, Attempt, AttemptResult, Class};
use crate::workflow::id::RunId;

/// How a server behaves.
#[derive(Clone, Copy)]
enum Temper {
    Good,
    RefusesSender,
    RefusesOneRecipient,
    SaysNothingToMail,
    SaysLater,
    HangsUpAfterTheText,
    /// Its answer to the login holds what it was told.
    RepeatsTheLogin,
    /// It takes the login, and has everything it knows in its answer to the sender.
    RepeatsItLater,
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
                    Temper::SaysNothingToMail if upper.starts_with("MAIL") => continue,
                    Temper::RefusesSender if upper.starts_with("MAIL") => "550 5.7.1 not from you",
                    Temper::SaysLater if upper.starts_with("MAIL") => "451 4.3.0 later",
                    Temper::RefusesOneRecipient if upper.contains("SECOND@") => "550 5.1.1 no such user",
                    Temper::RepeatsTheLogin | Temper::RepeatsItLater if upper.starts_with("EHLO") => {
                        "250-me\r\n250 AUTH PLAIN"
                    }
                    Temper::RepeatsTheLogin if upper.starts_with("AUTH") => {
                        &format!("535 5.7.8 not password=labpass hunter2: {line}")
                    }
                    Temper::RepeatsItLater if upper.starts_with("MAIL") => {
                        "550 5.7.1 no, password=labpass hunter2, AGxhYnVzZXIAbGFicGFzcyBodW50ZXIy, hvs.CAESIJ0aB0123456789abcdefghijkl"
                    }
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

type Marked<'a, T> = BoxFuture<'a, Result<T, OutboxError>>;

impl Kept {
    fn set<T: Send + 'static>(&self, entry: &OutboxEntry, status: OutboxStatus, answer: T) -> Marked<'_, T> {
        let mut entries = self.0.lock().unwrap();
        entries.iter_mut().find(|kept| kept.key() == entry.key()).unwrap().status = status;
        Box::pin(async { Ok(answer) })
    }

    fn status(&self) -> OutboxStatus {
        self.0.lock().unwrap()[0].status
    }
}

impl Outbox for Kept {
    fn pending(&self, _run: RunId) -> BoxFuture<'_, Result<Vec<OutboxEntry>, OutboxError>> {
        Box::pin(async { Ok(self.0.lock().unwrap().clone()) })
    }

    fn mark_sending<'a>(&'a self, entry: &'a OutboxEntry) -> Marked<'a, bool> {
        self.set(entry, OutboxStatus::Sending, true)
    }

    fn mark_unsent<'a>(&'a self, entry: &'a OutboxEntry) -> Marked<'a, ()> {
        self.set(entry, OutboxStatus::Prepared, ())
    }

    fn mark_sent<'a>(&'a self, entry: &'a OutboxEntry, _at: Timestamp) -> Marked<'a, ()> {
        self.set(entry, OutboxStatus::Sent, ())
    }

    fn webhook(&self, _test: bool) -> Option<Secret> {
        None
    }
}

async fn notify(email: Option<Email>, kept: &Arc<Kept>) -> AttemptResult {
    let world = Arc::new(World::new(Setup {
        process: ProcessId::generate(),
        private: PathBuf::from("/nowhere"),
        state: PathBuf::from("/nowhere"),
        locks: PathBuf::from("/nowhere"),
        environment: Snapshot::default(),
        own_uid: 1,
        services: vec![],
        issuer_services: BTreeSet::new(),
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
    Arc::new(Kept(Mutex::new(vec![message(Group::Admins, &news(&[setup()]))])))
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
    let texts = heard.lock().unwrap().iter().filter(|line| *line == ".").count();
    assert_eq!(texts, 1, "the text went to the other, once");
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

#[tokio::test]
async fn a_server_that_hangs_before_the_text_certainly_has_nothing_and_the_others_wait() {
    let (email, heard) = server(Temper::SaysNothingToMail).await;
    let stakeholders = message(Group::Stakeholders(Subject::new("mu2e_production")), &news(&[push("n1")]));
    let kept = Arc::new(Kept(Mutex::new(vec![message(Group::Admins, &news(&[setup()])), stakeholders])));
    let failure = notify(Some(email), &kept).await.unwrap_err();
    assert_eq!((failure.class, failure.code), (Class::Timeout, MAIL_UNREACHABLE), "{failure:?}");
    assert!(kept.0.lock().unwrap().iter().all(|entry| entry.status == OutboxStatus::Prepared));
    let tried = heard.lock().unwrap().iter().filter(|line| line.starts_with("MAIL")).count();
    assert_eq!(tried, 1, "the second would have hung as well");
}

#[tokio::test]
async fn several_mails_go_over_one_connection() {
    let (email, heard) = server(Temper::Good).await;
    let stakeholders = message(Group::Stakeholders(Subject::new("mu2e_production")), &news(&[push("n1")]));
    let kept = Arc::new(Kept(Mutex::new(vec![message(Group::Admins, &news(&[setup()])), stakeholders])));
    let note = notify(Some(email), &kept).await.unwrap().note.unwrap();
    assert_eq!(note, "mail sent to admins; mail sent to stakeholders-mu2e_production");
    assert_eq!(heard.lock().unwrap().iter().filter(|line| line.starts_with("EHLO")).count(), 1);
}

fn password_file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    (directory, file)
}

#[tokio::test]
async fn a_password_file_that_others_can_read_is_not_used() {
    // Whoever redacts first finds one word of it.
    let (_directory, file) = password_file("labpass hunter2\n", 0o640);
    let (mut email, _) = server(Temper::Good).await;
    email.login = Some(MailLogin { username: "labuser".to_owned(), password_file: file });
    let failure = notify(Some(email), &waiting()).await.unwrap_err();
    assert_eq!(failure.code, PASSWORD_FILE);
    assert!(failure.message.contains("others can read it (mode 640)"), "{failure:?}");
}

#[tokio::test]
async fn a_password_file_that_is_too_large_is_not_used_in_part() {
    let (_directory, file) = password_file(&"x".repeat(5_000), 0o600);
    let (mut email, _) = server(Temper::Good).await;
    email.login = Some(MailLogin { username: "labuser".to_owned(), password_file: file });
    let failure = notify(Some(email), &waiting()).await.unwrap_err();
    assert_eq!(failure.code, PASSWORD_FILE);
    assert!(failure.message.contains("larger than 4096 bytes"), "{failure:?}");
}

#[tokio::test]
async fn a_server_without_starttls_gets_nothing_when_it_is_demanded() {
    let (mut email, heard) = server(Temper::Good).await;
    email.tls = MailTls::Starttls;
    let failure = notify(Some(email), &waiting()).await.unwrap_err();
    assert_eq!(failure.code, MAIL_TLS, "{failure:?}");
    assert!(!heard.lock().unwrap().iter().any(|line| line.starts_with("MAIL")));
}

#[tokio::test]
async fn a_password_that_the_server_repeats_is_in_no_message_and_no_token_either() {
    // Whoever redacts first finds one word of it.
    let (_directory, file) = password_file("labpass hunter2\n", 0o600);
    for (temper, code, words) in [
        (Temper::RepeatsTheLogin, MAIL_LOGIN, "does not let labuser in"),
        (Temper::RepeatsItLater, MAIL_REFUSED, "5.7.1 no"),
    ] {
        let (mut email, _) = server(temper).await;
        email.login = Some(MailLogin { username: "labuser".to_owned(), password_file: file.clone() });
        let failure = notify(Some(email), &waiting()).await.unwrap_err();
        assert_eq!(failure.code, code, "{failure:?}");
        let said = format!("{failure:?}");
        assert!(said.contains(words) && said.contains("[redacted]"), "{said}");
        for secret in ["labpass", "hunter2", "AGxhYnVzZXIAbGFicGFz", "CAESIJ0aB"] {
            assert!(!said.contains(secret), "{secret} is in {said}");
        }
    }
}
