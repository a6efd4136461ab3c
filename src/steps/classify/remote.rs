//! ping, and rsync over ssh.

use super::{Exits, Facts, Rule, TooSlow};
use crate::process::Exit;
use crate::steps::codes::*;
use crate::workflow::action::{Class, Failure};

/// What messages may name.
pub const FACTS: &[&str] = &["program", "node", "account", "principal"];

const LOOK: &str = "ssh {account}@{node}  as the account that runs mt must get there; else look at the node";
const PING_BY_HAND: &str = "ping {node}  must be answered; else look at the node";
const TRANSIENT: Rule = Rule {
    exits: Exits::Any,
    says: &[],
    class: Class::Transient,
    code: NODE_UNREACHABLE,
    cause: "{line}",
    next: Some(LOOK),
};
const PERMANENT: Rule = Rule { class: Class::Permanent, ..TRANSIENT };
const UNKNOWN: Rule =
    Rule { code: NODE_UNKNOWN, next: Some("correct destinationNodes, or look at the name server"), ..PERMANENT };
const FORBIDDEN: Rule = Rule {
    code: DESTINATION_REFUSED,
    next: Some("on {node}: remove what is in the way, as its owner or root"),
    ..PERMANENT
};
const FULL: Rule = Rule { code: NODE_DISK_FULL, next: Some("make space on {node}"), ..PERMANENT };
const DENIED: Rule = Rule {
    code: SSH_DENIED,
    next: Some("check on {node} that the account {account} exists and that its .k5login names {principal}"),
    ..PERMANENT
};
const OPTIONS: Rule =
    Rule { code: PUSH_FAILED, next: Some("correct pingOptions, sshOptions or fileCopierOptions"), ..PERMANENT };

/// ping.
pub const PING: &[Rule] = &[
    Rule { says: &["temporary failure in name resolution"], class: Class::Transient, ..UNKNOWN },
    Rule { says: &["name or service not known"], ..UNKNOWN },
    Rule { says: &["no address associated"], ..UNKNOWN },
    Rule { says: &["unknown host"], ..UNKNOWN },
    Rule { says: &["destination host unreachable"], ..UNPINGABLE },
    Rule { says: &["network is unreachable"], next: Some(PING_BY_HAND), ..TRANSIENT },
    Rule { says: &["no route to host"], next: Some(PING_BY_HAND), ..TRANSIENT },
    Rule { says: &["operation not permitted"], code: PUSH_FAILED, next: Some("let the account use ping"), ..PERMANENT },
    Rule { says: &["invalid"], ..OPTIONS },
    Rule { says: &["usage"], ..OPTIONS },
    Rule { exits: Exits::Of(&[1]), ..UNPINGABLE },
];
const UNPINGABLE: Rule =
    Rule { code: NODE_UNPINGABLE, cause: "{node} does not answer a ping", next: Some(PING_BY_HAND), ..TRANSIENT };
const PING_FALLBACK: Rule = Rule { code: PUSH_FAILED, cause: "ping failed: {line}", next: None, ..TRANSIENT };

/// rsync over ssh. What ssh says comes first: rsync only adds that its connection is gone.
pub const PUSH: &[Rule] = &[
    Rule {
        says: &["remote host identification has changed"],
        class: Class::NeedsHuman,
        code: HOST_KEY,
        cause: "the host key of {node} has changed",
        next: Some("if the node was reinstalled:  ssh-keygen -R {node}  then  ssh {account}@{node}"),
        ..PERMANENT
    },
    Rule {
        says: &["host key verification failed"],
        class: Class::NeedsHuman,
        code: HOST_KEY,
        cause: "the host key of {node} is not known",
        next: Some("ssh {account}@{node}"),
        ..PERMANENT
    },
    Rule { says: &["could not resolve hostname", "temporary failure"], class: Class::Transient, ..UNKNOWN },
    Rule { says: &["could not resolve hostname"], ..UNKNOWN },
    Rule { says: &[": permission denied ("], exits: Exits::Of(&[255, 12]), ..DENIED },
    Rule { says: &["too many authentication failures"], ..DENIED },
    Rule { says: &["account is currently not available"], ..DENIED },
    Rule { says: &["bad configuration option"], ..OPTIONS },
    Rule { says: &["command-line: line 0"], ..OPTIONS },
    Rule { says: &["connect to host", "connection refused"], code: SSH_REFUSED, ..TRANSIENT },
    Rule { says: &["connect to host"], ..TRANSIENT },
    Rule { says: &["banner line contains invalid characters"], ..NO_SSH },
    Rule { says: &["invalid format", "banner exchange"], ..NO_SSH },
    Rule { says: &["bad remote protocol version"], ..NO_SSH },
    Rule { says: &["protocol major versions differ"], ..NO_SSH },
    Rule {
        says: &["timed out during banner exchange"],
        cause: "{node} accepts ssh connections and says nothing",
        ..TRANSIENT
    },
    Rule { says: &["timed out"], ..TRANSIENT },
    Rule { says: &["timeout, server"], ..TRANSIENT },
    Rule { says: &["connection reset"], ..TRANSIENT },
    Rule { says: &["connection closed by"], ..TRANSIENT },
    Rule { says: &["no space left on device"], ..FULL },
    Rule { says: &["quota exceeded"], ..FULL },
    Rule { says: &["read-only file system"], ..FORBIDDEN },
    Rule { says: &["(13)"], exits: Exits::Of(&[23, 11, 3]), ..FORBIDDEN },
    Rule { says: &["operation not permitted"], exits: Exits::Of(&[23, 11, 3]), ..FORBIDDEN },
    Rule { says: &["[receiver]", "no such file or directory"], ..FORBIDDEN },
    Rule { says: &["rsync: command not found"], ..NO_RSYNC },
    Rule { says: &["rsync: not found"], ..NO_RSYNC },
    Rule {
        says: &["is your shell clean"],
        code: PUSH_FAILED,
        next: Some("the login scripts of {account} on {node} must print nothing"),
        ..PERMANENT
    },
    Rule { exits: Exits::Of(&[1, 2, 4]), ..OPTIONS },
    // On a busy machine, 6 of 300 rsyncs (3.5.0) to a full disk ended with 11 and lost what the node had said. The next try says it.
    Rule {
        exits: Exits::Of(&[11]),
        code: PUSH_FAILED,
        cause: "{node} could not write a file: {line}",
        next: Some("look at the disk of {node}"),
        ..TRANSIENT
    },
    Rule { says: &["connection unexpectedly closed"], ..TRANSIENT },
    Rule { says: &["broken pipe"], ..TRANSIENT },
];
const NO_SSH: Rule = Rule { cause: "what answers on {node} is no ssh server: {line}", ..TRANSIENT };
const NO_RSYNC: Rule = Rule { code: PUSH_FAILED, next: Some("install rsync on {node}"), ..PERMANENT };
const PUSH_FALLBACK: Rule = Rule { code: PUSH_FAILED, cause: "rsync failed: {line}", next: None, ..TRANSIENT };

