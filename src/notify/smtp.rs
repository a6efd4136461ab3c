//! A conversation with the mail server: connect, make it safe, log in, hand over mails one after another.
//!
//! It is led command by command, so that every failure before the text proves that the mail was not taken, and so that
//! one recipient whom the server does not know costs nobody else the mail.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use lettre::address::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};

use super::codes::{MAIL_LOGIN, MAIL_TLS, PASSWORD_FILE};
use crate::config::{Email, MailLogin, MailTls};
use crate::redact::Secret;
use crate::steps::codes::{MAIL_ADDRESS, MAIL_LATER, MAIL_REFUSED, MAIL_UNCERTAIN, MAIL_UNREACHABLE};
use crate::workflow::action::{Class, Failure};
use crate::workflow::code::Code;
use crate::workflow::input_file;

/// A mail server that is there answers at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Once it has the text it may want to look at it.
const TAKE_WITHIN: Duration = Duration::from_secs(8);
/// What to do when it is not.
const LOOK: &str = "look at the mail server";
/// A password is one line.
const MOST_PASSWORD: u64 = 4096;

/// An open conversation.
pub struct Smtp {
    connection: AsyncSmtpConnection,
    place: String,
    /// The server knows it, and may say it back.
    password: Option<Secret>,
}

/// A mail as it goes over the line.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The sender.
    pub from: Address,
    /// The recipients.
    pub to: Vec<Address>,
    /// Header and body.
    pub text: Vec<u8>,
}

impl Smtp {
    /// Connects, makes the connection safe and logs in, as configured. `roots`: the system's authorities, PEM.
    pub async fn connect(server: &Email, roots: &[u8]) -> Result<Self, Failure> {
        let place = format!("{}:{}", server.smtp_host, server.smtp_port);
        let own_name = ClientId::default();
        let tls = match server.tls {
            MailTls::None => None,
            MailTls::Starttls | MailTls::Implicit => Some(parameters(server, roots)?),
        };
        let (at_once, later) = match server.tls {
            MailTls::Implicit => (tls, None),
            MailTls::None | MailTls::Starttls => (None, tls),
        };
        let implicit = at_once.is_some();
        let address = (server.smtp_host.as_str(), server.smtp_port);
        let connect = AsyncSmtpConnection::connect_tokio1(address, Some(ANSWER_WITHIN), &own_name, at_once, None);
        let mut connection = within(&place, connect, |error| match implicit && error.is_tls() {
            true => unsafe_connection(error, &place),
            false => of_greeting(error, &place),
        })
        .await?;
        if let Some(tls) = later {
            if !connection.can_starttls() {
                let message = format!("the mail server {place} does not offer STARTTLS");
                return Err(
                    Failure::new(Class::Permanent, MAIL_TLS, message).with_next("correct email.tls or smtpPort")
                );
            }
            let upgrade = connection.starttls(tls, &own_name);
            within(&place, upgrade, |error| unsafe_connection(error, &place)).await?;
        }
        let mut told = None;
        if let Some(login) = &server.login {
            let password = password(login)?;
            let credentials = Credentials::new(login.username.clone(), password.expose().to_owned());
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            let answer = connection.auth(&mechanisms, &credentials);
            within(&place, answer, |error| of_login(error, &place, login, &password)).await?;
            told = Some(password);
        }
        Ok(Self { connection, place, password: told })
    }

