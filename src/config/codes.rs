//! The codes of this module's messages.

use crate::workflow::code::Code;

/// No configuration file where one is looked for.
pub const FILE_NOT_FOUND: Code = Code(80);
/// The file cannot be read.
pub const FILE_UNREADABLE: Code = Code(81);
/// The file's name does not say which format it has.
pub const UNKNOWN_FORMAT: Code = Code(82);
/// The text is not JSON, YAML or RON.
pub const SYNTAX: Code = Code(83);
/// A value has the wrong type.
pub const WRONG_TYPE: Code = Code(150);
/// A key that is needed is missing.
pub const MISSING: Code = Code(151);
/// Two keys are the same in lower case.
pub const DUPLICATE_KEY: Code = Code(152);
/// A duration is not one.
pub const BAD_DURATION: Code = Code(153);
/// A value is none of those that are known.
pub const UNKNOWN_VALUE: Code = Code(154);
/// A name holds what a name cannot.
pub const BAD_NAME: Code = Code(155);
/// A template cannot be filled in.
pub const BAD_TEMPLATE: Code = Code(156);
/// Options cannot be split into words.
pub const BAD_OPTIONS: Code = Code(157);
/// A mail address is not one.
pub const BAD_ADDRESS: Code = Code(158);
/// A number is out of range.
pub const OUT_OF_RANGE: Code = Code(159);
/// A key that mt does not know (a warning).
pub const UNKNOWN_KEY: Code = Code(161);
/// A key of the Go service that has no effect any more (a warning).
pub const OBSOLETE_KEY: Code = Code(162);
/// A value that works, but hardly as meant (a warning).
pub const ODD_VALUE: Code = Code(163);
/// An environment variable cannot be used.
pub const BAD_ENVIRONMENT: Code = Code(164);

/// For `mt explain`.
pub const EXPLANATIONS: &[(Code, &str, &str)] = &[
    (
        FILE_NOT_FOUND,
        "no configuration file",
        "Without -c FILE and MT_CONFIG, mt looks for managedTokens.json, .yml, .yaml and .ron in /etc/managed-tokens,\n\
         ~/.managed-tokens and the working directory, in this order, and found none.\n\
         Name the file, or put it into one of these places.",
    ),
    (
        FILE_UNREADABLE,
        "the configuration cannot be read",
        "The file is not there, not yours to read, or not UTF-8: the message says which.\n\
         mt runs as the owner of the state directory; that user must be able to read the file.",
    ),
    (
        UNKNOWN_FORMAT,
        "a configuration of unknown format",
        "The format is told by the end of the file's name: .json, .yml or .yaml, .ron. Rename the file.",
    ),
    (
        SYNTAX,
        "the configuration is not JSON, YAML or RON",
        "The text breaks off or goes wrong at the line and column that the message names.\n\
         Often it is the line before: a comma, a quote or a bracket. YAML has one document, known tags only.",
    ),
    (
        WRONG_TYPE,
        "a value of the wrong type",
        "The key takes what the message expects. Some other spellings are read because nothing is lost by it: \"8445\"\n\
         for a number, \"true\" for a boolean, one text for a list (split at white space), null for no such key.\n\
         `mt config show` prints every value as mt understands it.",
    ),
    (
        MISSING,
        "a key is missing",
        "Every role needs `account` and `destinationNodes`. `keytabPath` and `kerberosPrincipalPattern` are needed\n\
         globally unless every role has its override.",
    ),
    (
        DUPLICATE_KEY,
        "two keys that are the same",
        "Keys are compared in lower case, names of experiments and roles too, so `Dune` and `dune` are the same.\n\
         Which of the two is meant is not for mt to guess: remove one.",
    ),
    (
        BAD_DURATION,
        "not a duration",
        "Durations are numbers with units, as Go writes them: 300s, 1m30s, 1.5h, 500ms. A bare number has no unit and is\n\
         refused, 0 excepted. Days (3d) are for minTokenLifetime only, which htgettoken reads.",
    ),
    (
        UNKNOWN_VALUE,
        "a value that is not known",
        "The key takes one of the values that the message lists, spelled exactly so.",
    ),
    (
        BAD_NAME,
        "a name that cannot be one",
        "Names of experiments, roles, accounts, nodes, credds, servers and principals reach command lines and file names,\n\
         so white space, quotes, shell characters, control characters, a leading dash and `..` are refused.\n\
         A role holds no underscore: the role of a service is what follows its last one.",
    ),
    (
        BAD_TEMPLATE,
        "a template that cannot be filled in",
        "Templates know {{.Account}} {{.DesiredUID}} {{.Experiment}} {{.Role}} {{.Service}} {{.UserPrincipal}}\n\
         {{.KeytabPath}} {{.VaultServer}}; kerberosPrincipalPattern knows {{.Account}} alone. No other part of Go's templates.\n\
         A path on a node is absolute, without `..` and without characters that a shell reads.",
    ),
    (
        BAD_OPTIONS,
        "options that cannot be used",
        "Options are split into words as a shell does: a quote must be closed. For ssh, a word that is neither an option\n\
         nor Name=Value would be taken for the host.",
    ),
    (BAD_ADDRESS, "not a mail address", "An address is NAME@HOST, or Some One <NAME@HOST> in a list of its own."),
    (OUT_OF_RANGE, "a number out of range", "The message names the least and the greatest value."),
    (
        UNKNOWN_KEY,
        "a key that mt does not know",
        "A warning: the key is ignored, and the nearest known one is named. Often it is a slip of the pen, and the value\n\
         that was meant is not set.",
    ),
    (
        OBSOLETE_KEY,
        "a key without effect",
        "A warning: the service before mt had a use for this key; mt has none, and the message says why.",
    ),
    (
        ODD_VALUE,
        "a value that hardly is as meant",
        "A warning: mt can work with it, but a node listed twice, a role without nodes or a URL without scheme seldom are\n\
         what somebody wanted.",
    ),
    (
        BAD_ENVIRONMENT,
        "an environment variable that cannot be used",
        "_condor_COLLECTOR_HOST, _condor_SEC_CREDENTIAL_GETTOKEN_OPTS and MANAGED_TOKENS_DEV_ENVIRONMENT_LABEL win over the\n\
         file, so a bad value is an error and no reason to fall back to the file. Correct or unset the variable.",
    ),
];
