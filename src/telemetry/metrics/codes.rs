//! What can go wrong with metrics. None of it changes what a run does or how it exits.

use crate::workflow::code::Code;

/// Nobody answers at the pushgateway's address.
pub const UNREACHABLE: Code = Code(190);
/// The pushgateway takes too long.
pub const SLOW: Code = Code(191);
/// Who answers is no pushgateway, or refuses.
pub const REFUSED: Code = Code(192);
/// `prometheus.host` or `prometheus.jobname` cannot be used.
pub const ADDRESS: Code = Code(193);
/// The samples of earlier runs could not be read or written.
pub const NOT_KEPT: Code = Code(194);
/// The samples could not be written as text: a bug.
pub const NOT_RENDERED: Code = Code(195);

/// What `mt explain` says about the codes above.
pub const EXPLANATIONS: &[(Code, &str, &str)] = &[
    (
        UNREACHABLE,
        "the pushgateway cannot be reached",
        "The metrics of this run were not pushed. The run itself, its exit code and its notifications are not affected.\n\
         What this run has to tell is kept, and goes out with the next push.\n\
         Look at the pushgateway, and at `prometheus.host` in the configuration.",
    ),
    (
        SLOW,
        "the pushgateway does not answer in time",
        "It is given 3 seconds. The run itself is not affected; its metrics go out with the next push.\n\
         It may have taken them all the same: a push replaces what was there, so a repeat does no harm.",
    ),
    (
        REFUSED,
        "the pushgateway did not take the metrics",
        "It answered with an error, or what answers at `prometheus.host` is no pushgateway. The message has its words.\n\
         Prometheus itself, for instance, takes no pushes. The run itself is not affected.",
    ),
    (
        ADDRESS,
        "the pushgateway's address cannot be used",
        "`prometheus.host` must be a URL such as http://pushgateway.example.org:9091, `prometheus.jobname` a name without `/`.\n\
         The run itself is not affected; no metrics are pushed until it is mended.",
    ),
    (
        NOT_KEPT,
        "the metrics of earlier runs cannot be read or written",
        "The store cannot be used, so only this run's own metrics were pushed, beside what the pushgateway already had.\n\
         A run for some services then hides the same metrics of all others, until the next run with a usable store.\n\
         `mt store verify` says what is wrong.",
    ),
    (
        NOT_RENDERED,
        "the metrics could not be written as text",
        "This is a mistake in `mt`: please report it with the log. Nothing was pushed; the run itself is not affected.",
    ),
];