/// What it means that ping does not end.
pub fn unpingable(node: &str) -> TooSlow {
    let next = super::fill(PING_BY_HAND, "", &[("node", node)]);
    TooSlow::new(NODE_UNPINGABLE, format!("{node} does not answer a ping"), next)
}

/// What it means that rsync does not end. `pinged`: did the node answer a ping, as far as anybody knows?
pub fn too_slow(facts: Facts<'_>, pinged: bool) -> TooSlow {
    let cause = if pinged { "{node} did not take the files" } else { "{node} answers neither ping nor ssh" };
    TooSlow::new(NODE_UNREACHABLE, super::fill(cause, "", facts), super::fill(LOOK, "", facts))
}

/// Why ping failed.
pub fn ping(exit: Exit, output: &str, facts: Facts<'_>) -> Failure {
    super::classify(PING, &PING_FALLBACK, exit, output, facts)
}

/// Why rsync failed.
pub fn push(exit: Exit, output: &str, facts: Facts<'_>) -> Failure {
    let failure = super::classify(PUSH, &PUSH_FALLBACK, exit, output, facts);
    let fact = |wanted| facts.iter().find(|(name, _)| *name == wanted).map_or("", |(_, value)| *value);
    let (node, account) = (fact("node"), fact("account"));
    // ssh knows which file holds the key.
    let remove = output.lines().map(str::trim).find(|line| is_removal(line, node)).filter(|_| failure.code == HOST_KEY);
    match remove {
        Some(remove) => {
            failure.with_next(format!("if the node was reinstalled:  {remove}  then  ssh {account}@{node}"))
        }
        None => failure,
    }
}

/// ssh's `ssh-keygen -f "FILE" -R "NODE"`, and nothing else: whoever answers in the node's place may have written the line, and
/// people are told to run it.
fn is_removal(line: &str, node: &str) -> bool {
    let parts = line.strip_prefix("ssh-keygen -f \"").and_then(|rest| rest.strip_suffix('"')?.split_once("\" -R \""));
    let Some((file, host)) = parts else { return false };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | '@');
    let port = host.strip_prefix('[').and_then(|rest| rest.strip_prefix(node)?.strip_prefix("]:"));
    let with_port = port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    file.starts_with('/') && file.chars().all(plain) && (host == node || with_port)
}

