//! htgettoken, alone or inside condor_vault_storer.
//!
//! The hard question is whether a person must authenticate. An outage of the vault must never say so, because then
//! everybody is sent to the browser for nothing. So it is said only if the last htgettoken was refused by a vault that
//! works, or had begun to ask for a person.

use super::{Facts, TooSlow, shorten};
use crate::process::Exit;
use crate::steps::codes::*;
use crate::steps::lookup;
use crate::workflow::action::{Class, Failure};
use crate::workflow::code::Code;

/// The vault, or the way to it, does not work. In lower case.
const CONNECTION: &[&str] = &[
    "newconnectionerror",
    "connecttimeouterror",
    "readtimeouterror",
    "maxretryerror",
    "protocolerror",
    "nameresolutionerror",
    "sslerror",
    "gaierror",
    "connection refused",
    "connection reset",
    "connection aborted",
    "timed out",
    "network is unreachable",
    "no route to host",
    "name or service not known",
    "temporary failure in name resolution",
    "no ip address found",
];
/// Connected, and no answer in time.
const SILENCE: &str = "read timed out";
/// htgettoken gives a handshake 2 s and an answer 10 s: this is what it says of a server that does not even speak TLS.
const NO_HANDSHAKE: &str = "(read timeout=2)";
/// The request that makes the vault ask the KDC's directory.
const LOGIN: &str = "kerberos negotiate with";
/// It works, and says that it does not.
const SERVER_ERROR: &[&str] = &[
    "httperror: service unavailable",
    "httperror: internal server error",
    "httperror: bad gateway",
    "httperror: gateway timeout",
    "httperror: too many requests",
    "vault is sealed",
];
/// Something answers that is no vault: without TLS, or without JSON, such as a proxy with a page to log in on.
const NO_TLS: &[&str] = &["wrong_version_number", "wrong version number", "unknown_protocol", "packet_length_too_long"];
const NO_JSON: &[&str] = &["jsondecodeerror"];
const NO_HTTP: &[&str] = &["badstatusline", "invalidchunklength"];
const CERTIFICATE: &[&str] = &["certificate_verify_failed", "certificate verify failed", "certificateerror"];
/// What the identity provider says of a refresh token that is no good, passed on by the vault as an error of its own.
const REFRESH_TOKEN: &[&str] = &["invalid_grant", "token expired", "refresh token"];
const NO_TICKET: &[&str] =
    &["no kerberos credentials", "no credentials cache", "credential cache is empty", "ticket expired"];
/// Options are wrong. htgettoken ends with 2 for those it cannot parse, with 1 for those it cannot use.
const OPTIONS: &[&str] = &[
    "usage: htgettoken",
    "must be less than --vaulttokenttl",
    "is not a number followed by",
    "--vaulttokenfile must be under",
];
/// Lines that tell how one request to the vault (or the KDC) failed. The last one decides.
const REQUESTS: &[&str] = &[
    "read token from",
    "kerberos negotiate with",
    "kerberos init failed",
    "initiating authentication to",
    "getting vault token from",
    "fetch of options from",
];

