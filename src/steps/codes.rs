//! The numbers of the steps' failures, and what `mt explain` says about them.

use crate::workflow::code::Code;

/// The keytab is not there.
pub const KEYTAB_MISSING: Code = Code(20);
/// The keytab cannot be read, or is no keytab.
pub const KEYTAB_UNREADABLE: Code = Code(21);
/// The keytab holds no key of the principal.
pub const KEYTAB_WRONG: Code = Code(22);
/// The keytab's keys are not the KDC's any more.
pub const KEYTAB_STALE: Code = Code(23);
/// The KDC does not know the principal.
pub const PRINCIPAL_UNKNOWN: Code = Code(24);
/// The principal is locked or has expired.
pub const PRINCIPAL_REVOKED: Code = Code(25);
/// No KDC answers.
pub const KDC_UNREACHABLE: Code = Code(26);
/// This machine's clock is wrong.
pub const CLOCK_SKEW: Code = Code(27);
/// kinit or klist failed in another way.
pub const KINIT_FAILED: Code = Code(28);
/// The cache holds somebody else's ticket.
pub const WRONG_PRINCIPAL: Code = Code(29);

/// The vault server cannot be reached.
pub const VAULT_UNREACHABLE: Code = Code(30);
/// A person must authenticate.
pub const AUTHENTICATION_NEEDED: Code = Code(31);
/// The vault answers with an error of its own.
pub const VAULT_ERROR: Code = Code(32);
/// The vault did not take the Kerberos ticket, or there was none.
pub const VAULT_KERBEROS: Code = Code(33);
/// The vault's certificate is not to be trusted.
pub const VAULT_CERTIFICATE: Code = Code(34);
/// Nothing says which vault server.
pub const VAULT_SERVER_UNKNOWN: Code = Code(35);
/// htgettoken does not take its options.
pub const HTGETTOKEN_OPTIONS: Code = Code(36);
/// htgettoken failed in another way.
pub const HTGETTOKEN_FAILED: Code = Code(37);
/// The kept or staged token file cannot be used.
pub const TOKEN_FILE: Code = Code(38);
/// Nobody finished the authentication in the browser.
pub const AUTHENTICATION_UNFINISHED: Code = Code(39);

/// The node does not answer a ping.
pub const NODE_UNPINGABLE: Code = Code(40);
/// The node's name does not resolve.
pub const NODE_UNKNOWN: Code = Code(41);
/// The node refuses ssh connections.
pub const SSH_REFUSED: Code = Code(42);
/// The node does not answer.
pub const NODE_UNREACHABLE: Code = Code(43);
/// The node does not let us in.
pub const SSH_DENIED: Code = Code(44);
/// The node's host key is not the one known.
pub const HOST_KEY: Code = Code(45);
/// The node's disk is full.
pub const NODE_DISK_FULL: Code = Code(46);
/// The account may not write there.
pub const DESTINATION_REFUSED: Code = Code(47);
/// ping, ssh or rsync failed in another way.
pub const PUSH_FAILED: Code = Code(48);
/// The UID of the account is not known.
pub const UID_UNKNOWN: Code = Code(49);

/// The collector cannot be asked.
pub const COLLECTOR_UNREACHABLE: Code = Code(50);
/// The collector names no credd.
pub const NO_CREDDS: Code = Code(51);
/// `condorScheddConstraint` is not an expression.
pub const BAD_CONSTRAINT: Code = Code(52);
/// The credd cannot be reached.
pub const CREDD_UNREACHABLE: Code = Code(53);
/// The credd refuses.
pub const CREDD_DENIED: Code = Code(54);
/// condor_vault_storer failed in another way.
pub const STORER_FAILED: Code = Code(55);
/// The storer's files in /tmp are in somebody else's way.
pub const STORER_FILES: Code = Code(56);
/// The storer finds no options for htgettoken.
pub const STORER_OPTIONS: Code = Code(57);
/// A site's own program says: try again.
pub const EXEC_TEMPORARY: Code = Code(58);
/// A site's own program failed.
pub const EXEC_FAILED: Code = Code(59);