    /// Hands over a mail. `Ok` as soon as the server has taken it for at least one recipient; the list then says why it
    /// was not taken for the others. After a failure with [`MAIL_UNCERTAIN`] it may have been taken, after any other not.
    pub async fn send(&mut self, letter: &Letter) -> Result<Vec<String>, Failure> {
        let mut parameters = Vec::new();
        if letter.to.iter().chain([&letter.from]).any(|address| !address.to_string().is_ascii()) {
            if !self.connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                let message = format!("the mail server {} takes no address with such letters", self.place);
                return Err(Failure::new(Class::Permanent, MAIL_ADDRESS, message));
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        self.say(Mail::new(Some(letter.from.clone()), parameters)).await?;
        let mut refused = Vec::new();
        let mut first = None;
        for recipient in &letter.to {
            match self.say(Rcpt::new(recipient.clone(), vec![])).await {
                Ok(()) => {}
                Err(failure) if failure.code == MAIL_REFUSED || failure.code == MAIL_LATER => {
                    refused.push(format!("{recipient} ({})", failure.message));
                    first = first.or(Some(failure));
                }
                Err(failure) => return Err(failure),
            }
        }
        if let Some(failure) = first.filter(|_| refused.len() == letter.to.len()) {
            return Err(failure);
        }
        self.say(Data).await?;
        let place = self.place.clone();
        let taken = tokio::time::timeout(TAKE_WITHIN, self.connection.message(&letter.text)).await;
        match taken {
            Ok(Ok(_)) => Ok(refused),
            Ok(Err(error)) => Err(classify(&error, &place, MAIL_UNCERTAIN, self.password.as_ref())),
            Err(_) => {
                let message = format!("the mail server {place} has the mail and does not confirm it");
                Err(Failure::new(Class::Timeout, MAIL_UNCERTAIN, message).with_next(LOOK))
            }
        }
    }

    /// Makes the conversation ready for the next mail after one that was refused. `false`: it is over.
    pub async fn reset(&mut self) -> bool {
        self.say(Rset).await.is_ok()
    }

    /// Says goodbye; whether the server likes it does not matter.
    pub async fn quit(mut self) {
        let _ = tokio::time::timeout(ANSWER_WITHIN, self.connection.quit()).await;
    }

    async fn say<C: std::fmt::Display>(&mut self, command: C) -> Result<(), Failure> {
        let place = self.place.clone();
        let answer = self.connection.command(command);
        let of_error = |error: &Error| classify(error, &place, MAIL_UNREACHABLE, self.password.as_ref());
        within(&place, answer, of_error).await.map(drop)
    }
}

async fn within<T>(
    place: &str,
    talk: impl Future<Output = Result<T, Error>>,
    of_error: impl FnOnce(&Error) -> Failure,
) -> Result<T, Failure> {
    match tokio::time::timeout(ANSWER_WITHIN, talk).await {
        Ok(answer) => answer.map_err(|error| of_error(&error)),
        Err(_) => {
            let message = format!("the mail server {place} says nothing");
            Err(Failure::new(Class::Timeout, MAIL_UNREACHABLE, message).with_next(LOOK))
        }
    }
}

fn parameters(server: &Email, roots: &[u8]) -> Result<TlsParameters, Failure> {
    let build = |store: CertificateStore, pem: &[u8]| {
        let builder = TlsParameters::builder(server.smtp_host.clone()).certificate_store(store);
        Certificate::from_pem(pem).and_then(|certificate| builder.add_root_certificate(certificate).build())
    };
    let Some(file) = &server.ca_file else {
        // An odd authority in the system's bundle: those that are compiled in still are there.
        return build(CertificateStore::Default, roots)
            .or_else(|_| TlsParameters::new(server.smtp_host.clone()))
            .map_err(|error| unsafe_connection(&error, &server.smtp_host));
    };
    let wrong = |why: String| {
        let message = format!("email.caFile {} cannot be used: {why}", file.display());
        Failure::new(Class::Permanent, MAIL_TLS, message)
    };
    let pem = input_file::read(file, input_file::MOST_CERTIFICATES).map_err(|error| wrong(error.to_string()))?;
    build(CertificateStore::None, &pem).map_err(|error| wrong(chain(&error)))
}

/// Reads the password. The file must be one that nobody else can read.
fn password(login: &MailLogin) -> Result<Secret, Failure> {
    use std::io::Read;
    let file = &login.password_file;
    let wrong = |why: String| {
        let message = format!("email.passwordFile {} cannot be used: {why}", file.display());
        Failure::new(Class::Permanent, PASSWORD_FILE, message).with_next(format!("chmod 600 {}", file.display()))
    };
    let opened = input_file::open(file).map_err(|error| wrong(error.to_string()))?;
    let about = opened.metadata().map_err(|error| wrong(error.to_string()))?;
    let own = nix::unistd::geteuid().as_raw();
    if !about.is_file() {
        return Err(wrong("it is not a file".to_owned()));
    }
    if about.uid() != own {
        return Err(wrong(format!("it belongs to user {}, and mt runs as {own}", about.uid())));
    }
    if about.mode() & 0o077 != 0 {
        return Err(wrong(format!("others can read it (mode {:o})", about.mode() & 0o777)));
    }
    if about.len() > MOST_PASSWORD {
        return Err(wrong(format!("it is larger than {MOST_PASSWORD} bytes")));
    }
    let mut text = String::new();
    opened.take(MOST_PASSWORD).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() || text.contains(['\r', '\n']) {
        return Err(wrong("it does not hold one line".to_owned()));
    }
    Ok(Secret::new(text.to_owned()))
}

/// Nothing was said of a sender or a recipient yet.
fn of_greeting(error: &Error, place: &str) -> Failure {
    let failure = classify(error, place, MAIL_UNREACHABLE, None);
    match error.is_permanent() {
        true => failure
            .with_next(format!("ask those who run {place} to take mail from this host, or correct email.smtpHost")),
        false => failure,
    }
}

fn unsafe_connection(error: &Error, place: &str) -> Failure {
    let message = format!("the connection to the mail server {place} cannot be made safe: {}", chain(error));
    Failure::new(Class::Permanent, MAIL_TLS, message).with_next("correct email.tls, smtpPort or caFile")
}

fn of_login(error: &Error, place: &str, login: &MailLogin, password: &Secret) -> Failure {
    if error.is_permanent() || error.is_client() {
        let said = password.out_of(&chain(error));
        let message = format!("the mail server {place} does not let {} in: {said}", login.username);
        return Failure::new(Class::Permanent, MAIL_LOGIN, message);
    }
    classify(error, place, MAIL_UNREACHABLE, Some(password))
}

/// Did what answers say something that no mail server says?
fn is_no_server(error: &Error) -> bool {
    let not_text = |source: &(dyn std::error::Error + 'static)| {
        source.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::InvalidData)
    };
    error.is_response() || std::error::Error::source(error).is_some_and(not_text)
}

/// `lost` is what it means when there was no answer; `password` what the server was told and may have said back.
fn classify(error: &Error, place: &str, lost: Code, password: Option<&Secret>) -> Failure {
    let (class, code, next) = if error.is_permanent() {
        (Class::Permanent, MAIL_REFUSED, "correct email.from or the addresses")
    } else if error.is_transient() {
        (Class::Transient, MAIL_LATER, LOOK)
    } else {
        (Class::Transient, lost, LOOK)
    };
    let who = match is_no_server(error) {
        true => format!("what answers at {place} is no mail server"),
        false => format!("the mail server {place}"),
    };
    let said = chain(error);
    // First: of what redacting leaves of a password nobody knows that it is one.
    let said = password.map_or_else(|| said.clone(), |password| password.out_of(&said));
    Failure::new(class, code, format!("{who}: {said}")).with_next(next)
}

/// An error with its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}