/// Why htgettoken failed. `output` may hold several htgettokens (the storer's): the last one decides.
pub fn classify(exit: Exit, output: &str, facts: Facts<'_>) -> Failure {
    let fact = |wanted: &str| facts.iter().find(|(name, _)| *name == wanted).map_or("?", |(_, value)| *value);
    let (program, service, vault) = (fact("program"), fact("service"), fact("vault"));
    let made = |class, code, cause: String| Failure::new(class, code, cause).with_output(output);
    if let Exit::Signal(signal) = exit {
        return made(Class::Transient, HTGETTOKEN_FAILED, format!("{program} was killed by signal {signal}"));
    }
    let lower = output.to_ascii_lowercase();
    match Verdict::of(exit, &lower) {
        Verdict::Options => {
            let line = OPTIONS.iter().find(|text| lower.contains(**text)).map(|text| super::line_with(output, text));
            let line = line.filter(|line| !line.is_empty()).unwrap_or_else(|| super::last_line(output));
            made(Class::Permanent, HTGETTOKEN_OPTIONS, format!("htgettoken does not take its options: {line}"))
        }
        Verdict::Unreachable => {
            let line = last_line_with(output, CONNECTION).to_ascii_lowercase();
            let silent = line.contains(SILENCE);
            let (cause, next) = if silent && line.contains(LOGIN) && !line.contains(NO_HANDSHAKE) {
                let cause = format!("the vault server {vault} does not finish the login (Read timed out)");
                let then = format!("if it answers, ask those who run {vault} to look at the LDAP server it asks");
                (cause, format!("{}; {then}", health_by_hand(vault)))
            } else if silent {
                let cause =
                    format!("the vault server {vault} accepts connections and does not answer (Read timed out)");
                (cause, look_at(vault))
            } else {
                let why = reason(output, CONNECTION);
                (format!("the vault server {vault} cannot be reached: {why}"), look_at(vault))
            };
            made(Class::Transient, VAULT_UNREACHABLE, cause).with_next(next)
        }
        Verdict::Certificate => {
            // For us it is an outage like another: what is kept is pushed meanwhile.
            let cause = format!("the certificate of the vault server {vault} is not trusted");
            made(Class::Transient, VAULT_CERTIFICATE, cause).with_next("look at X509_CERT_DIR and SSL_CERT_FILE")
        }
        Verdict::ServerError => {
            let cause = format!("the vault server {vault} answers with an error: {}", reason(output, SERVER_ERROR));
            let next = format!("{}  shows its state; ask those who run {vault}", health_by_hand(vault));
            made(Class::Transient, VAULT_ERROR, cause).with_next(next)
        }
        Verdict::Directory => {
            let cause = format!(
                "the directory that the vault server {vault} asks does not work: {}",
                reason(output, &["ldap"])
            );
            made(Class::Transient, VAULT_ERROR, cause)
                .with_next(format!("ask those who run {vault} to look at its LDAP server"))
        }
        Verdict::Stranger => {
            let what = if any(&lower, NO_TLS) {
                "does not speak TLS".to_owned()
            } else if any(&lower, NO_JSON) {
                "is no vault: what it says is not JSON".to_owned()
            } else {
                format!("is no vault: {}", reason(output, NO_HTTP))
            };
            let cause = format!("what answers at the vault server {vault} {what}");
            let next = format!("{}  shows who answers there", health_by_hand(vault));
            made(Class::Transient, VAULT_ERROR, cause).with_next(next)
        }
        Verdict::Kdc => made(Class::Transient, KDC_UNREACHABLE, "no KDC answers for a ticket to the vault".to_owned())
            .with_next(format!("with a ticket:  KRB5_TRACE=/dev/stderr kvno host/{}", host(vault))),
        Verdict::NoTicket => {
            made(Class::Permanent, VAULT_KERBEROS, "there is no Kerberos ticket for the vault login".to_owned())
        }
        Verdict::Kerberos => {
            let mut said =
                REQUESTS.iter().filter(|text| text.starts_with("kerberos")).map(|text| super::line_with(output, text));
            let line = said.rfind(|line| !line.is_empty()).unwrap_or_default();
            let why = line.split_once(" failed: ").map_or(line.as_str(), |(_, why)| why);
            let colon = if why.is_empty() { "" } else { ": " };
            let cause = format!("the login at the vault server {vault} with Kerberos failed{colon}{why}");
            made(Class::Transient, VAULT_KERBEROS, cause).with_next(kerberos_by_hand(vault, why))
        }
        Verdict::Refused => {
            let cause = format!("the vault server {vault} refuses this service (403, permission denied)");
            needs_human(made(Class::NeedsHuman, AUTHENTICATION_NEEDED, cause), service)
        }
        Verdict::NeedsHuman => {
            let cause = "the vault holds no usable refresh token for this service".to_owned();
            needs_human(made(Class::NeedsHuman, AUTHENTICATION_NEEDED, cause), service)
        }
        Verdict::Unfinished => {
            let cause = "nobody finished the authentication in the browser".to_owned();
            needs_human(made(Class::NeedsHuman, AUTHENTICATION_UNFINISHED, cause), service)
        }
        Verdict::Unknown => {
            made(Class::Transient, HTGETTOKEN_FAILED, format!("{program} failed: {}", super::last_line(output)))
        }
    }
}