/// The mail server refuses the mail.
pub const MAIL_REFUSED: Code = Code(60);
/// The mail server cannot be reached.
pub const MAIL_UNREACHABLE: Code = Code(61);
/// The mail server says: later.
pub const MAIL_LATER: Code = Code(62);
/// An address is not one.
pub const MAIL_ADDRESS: Code = Code(63);
/// Nothing says how to send mail, or to whom.
pub const MAIL_NOT_CONFIGURED: Code = Code(64);
/// The connection was lost after the text was sent.
pub const MAIL_UNCERTAIN: Code = Code(65);
/// The outbox cannot be read or written.
pub const OUTBOX: Code = Code(66);

/// A step that works for a service was asked to work for none.
pub const NO_SERVICE: Code = Code(67);

/// For `mt explain`.
pub const EXPLANATIONS: &[(Code, &str, &str)] = &[
    (
        KEYTAB_MISSING,
        "the keytab is not there",
        "The file is looked for at keytabPath/<account>.keytab, or where keytabPathOverride says.\n\
         Put it there, owned by the account that runs mt and with mode 0600, or correct the path;\n\
         mt services show SERVICE  names the path that is used.",
    ),
    (
        KEYTAB_UNREADABLE,
        "the keytab cannot be read",
        "It belongs to another account, others forbid reading it, it is damaged, or its file server is away.\n\
         Try  klist -k -t KEYTAB  as the account that runs mt; get a fresh copy if that fails too.",
    ),
    (
        KEYTAB_WRONG,
        "the keytab holds no key of the principal",
        "klist -k KEYTAB  lists the principals it holds. Correct kerberosPrincipalPattern, userPrincipalOverride or the\n\
         keytab's path, so that principal and keytab belong together.",
    ),
    (
        KEYTAB_STALE,
        "the keytab's keys are out of date",
        "The KDC has newer keys for this principal: somebody made a new keytab or reset the password.\n\
         Fetch the new keytab from whoever made it, and replace the file.",
    ),
    (
        PRINCIPAL_UNKNOWN,
        "the KDC does not know the principal",
        "It was removed, or its name or realm is misspelled in the configuration.\n\
         mt services show SERVICE  names the principal that is used.",
    ),
    (
        PRINCIPAL_REVOKED,
        "the principal is locked or has expired",
        "The KDC knows it and refuses it. Ask those who run the KDC to unlock or renew it.",
    ),
    (
        KDC_UNREACHABLE,
        "no KDC answers",
        "Every KDC of the realm in krb5.conf was tried. It is tried again as often as the step says, and in the next run.\n\
         KRB5_TRACE=/dev/stderr kinit -k -t KEYTAB PRINCIPAL  shows which KDC was asked and what came of it.\n\
         If it lasts: look at the network, at krb5.conf, and at the KDC itself.",
    ),
    (
        CLOCK_SKEW,
        "the clock of this machine is wrong",
        "Kerberos allows five minutes. Look at  timedatectl  or  chronyc tracking .",
    ),
    (
        KINIT_FAILED,
        "kinit failed",
        "In a way that mt does not know. Its output is shown by  mt runs show ; try the same by hand:\n\
         kinit -k -t KEYTAB PRINCIPAL",
    ),
    (
        WRONG_PRINCIPAL,
        "the ticket is somebody else's",
        "kinit reported success, and klist shows another default principal than the configured one.\n\
         The keytab or krb5.conf maps the principal to another; nothing is done with such a ticket.",
    ),
    (
        VAULT_UNREACHABLE,
        "the vault server cannot be reached or does not answer",
        "The connection failed, or the server did not answer in time: it, or the directory (LDAP) that it asks at a login.\n\
         A kept vault token that has not expired is pushed in its place (status stale), and the step is tried again in\n\
         the next run. If it lasts: look at the vault server and the network between.",
    ),
    (
        AUTHENTICATION_NEEDED,
        "a person must authenticate",
        "The vault works, and holds no usable refresh token for this service or refuses it. Only a person with a browser\n\
         can make one:\n\
         mt run token-push --onboard --push -s SERVICE\n\
         If it refuses again afterwards, those who run the vault must give the service its policy.\n\
         This is never said because of an outage.",
    ),
    (
        VAULT_ERROR,
        "the vault answers with an error",
        "It is sealed, overloaded, or what it depends on fails, such as the directory (LDAP) that it asks at a\n\
         login; or something else answers in its place. The message says which. Those who run it must look at it.\n\
         A kept vault token that has not expired is pushed in its place.",
    ),
    (
        VAULT_KERBEROS,
        "the vault login with Kerberos failed",
        "htgettoken had no ticket it could use, or no ticket for the vault's host could be had. The step that gets the ticket\n\
         must come first and succeed; see the output shown by  mt runs show .\n\
         Or something between this machine and the vault refuses in its place, such as a proxy (an HTTPError whose words are\n\
         not the vault's):  curl -ki https://VAULT:8200/v1/sys/health  shows who answers.",
    ),
    (
        VAULT_CERTIFICATE,
        "the vault's certificate is not trusted",
        "htgettoken reads the authorities from X509_CERT_DIR (default /etc/grid-security/certificates) and SSL_CERT_FILE.\n\
         Update them, or correct the vault server's name.",
    ),
    (
        VAULT_SERVER_UNKNOWN,
        "nothing says which vault server to use",
        "Set vaultServer in the configuration, or SEC_CREDENTIAL_GETTOKEN_OPTS = -a HOST in HTCondor's.",
    ),
    (
        HTGETTOKEN_OPTIONS,
        "htgettoken does not take its options",
        "They come from HTGETTOKENOPTS, from SEC_CREDENTIAL_GETTOKEN_OPTS and from minTokenLifetime (such as 3d; it must be\n\
         shorter than the token's life of 7 days). Correct the one that the message names.",
    ),
    (HTGETTOKEN_FAILED, "htgettoken failed", "In a way that mt does not know. Its output is shown by  mt runs show ."),
    (
        TOKEN_FILE,
        "a vault token file cannot be used",
        "The message names the file and what is wrong with it: a link, a foreign owner, others may write it, no space, or\n\
         no token in it. Kept tokens live in serviceCreddVaultTokenPathRoot; removing a bad one is safe, a new one is made.",
    ),
    (
        AUTHENTICATION_UNFINISHED,
        "nobody finished the authentication",
        "The page in the browser was not completed in time (htgettoken waits two minutes), or was refused.\n\
         Start again:  mt run token-push --onboard --push -s SERVICE",
    ),
    (
        NODE_UNPINGABLE,
        "the node does not answer a ping",
        "The push to it is still tried, once. If the node is up and filters pings, change pingOptions or remove the ping\n\
         step from the workflow.",
    ),
    (
        NODE_UNKNOWN,
        "the node's name does not resolve",
        "The name server does not know it or does not answer. Correct destinationNodes if the node is gone for good.",
    ),
    (
        SSH_REFUSED,
        "the node refuses ssh connections",
        "The machine is up and nothing listens on the ssh port: sshd is down, or the node is still booting.\n\
         Look at the node; then resume the run with `mt runs resume`.",
    ),
    (
        NODE_UNREACHABLE,
        "the node does not answer",
        "No route, no answer in time, or the connection broke.\n\
         Look at the node and the network; then resume the run with `mt runs resume`.",
    ),
    (
        SSH_DENIED,
        "the node does not let us in",
        "The account does not exist there, or its .k5login does not name the service's principal.\n\
         mt services show SERVICE  names both.",
    ),
    (
        HOST_KEY,
        "the node's host key is not the one that is known",
        "Either the node was reinstalled or somebody is in between; mt sends nothing until a person has decided.\n\
         If the change is right, remove the old key as the message says, and accept the new one:  ssh ACCOUNT@NODE",
    ),
    (
        NODE_DISK_FULL,
        "the node's disk is full",
        "The old token file stays as it was. Make space on the file system that the output names.",
    ),
    (
        DESTINATION_REFUSED,
        "the account may not write the destination file",
        "In /tmp: a file or link of that name belongs to somebody else, who may have planted it; mt does not follow it.\n\
         Elsewhere: the directory is missing or forbidden. Remove what is in the way, on the node.",
    ),
    (
        PUSH_FAILED,
        "ping, ssh or rsync failed",
        "In a way that mt does not know. The output is shown by  mt runs show ; wrong options in pingOptions, sshOptions or\n\
         fileCopierOptions end here too.",
    ),
    (
        UID_UNKNOWN,
        "the account's UID is not known",
        "The files on the nodes carry the UID in their names. Fetch it:  mt run ferry-refresh\n\
         or set it:  mt uids set ACCOUNT UID  or desiredUIDOverride in the configuration.",
    ),
    (
        COLLECTOR_UNREACHABLE,
        "the collector cannot be asked for credds",
        "Each collector of condorCollectorHost was tried in order, each for 10 s at most, all together for half of the\n\
         step's time; or it does not let this host read (ALLOW_READ). Where an earlier session of the run has a list, that\n\
         list is used. With condorCreddHost set, no collector is needed.",
    ),
    (
        NO_CREDDS,
        "the collector names no credd",
        "It answered, and no schedd fits condorScheddConstraint. Try\n\
         condor_status -pool COLLECTOR -constraint CONSTRAINT -schedd -af Name",
    ),
    (
        BAD_CONSTRAINT,
        "condorScheddConstraint is not an expression",
        "condor_status cannot parse it. Correct it in the configuration.",
    ),
    (
        CREDD_UNREACHABLE,
        "the credd cannot be reached",
        "condor_store_cred could not talk to it: the host or its credd is down, or does not trust this host (ALLOW_WRITE).\n\
         Other credds and the push go on without it.",
    ),
    (
        CREDD_DENIED,
        "the credd refuses the credential",
        "It answered, and its configuration does not allow this account to store one. Those who run it must allow it.",
    ),
    (
        STORER_FAILED,
        "condor_vault_storer failed",
        "In a way that mt does not know. Its output is shown by  mt runs show .",
    ),
    (
        STORER_FILES,
        "the storer's file in /tmp cannot be used",
        "condor_vault_storer works with files in /tmp. Something is in the way there: a link, or somebody else's file.\n\
         Remove it. An HTCondor of 2023 or newer gives every run file names of its own.\n\
         \n\
         Where the message speaks of another service, two kept tokens would have one name: the one for a credd x of\n\
         dune_production, and that of x-dune_production. Nothing is to be removed then: name the credd by its full host name.",
    ),
    (
        STORER_OPTIONS,
        "condor_vault_storer finds no options for htgettoken",
        "Set SEC_CREDENTIAL_GETTOKEN_OPTS in HTCondor's configuration, or vaultServer in mt's.",
    ),
    (
        EXEC_TEMPORARY,
        "a program of the site says: try again later",
        "It ended with exit code 75. It is tried again as often as its step says.",
    ),
    (
        EXEC_FAILED,
        "a program of the site failed",
        "It ended with another exit code than 0 and 75, or by a signal. Its output is shown by  mt runs show .",
    ),
    (
        MAIL_REFUSED,
        "the mail server refuses the mail",
        "It answered with a 5xx code: the sender or a recipient is not accepted. Correct email.from or the addresses.",
    ),
    (
        MAIL_UNREACHABLE,
        "the mail server cannot be reached",
        "email.smtpHost and email.smtpPort say where it is. The mail stays in the outbox and goes out with the next run\n\
         or with `mt runs resume`.",
    ),
    (
        MAIL_LATER,
        "the mail server says: later",
        "It answered with a 4xx code. The mail stays in the outbox and is tried again.",
    ),
    (MAIL_ADDRESS, "a mail address is not one", "The message names it. Correct it in the configuration."),
    (
        MAIL_NOT_CONFIGURED,
        "there is something to tell and nobody to tell it to",
        "Set email.from, email.smtpHost and notifications.admin_email, or switch notifications off.",
    ),
    (
        MAIL_UNCERTAIN,
        "it is not known whether the mail went out",
        "The connection broke after the text was sent. It is sent again with the same Message-ID, marked as possibly a\n\
         repeat.",
    ),
    (
        OUTBOX,
        "the outbox cannot be read or written",
        "The mails of this run are in the store, which does not answer. See  mt store verify .",
    ),
    (
        NO_SERVICE,
        "the step has no service to work for",
        "Kinit, GetVaultToken, StoreInCredd, Ping and Push work for a service of this run. In `finally`, and in a workflow\n\
         for_each: Account, there is none. mt workflow check FILE  finds such steps.",
    ),
];
