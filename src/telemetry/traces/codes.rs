//! The codes of this module's messages.

use crate::workflow::code::Code;

/// `tracing.url` cannot be used.
pub const ADDRESS: Code = Code(240);
/// Nobody is there.
pub const UNREACHABLE: Code = Code(241);
/// No answer in time.
pub const SLOW: Code = Code(242);
/// What answers does not take the spans.
pub const REFUSED: Code = Code(243);

/// For `mt explain`.
pub const EXPLANATIONS: &[(Code, &str, &str)] = &[
    (
        ADDRESS,
        "the address for traces cannot be used",
        "`tracing.url` of the configuration must be an http or https address, such as https://jaeger:14268/api/traces\n\
         or https://collector:4318/v1/traces. The work is done all the same; this session has no trace.",
    ),
    (
        UNREACHABLE,
        "the trace collector cannot be reached",
        "Nobody answers at `tracing.url`, or the connection broke; the message says why. The work is done all the same, and\n\
         `mt runs show` knows what was done. The trace of this session is lost or not whole.\n\
         Try  curl -i URL  from this host.",
    ),
    (
        SLOW,
        "the trace collector takes too long",
        "It has 2 s for each request and 5 s for all (2 s after a signal), so that nobody waits for it. The message says how\n\
         many spans it took. The work is done all the same; the trace of this session is not whole.\n\
         See to the collector, or to the network on the way to it.",
    ),
    (
        REFUSED,
        "the trace collector did not take the spans",
        "Something answers at `tracing.url`, and not as a collector of this protocol does that has taken everything. The\n\
         message has its words. Usually path or protocol are wrong: Jaeger takes Thrift at /api/traces, OTLP over HTTP\n\
         goes to /v1/traces. `mt config show` says which one was chosen; `tracing.protocol` says it outright.\n\
         The work is done all the same; the trace of this session is lost or not whole.",
    ),
];