/// Did a vault that works answer a login with Kerberos with `Unauthorized`?
pub fn login_was_turned_down(output: &str) -> bool {
    let lower = output.to_ascii_lowercase();
    lower.lines().any(|line| line.contains("kerberos negotiate with") && line.contains("httperror: unauthorized"))
}

/// How a person sees more of it: who answered in the vault's place, or whether the KDC gives tickets for it.
fn kerberos_by_hand(vault: &str, why: &str) -> String {
    match why.starts_with("HTTPError") {
        true => format!("{}  shows who answers there", health_by_hand(vault)),
        false => format!("with a ticket:  kvno host/{}", host(vault)),
    }
}

/// How a person asks the vault how it is, or sees who answers in its place.
fn health_by_hand(vault: &str) -> String {
    match lookup::url(vault, "/v1/sys/health") {
        Ok(health) => format!("curl -ki {health}"),
        Err(_) => format!("correct vaultServer ({vault});  curl -ki https://VAULT:8200/v1/sys/health"),
    }
}

fn host(vault: &str) -> String {
    let url = lookup::url(vault, "/").ok();
    url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_else(|| vault.to_owned())
}

/// What to do about a vault that does not answer.
fn look_at(vault: &str) -> String {
    format!("{}  must answer; else look at the vault server and at the network", health_by_hand(vault))
}

/// What it means that htgettoken does not end.
pub fn too_slow(vault: &str) -> TooSlow {
    TooSlow::new(VAULT_UNREACHABLE, format!("the vault server {vault} does not answer"), look_at(vault))
}

/// The authentication in the browser, which nothing of is captured, did not succeed.
pub fn onboarding(exit: Exit, service: &str) -> Failure {
    let cause = match exit {
        Exit::Code(code) => format!("the authentication did not succeed (htgettoken ended with {code})"),
        Exit::Signal(signal) => format!("the authentication was broken off (signal {signal})"),
    };
    let code: Code = if exit == Exit::Code(2) { HTGETTOKEN_OPTIONS } else { AUTHENTICATION_UNFINISHED };
    needs_human(Failure::new(Class::NeedsHuman, code, cause), service)
}

fn needs_human(failure: Failure, service: &str) -> Failure {
    failure.with_next(onboard(service))
}