/// Did nothing but this file fail? rsync goes on with the other files (exit code 23), and names the file in every line
/// of its own but the last.
pub fn only_about(exit: Exit, output: &str, name: &str) -> bool {
    let mut complaints = output.lines().filter(|line| line.starts_with("rsync: ")).peekable();
    exit == Exit::Code(23) && complaints.peek().is_some() && complaints.all(|line| line.contains(name))
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use crate::workflow::code::Code;

    const FACTS: Facts<'static> = &[
        ("program", "rsync"),
        ("node", "node2.lab.test"),
        ("account", "dunepro"),
        ("principal", "dunepro/managedtokens/lab.test@LAB.TEST"),
    ];

    #[track_caller]
    fn check(name: &str, class: Class, code: Code) -> Failure {
        let (exit, output) = fixture::read(name);
        let failure = if name.starts_with("ping") { ping(exit, &output, FACTS) } else { push(exit, &output, FACTS) };
        assert_eq!((failure.class, failure.code), (class, code), "{name}: {failure:?}");
        assert!(!failure.message.contains('{') && !failure.message.contains('\n'), "{failure:?}");
        failure
    }

    #[test]
    fn what_ping_says_is_understood() {
        check("ping-blackhole", Class::Transient, NODE_UNPINGABLE);
        check("ping-down", Class::Transient, NODE_UNPINGABLE);
        check("ping-unknown-host", Class::Transient, NODE_UNKNOWN);
        assert_eq!(ping(Exit::Code(2), "ping: x: Name or service not known", FACTS).class, Class::Permanent);
        assert_eq!(ping(Exit::Code(1), "ping: invalid argument: 'abc'", FACTS).code, PUSH_FAILED);
    }

    #[test]
    fn what_rsync_and_ssh_say_is_understood() {
        check("rsync-blackhole", Class::Transient, NODE_UNREACHABLE);
        check("rsync-down", Class::Transient, NODE_UNREACHABLE);
        check("rsync-hang", Class::Transient, NODE_UNREACHABLE);
        check("rsync-paused", Class::Transient, NODE_UNREACHABLE);
        check("rsync-killed", Class::Transient, SSH_REFUSED);
        check("rsync-unknown-host", Class::Transient, NODE_UNKNOWN);
        check("rsync-refuse", Class::Permanent, SSH_DENIED);
        check("rsync-no-ticket", Class::Permanent, SSH_DENIED);
        check("rsync-wrong-account", Class::Permanent, SSH_DENIED);
        check("rsync-full", Class::Permanent, NODE_DISK_FULL);
        check("rsync-forbidden-directory", Class::Permanent, DESTINATION_REFUSED);
    }

    #[test]
    fn a_changed_host_key_needs_a_person_and_says_which_command() {
        let failure = check("rsync-hostkey-changed", Class::NeedsHuman, HOST_KEY);
        let next = failure.next.expect("advice");
        assert!(next.contains(r#"ssh-keygen -f "/lab/known_hosts" -R "node2.lab.test""#), "{next}");
        assert!(next.ends_with("ssh dunepro@node2.lab.test"), "{next}");
    }

    #[test]
    fn what_a_node_says_is_no_command_for_people_unless_it_is_sshs_own() {
        let changed = "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!\nHost key verification failed.\n";
        let next = |output: &str| push(Exit::Code(255), output, FACTS).next.expect("advice");
        let own = r#"ssh-keygen -f "/lab/known_hosts" -R "[node2.lab.test]:2222""#;
        assert!(next(&format!("  {own}\r\n{changed}")).contains(own));
        for evil in [
            r#"ssh-keygen -f "/lab/$(id)" -R "node2.lab.test""#,
            r#"ssh-keygen -f "/lab/x" -R "node1.lab.test""#,
            r#"ssh-keygen -f "/lab/x" -R "node2.lab.test" -y "x""#,
            r#"ssh-keygen -f "/lab/x" -R "node2.lab.test"; id"#,
            r#"ssh-keygen -f "x" -R "node2.lab.test""#,
            r#"ssh-keygen -f "/lab/x" -R "[node2.lab.test]:2 -y""#,
            "ssh-keygen -y; id",
        ] {
            let said = next(&format!("{evil}\n{changed}"));
            assert_eq!(
                said,
                "if the node was reinstalled:  ssh-keygen -R node2.lab.test  then  ssh dunepro@node2.lab.test"
            );
        }
        let other = format!("{own}\nrsync: connection unexpectedly closed");
        let failure = push(Exit::Code(12), &other, FACTS);
        assert!(!failure.next.unwrap().contains("ssh-keygen"), "nothing is said of a host key");
    }

    #[test]
    fn one_failure_of_ssh_is_the_same_for_each_of_rsyncs_exit_codes() {
        let (_, output) = fixture::read("rsync-killed");
        for code in [255, 12, 10, 30] {
            assert_eq!(push(Exit::Code(code), &output, FACTS).code, SSH_REFUSED, "exit {code}");
        }
    }

    #[test]
    fn a_node_whose_last_words_were_lost_is_tried_again() {
        let failure = push(Exit::Code(11), "", FACTS);
        assert_eq!((failure.class, failure.code), (Class::Transient, PUSH_FAILED));
        assert!(failure.message.starts_with("node2.lab.test could not write a file"), "{}", failure.message);
    }

    #[test]
    fn a_planted_file_of_somebody_else_is_not_retried() {
        let output = "rsync: [receiver] rename \"/tmp/.vt_u1234.AbCdEf\" -> \"vt_u1234\": Operation not permitted (1)\n\
                      rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1)";
        let failure = push(Exit::Code(23), output, FACTS);
        assert_eq!((failure.class, failure.code), (Class::Permanent, DESTINATION_REFUSED));
        assert!(!only_about(Exit::Code(23), output, "default_role_dune_1234"));
        assert!(only_about(Exit::Code(23), output, "vt_u1234"));
    }
}
