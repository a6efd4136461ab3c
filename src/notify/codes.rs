//! The codes of notifications beside those of the step, which are in `steps::codes`.

use crate::workflow::code::Code;

/// The mail server does not accept the login.
pub const MAIL_LOGIN: Code = Code(68);
/// The connection to the mail server cannot be made safe.
pub const MAIL_TLS: Code = Code(69);
/// The file with the mail server's password cannot be used.
pub const PASSWORD_FILE: Code = Code(230);
/// Slack refuses the message.
pub const SLACK_REFUSED: Code = Code(231);
/// Slack cannot be reached.
pub const SLACK_UNREACHABLE: Code = Code(232);
/// It is not known whether Slack has the message.
pub const SLACK_UNCERTAIN: Code = Code(233);
/// No webhook is configured for a message that waits.
pub const SLACK_NOT_CONFIGURED: Code = Code(234);
/// A template file cannot be used.
pub const TEMPLATE: Code = Code(235);

/// For `mt explain`.
pub const EXPLANATIONS: &[(Code, &str, &str)] = &[
    (
        MAIL_LOGIN,
        "the mail server does not accept the login",
        "email.username and the password in email.passwordFile are not what it knows, or it takes no login of ours.\n\
         The mail stays in the outbox and goes out with the next run.",
    ),
    (
        MAIL_TLS,
        "the connection to the mail server cannot be made safe",
        "email.tls says starttls or implicit, and the server does not speak it on this port, or its certificate is not of\n\
         an authority in email.caFile (without it: the system's). Nothing was said in the clear.",
    ),
    (
        PASSWORD_FILE,
        "the file with the mail server's password cannot be used",
        "email.passwordFile holds the password and nothing else. It belongs to the account that runs mt, and nobody else\n\
         may read it: chmod 600.",
    ),
    (
        SLACK_REFUSED,
        "Slack refuses the message",
        "It answered with a 4xx code: the webhook of slack_alerts_url was removed, or is not one. Make a new one in Slack.",
    ),
    (
        SLACK_UNREACHABLE,
        "Slack cannot be reached",
        "The message stays in the outbox and goes out with the next run. Mails are not affected.",
    ),
    (
        SLACK_UNCERTAIN,
        "it is not known whether Slack has the message",
        "It did not answer within 5 s. The message goes out again with the next run, marked as possibly a repeat.",
    ),
    (
        SLACK_NOT_CONFIGURED,
        "a message waits for Slack, and no webhook is configured",
        "notifications.slack_alerts_url (notifications_test.… for test runs) was taken out of the configuration.",
    ),
    (
        TEMPLATE,
        "a template file cannot be used",
        "A file named in `templates` is missing, is not in the form of the shipped ones, or uses a name that there is not.\n\
         The shipped text is used in its place. `mt config check` names the line; docs/notifications.md has the names.",
    ),
];