/// What a person types who is to authenticate. With `--push`: the nodes do not wait for the next run.
pub fn onboard(service: &str) -> String {
    format!("mt run token-push --onboard --push -s {service}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Options,
    Unreachable,
    Certificate,
    ServerError,
    Directory,
    Stranger,
    Kdc,
    NoTicket,
    Kerberos,
    Refused,
    NeedsHuman,
    Unfinished,
    Unknown,
}

impl Verdict {
    fn of(exit: Exit, lower: &str) -> Self {
        // The storer starts htgettoken twice; the line between them says nothing of why.
        let (first, last) = match lower.rfind("\nauthentication needed for").or(lower.find("authentication needed for"))
        {
            Some(at) => lower.split_at(at),
            None => ("", lower),
        };
        if exit == Exit::Code(2) || any(last, OPTIONS) {
            return Self::Options;
        }
        if any(last, &["polling for response took longer", "error in response from", "htgettoken: authentication to"]) {
            return Self::Unfinished;
        }
        if last.contains("complete the authentication at") {
            return Self::NeedsHuman;
        }
        // The last request that is known to have failed, with what was said after it.
        if let Some(at) = REQUESTS.iter().filter_map(|text| last.rfind(text)).max() {
            // Python keeps stdout back until the end, so the final word, on stderr, may have arrived first.
            match Self::of_request(&last[at..], last.contains("failure getting token from")) {
                Self::Unknown => {}
                // A failure without a clear refusal: not if the vault, or the way to it, failed anywhere in between.
                Self::NeedsHuman => return Self::without_detail(lower),
                verdict => return verdict,
            }
        }
        if last.contains("attempting oidc authentication with") {
            return Self::NeedsHuman;
        }
        if !last.contains("failure getting token from") {
            return Self::outage(lower).unwrap_or(Self::Unknown);
        }
        // Without -v htgettoken only says that the Kerberos login failed. Its first run may have said why.
        let kerberos = last.rfind("attempting kerberos auth").map(|at| &last[at..]);
        if kerberos.is_some_and(|text| text.contains("... failed") && !text.contains("attempting to get token from")) {
            return Self::outage(lower)
                .or_else(|| first.rfind("kerberos init failed").map(|at| Self::of_request(&first[at..], true)))
                .unwrap_or(Self::Kerberos);
        }
        Self::without_detail(lower)
    }

    /// `Failure getting token from`, and no reason with it: a person only if nothing in all the output says outage.
    fn without_detail(lower: &str) -> Self {
        Self::outage(lower).unwrap_or(Self::NeedsHuman)
    }

    fn outage(lower: &str) -> Option<Self> {
        if any(lower, CERTIFICATE) {
            Some(Self::Certificate)
        } else if lower.contains("cannot contact any kdc") {
            Some(Self::Kdc)
        } else if any(lower, NO_TLS) || any(lower, NO_JSON) || any(lower, NO_HTTP) {
            Some(Self::Stranger)
        } else if lower.contains("httperror: internal server error") && lower.contains("ldap") {
            Some(Self::Directory)
        } else if any(lower, CONNECTION) {
            Some(Self::Unreachable)
        } else if any(lower, SERVER_ERROR) && !any(lower, REFRESH_TOKEN) {
            Some(Self::ServerError)
        } else {
            None
        }
    }

    fn of_request(text: &str, no_token: bool) -> Self {
        if let Some(outage) = Self::outage(text) {
            return outage;
        }
        if text.starts_with("kerberos init failed") {
            return if any(text, NO_TICKET) { Self::NoTicket } else { Self::Kerberos };
        }
        if text.contains("permission denied") && any(text, &["forbidden", "403"]) {
            return Self::Refused;
        }
        if text.starts_with("kerberos negotiate with") {
            return Self::Kerberos;
        }
        if text.starts_with("read token from") && no_token {
            return Self::NeedsHuman;
        }
        Self::Unknown
    }
}

fn any(text: &str, patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| text.contains(pattern))
}

fn last_line_with<'a>(output: &'a str, patterns: &[&str]) -> &'a str {
    output.lines().rev().find(|line| any(&line.to_ascii_lowercase(), patterns)).unwrap_or_default()
}

