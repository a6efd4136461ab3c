//! The numbers of the mistakes in workflow files (100 to 149), and what `mt explain` says about them.

use crate::workflow::code::Code;

/// The text is not RON.
pub const SYNTAX: Code = Code(100);
/// A field that does not exist.
pub const UNKNOWN_FIELD: Code = Code(101);
/// A word that is none of the possible values.
pub const UNKNOWN_VALUE: Code = Code(102);
/// An action that does not exist.
pub const UNKNOWN_ACTION: Code = Code(103);
/// Two steps of one name.
pub const DUPLICATE_NAME: Code = Code(104);
/// A step whose needs nothing before it provides.
pub const NEEDS: Code = Code(105);
/// Not a duration.
pub const BAD_DURATION: Code = Code(106);
/// A field that must be there.
pub const MISSING_FIELD: Code = Code(107);
/// A name with other characters than lower-case letters, digits and hyphens.
pub const BAD_NAME: Code = Code(108);
/// All tries of a step together take longer than the run.
pub const RETRIES_DO_NOT_FIT: Code = Code(109);
/// The `finally` steps take longer than the reserve.
pub const FINALLY_DOES_NOT_FIT: Code = Code(110);
/// No steps.
pub const NO_STEPS: Code = Code(111);
/// A number outside its limits.
pub const BAD_NUMBER: Code = Code(112);
/// `per` of a kind the action does not know.
pub const WRONG_PER: Code = Code(113);
/// An action in `steps` that belongs into `finally`, or the other way round.
pub const WRONG_PLACE: Code = Code(114);
/// A field given twice.
pub const DUPLICATE_FIELD: Code = Code(115);
/// A value of the wrong kind: a number for a text, a text for a list.
pub const WRONG_FORM: Code = Code(116);
/// The first pause is longer than the longest.
pub const BACKOFF: Code = Code(117);
/// The reserve leaves no time for the steps.
pub const RESERVE: Code = Code(118);
/// Arguments missing, or given to an action that takes none.
pub const ARGUMENTS: Code = Code(119);
/// The file is too large or nested too deeply.
pub const TOO_LARGE: Code = Code(120);
/// `when` is empty or names a mode twice.
pub const WHEN: Code = Code(121);
/// A counter that this step cannot feed.
pub const COUNTER: Code = Code(122);
/// An action that cannot work for this kind of subject.
pub const WRONG_SUBJECT: Code = Code(123);
/// The file cannot be read.
pub const UNREADABLE: Code = Code(124);
/// No workflow of that name.
pub const UNKNOWN_WORKFLOW: Code = Code(125);
/// A file whose name is not the workflow's.
pub const FILE_NAME: Code = Code(126);
/// Waiting for another run takes longer than the run may.
pub const WAIT_DOES_NOT_FIT: Code = Code(127);

