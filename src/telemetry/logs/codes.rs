//! The codes of this module's messages.

use crate::workflow::code::Code;

/// A log file cannot be written.
pub const LOG_FILE: Code = Code(200);
/// Loki did not take the lines.
pub const LOKI: Code = Code(201);

/// For `mt explain`.
pub const EXPLANATIONS: &[(Code, &str, &str)] = &[
    (
        LOG_FILE,
        "a log file cannot be written",
        "The work is done all the same, and `mt runs show` knows what was done; only the file named in the message lacks it.\n\
         The account that runs mt must be able to write there:  ls -ld DIRECTORY ; ls -l FILE\n\
         The file must be a regular file (or /dev/null), never a link. A full disk gives this message too.\n\
         `logs.<executable>.logfile` and `.debugfile` of the configuration say where the files are.",
    ),
    (
        LOKI,
        "Loki did not take the lines of a run",
        "They are in the log files all the same. The message says what went wrong: nobody answers at `loki.host`, it takes\n\
         longer than `loki.response_header_timeout` allows, or it refuses the lines.\n\
         Try  curl -i HOST/ready . `--no-loki` sends nothing.",
    ),
];