/// The end of the last line that holds one of the patterns: Python puts the reason last.
fn reason(output: &str, patterns: &[&str]) -> String {
    let line = last_line_with(output, patterns);
    let inner = line.rsplit_once("Caused by ").map_or(line, |(_, inner)| inner);
    let tail =
        inner.rsplit_once("object at ").and_then(|(_, tail)| tail.split_once(": ")).map_or(inner, |(_, tail)| tail);
    let tail = tail.rsplit_once(" failed: ").map_or(tail, |(_, tail)| tail);
    let tail = tail.rsplit_once("HTTPError: Internal Server Error: ").map_or(tail, |(_, tail)| tail);
    let plain = tail.trim().trim_start_matches("* ").trim_end_matches([')', '\'', '"']);
    // `Failed to establish a new connection: [Errno 111] Connection refused`: the last words are the system's own.
    let plain =
        plain.rsplit_once("[Errno ").and_then(|(_, tail)| tail.split_once("] ")).map_or(plain, |(_, tail)| tail);
    // `HTTPSConnectionPool(host='…', port=8200): Read timed out. (read timeout=2`
    let plain = plain.rsplit_once("): ").map_or(plain, |(_, tail)| tail);
    let plain = plain.split_once(" (read timeout").map_or(plain, |(head, _)| head);
    shorten(plain.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    const FACTS: Facts<'static> =
        &[("program", "htgettoken"), ("service", "dune_production"), ("vault", "vault.lab.test")];

    #[track_caller]
    fn check(name: &str, class: Class, code: Code) -> Failure {
        let (exit, output) = fixture::read(name);
        let failure = classify(exit, &output, FACTS);
        assert_eq!((failure.class, failure.code), (class, code), "{name}: {failure:?}");
        assert!(!failure.message.contains('\n'), "{failure:?}");
        failure
    }

    #[test]
    fn an_outage_never_asks_for_a_person() {
        let killed = check("htgettoken-v-vault-killed", Class::Transient, VAULT_UNREACHABLE);
        assert!(killed.message.ends_with("cannot be reached: Connection refused"), "{}", killed.message);
        let paused = check("htgettoken-v-vault-paused", Class::Transient, VAULT_UNREACHABLE);
        assert!(
            paused.message.ends_with("accepts connections and does not answer (Read timed out)"),
            "{}",
            paused.message
        );
        for program in ["htgettoken", "htgettoken-v", "condor_vault_storer", "condor_vault_storer-v"] {
            check(&format!("{program}-vault-paused"), Class::Transient, VAULT_UNREACHABLE);
            check(&format!("{program}-vault-killed"), Class::Transient, VAULT_UNREACHABLE);
            check(&format!("{program}-sealed"), Class::Transient, VAULT_ERROR);
        }
        check("htgettoken-v-kdc-paused", Class::Transient, KDC_UNREACHABLE);
        check("htgettoken-v-unknown-vault", Class::Transient, VAULT_KERBEROS);
        check("htgettoken-no-ticket", Class::Transient, VAULT_KERBEROS);
        check("htgettoken-v-no-ticket", Class::Permanent, VAULT_KERBEROS);
        check("condor_vault_storer-no-ticket", Class::Transient, VAULT_KERBEROS);
    }

    #[test]
    fn a_vault_that_works_and_refuses_needs_a_person() {
        for program in ["htgettoken", "htgettoken-v", "condor_vault_storer", "condor_vault_storer-v"] {
            for fault in ["403", "no-refresh-token", "nologin"] {
                let failure = check(&format!("{program}-{fault}"), Class::NeedsHuman, AUTHENTICATION_NEEDED);
                assert_eq!(failure.next.as_deref(), Some("mt run token-push --onboard --push -s dune_production"));
            }
        }
        check("htgettoken-v-403-kept-token", Class::NeedsHuman, AUTHENTICATION_NEEDED);
        check("htgettoken-v-no-such-role", Class::NeedsHuman, AUTHENTICATION_NEEDED);
        check("htgettoken-terminal-no-refresh-token", Class::NeedsHuman, AUTHENTICATION_NEEDED);
    }

    const REFUSED: &str = "Read token from https://v:8200/v1/secret failed: HTTPError: Forbidden: 1 error occurred:\n\t* permission denied\n\n\n";
    const FAILURE: &str = "htgettoken: Failure getting token from https://v:8200\n";
    const DOWN: &str = "htgettoken: Kerberos negotiate with https://v:8200/v1/login failed: MaxRetryError: HTTPSConnectionPool(host='1', port=8200): Max retries exceeded with url: /v1 (Caused by NewConnectionError('<urllib3.connection.HTTPSConnection object at 0x7f>: Failed to establish a new connection: [Errno 111] Connection refused'))\n";

    #[track_caller]
    fn verdict(text: &str) -> Class {
        classify(Exit::Code(1), text, FACTS).class
    }

    #[test]
    fn only_the_last_htgettoken_decides() {
        assert_eq!(
            verdict(&format!("{REFUSED}{DOWN}")),
            Class::Transient,
            "refused with the kept token, then the vault went"
        );
        assert_eq!(verdict(&format!("{DOWN}\nAuthentication needed for x\n{REFUSED}{FAILURE}")), Class::NeedsHuman);
        assert_eq!(verdict(&format!("{REFUSED}{FAILURE}\nAuthentication needed for x\n{DOWN}")), Class::Transient);
        assert_eq!(
            verdict(&format!("{DOWN}\nAuthentication needed for x\n{FAILURE}")),
            Class::Transient,
            "a failure without a reason after a connection error proves nothing"
        );
        let timeout =
            "Read token from https://v:8200/v1/s failed: ReadTimeoutError: Read timed out. (read timeout=10)\n";
        let missing = "Read token from https://v:8200/v1/s failed: HTTPError: Not Found:\n";
        assert_eq!(verdict(&format!("{missing}{FAILURE}")), Class::NeedsHuman);
        assert_eq!(verdict(&format!("{timeout}{missing}{FAILURE}")), Class::Transient, "a vault that comes and goes");
    }

    #[test]
    fn the_storers_line_alone_proves_nothing() {
        assert_eq!(
            verdict("\nAuthentication needed for dune_production\n\ncondor_vault_storer: htgettoken failed\n"),
            Class::Transient
        );
    }

    #[test]
    fn what_the_vault_cannot_reach_is_not_the_vault() {
        let negotiate =
            "htgettoken: Kerberos negotiate with https://v:8200/v1/auth/kerberos-dune_production/login failed: ";
        let said = |text: &str| {
            let failure = classify(Exit::Code(1), &format!("{negotiate}{text}\n"), FACTS);
            assert_eq!((failure.class, failure.code), (Class::Transient, VAULT_ERROR), "{failure:?}");
            failure.message
        };
        let down = "HTTPError: Internal Server Error: could not connect to LDAP: 1 error occurred:\n\t* error connecting to host \"ldap://d:389\": LDAP Result Code 200 \"Network Error\": dial tcp 10.0.0.1:389: connect: connection refused";
        assert!(said(down).starts_with("the directory that the vault server vault.lab.test asks does not work: error connecting to host \"ldap://d:389\": "), "{}", said(down));
        let refused =
            "HTTPError: Internal Server Error: LDAP bind failed: LDAP Result Code 53 \"Unwilling To Perform\": later";
        assert!(
            said(refused).ends_with("does not work: LDAP Result Code 53 \"Unwilling To Perform\": later"),
            "{}",
            said(refused)
        );
        let tls = "MaxRetryError: HTTPSConnectionPool(host='10.0.0.2', port=8200): Max retries exceeded with url: /v1 (Caused by SSLError(SSLError(1, '[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:992)')))";
        assert_eq!(said(tls), "what answers at the vault server vault.lab.test does not speak TLS");
        let page = "Traceback (most recent call last):\njson.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)";
        assert_eq!(said(page), "what answers at the vault server vault.lab.test is no vault: what it says is not JSON");
    }

    #[test]
    fn a_sealed_vault_is_an_outage_and_a_bad_refresh_token_is_not() {
        let sealed = "Read token from https://v:8200/v1/s failed: HTTPError: Service Unavailable: Vault is sealed\n";
        assert_eq!(verdict(&format!("{sealed}{FAILURE}")), Class::Transient);
        let grant = "Read token from https://v:8200/v1/s failed: HTTPError: Internal Server Error: 1 error occurred: invalid_grant\n";
        assert_eq!(verdict(&format!("{grant}{FAILURE}")), Class::NeedsHuman);
    }

    #[test]
    fn starting_or_polling_the_browser_needs_a_person() {
        let asks =
            "Attempting OIDC authentication with https://v:8200\n\nComplete the authentication at:\n    https://v/x\n";
        assert_eq!(verdict(asks), Class::NeedsHuman);
        let polled = format!("{asks}htgettoken: Polling for response took longer than 2 minutes\n");
        assert_eq!(classify(Exit::Code(1), &polled, FACTS).code, AUTHENTICATION_UNFINISHED);
    }

    #[test]
    fn a_kdc_that_is_gone_is_named() {
        let text = format!(
            "Kerberos init failed: GSSError: Major (851968): Unspecified GSS failure. Minor (2529639068): Cannot contact any KDC for realm 'LAB.TEST'.\n{FAILURE}"
        );
        assert_eq!(classify(Exit::Code(1), &text, FACTS).code, KDC_UNREACHABLE);
        let text = format!(
            "Kerberos init failed: GSSError: (458752): No credentials were supplied. (2529639053): No Kerberos credentials available.\n{FAILURE}"
        );
        assert_eq!(classify(Exit::Code(1), &text, FACTS).code, VAULT_KERBEROS);
    }

    #[test]
    fn options_that_htgettoken_does_not_take_are_not_retried() {
        let text = "htgettoken: --vaulttokenminttl must be less than --vaulttokenttl\n";
        let failure = classify(Exit::Code(1), text, FACTS);
        assert_eq!((failure.class, failure.code), (Class::Permanent, HTGETTOKEN_OPTIONS));
        assert_eq!(classify(Exit::Code(2), "htgettoken: error: no such option: --x", FACTS).code, HTGETTOKEN_OPTIONS);
    }
}