/// What `mt explain` says.
pub const EXPLANATIONS: &[(Code, &str, &str)] = &[
    (
        SYNTAX,
        "the workflow file is not RON",
        "Something is wrong with the writing itself: a comma, a quote or a bracket.\n\
         The message says what was expected at that place.\n\
         A missing comma and a duration without quotes do not hide later mistakes; after anything else, mend it and check again.",
    ),
    (
        UNKNOWN_FIELD,
        "unknown field in a workflow file",
        "No field of that name exists at this place, so it would have had no effect.\n\
         Correct the name; the message lists the fields there are.",
    ),
    (
        UNKNOWN_VALUE,
        "a word that is none of the possible values",
        "The field takes one of a few words, and this is not one of them.\n\
         Upper and lower case count: Continue, not continue.",
    ),
    (
        UNKNOWN_ACTION,
        "unknown action",
        "No action of that name exists; the message lists those there are.\n\
         To run a program of your own, use Exec(command: [\"/path/to/program\"]).",
    ),
    (
        DUPLICATE_NAME,
        "two steps have the same name",
        "Runs are resumed by the names of their steps, so each name stands once, in steps and finally together.\n\
         The same action may stand in several steps: give each its own name.",
    ),
    (
        NEEDS,
        "a step needs what no step before it provides",
        "Every action says what it needs and what it provides; `mt workflow show` lists both.\n\
         Put a step that provides it earlier. It must run in the same modes: look at `when`.",
    ),
    (
        BAD_DURATION,
        "not a duration",
        "A duration is numbers with units, in quotes and without spaces: \"20s\", \"1m30s\", \"2h\", \"500ms\".\n\
         Timeouts and the deadline must be longer than nothing and at most a year.",
    ),
    (
        MISSING_FIELD,
        "a field is missing",
        "The field has no default, because no default would be right everywhere. Add it.",
    ),
    (
        BAD_NAME,
        "not a name",
        "Names of workflows and steps appear in histories, file names and metrics:\n\
         a lower-case letter, then lower-case letters, digits and hyphens, at most 40 characters.",
    ),
    (
        RETRIES_DO_NOT_FIT,
        "all tries of a step cannot fit into the run",
        "(times + 1) x timeout and the pauses between the tries are longer than deadline - reserve: the last tries\n\
         could never happen. Lower timeout, times or backoff, or raise the deadline.\n\
         Where the configuration sets one of these values this is only a warning; `mt workflow show --effective` tells which.",
    ),
    (
        FINALLY_DOES_NOT_FIT,
        "the finally steps do not fit into the reserve",
        "When the deadline strikes, `finally` steps have only the reserve left, and 7 s of it go to ending children\n\
         and sending metrics. Raise `reserve` or lower the timeouts of the `finally` steps.",
    ),
    (NO_STEPS, "a workflow without steps", "`steps` needs at least one Step(...)."),
    (
        BAD_NUMBER,
        "a number outside its limits",
        "parallel is 1 to 10000: with 0 the step would never start. times is 0 to 1000.",
    ),
    (
        WRONG_PER,
        "a step cannot fan out this way",
        "Each action knows over what it works: Push over nodes, StoreInCredd over credds, Kinit over nothing.\n\
         Leave `per` out and the action's own kind is used.",
    ),
    (
        WRONG_PLACE,
        "an action stands in the wrong list",
        "`steps` are done for every service or account; `finally` steps once, for the run, when all of these have ended.\n\
         Move the step to the other list.",
    ),
    (DUPLICATE_FIELD, "a field is given twice", "Only one of the two could count. Remove one."),
    (
        WRONG_FORM,
        "a value of the wrong kind",
        "The field wants another kind of value, a text in quotes or a list in [ ] for example.\n\
         The message says which; docs/workflows.md has an example of every field.",
    ),
    (
        BACKOFF,
        "the first pause is longer than the longest",
        "backoff is (first pause, longest pause); the pause doubles from the first to the longest.\n\
         For pauses that are all the same, give the same duration twice.",
    ),
    (
        RESERVE,
        "the reserve leaves no time for the steps",
        "`reserve` is the end of the deadline, kept for the `finally` steps, so it must be shorter than the deadline.\n\
         Leave it out for min(30s, deadline/10).",
    ),
    (
        ARGUMENTS,
        "wrong arguments of an action",
        "Exec takes arguments, in parentheses; the other actions take none and are written as a bare word.",
    ),
    (
        TOO_LARGE,
        "the workflow file is too large",
        "A workflow file has at most 256 KiB and its brackets are nested at most some 30 deep. Is it the right file?",
    ),
    (
        WHEN,
        "a step that never runs, or a mode named twice",
        "`when` lists the modes in which a step runs: Normal, Test, Onboard, OnboardPush.\n\
         Leave it out for all of them. To drop a step, delete it.",
    ),
    (
        COUNTER,
        "a counter that the step cannot feed",
        "counts_as: Push counts for each target, so the step needs `per: Node` or `per: Credd`.\n\
         A `finally` step works for the whole run and feeds no counter.",
    ),
    (
        WRONG_SUBJECT,
        "an action cannot work for this kind of subject",
        "Some actions work for a service, some for an account: see `for_each` at the top of the workflow.",
    ),
    (
        UNREADABLE,
        "the workflow file cannot be read",
        "The message has the system's reason. Look at the path and its permissions.",
    ),
    (
        UNKNOWN_WORKFLOW,
        "no workflow of that name",
        "`mt workflow list` shows those there are. A workflow of your own is a file NAME.ron in\n\
         /etc/managed-tokens/workflows (or $MT_WORKFLOW_DIR). To name a file, write its path: ./NAME.ron",
    ),
    (
        FILE_NAME,
        "the file's name is not the workflow's",
        "A workflow is found by the name of its file, and its runs are kept under the name inside.\n\
         The two must be the same: rename the file or change `name`.",
    ),
    (
        WAIT_DOES_NOT_FIT,
        "waiting for another run takes longer than this run may",
        "overlap: Wait(...) lies inside the deadline. Such a machine would only ever wait.",
    ),
];
