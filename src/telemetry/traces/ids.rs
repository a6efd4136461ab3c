//! The ids of traces and spans.
//!
//! All span ids follow from the trace id, so that a later session can name the first span of this one although the store
//! keeps the trace id alone.

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// A new id, as the store keeps it: 32 hexadecimal digits, not all zero.
pub fn new_trace_id() -> String {
    TraceId::from(rand::random::<u128>().max(1)).to_string()
}

/// The id behind the text; `None` for what is none.
pub(super) fn trace_id(text: &str) -> Option<TraceId> {
    TraceId::from_hex(text).ok().filter(|id| *id != TraceId::INVALID)
}

/// The span ids of a trace, in order; the first is the root's.
#[derive(Clone, Debug)]
pub(super) struct SpanIds {
    seed: u64,
    given: u64,
}

impl SpanIds {
    pub fn of(trace: TraceId) -> Self {
        let [.., a, b, c, d, e, f, g, h] = trace.to_bytes();
        Self { seed: u64::from_be_bytes([a, b, c, d, e, f, g, h]), given: 0 }
    }

    pub fn next(&mut self) -> SpanId {
        loop {
            let id = scatter(self.seed.wrapping_add(self.given));
            self.given += 1;
            // All zero is no id.
            if id != 0 {
                return SpanId::from(id);
            }
        }
    }
}

/// The root of a trace.
pub(super) fn root(trace: TraceId) -> SpanContext {
    context(trace, SpanIds::of(trace).next())
}

pub(super) fn context(trace: TraceId, span: SpanId) -> SpanContext {
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::default())
}

/// The last steps of splitmix64: no two numbers become the same one, and neighbours become strangers.
fn scatter(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_trace_id_is_a_w3c_trace_id() {
        let id = new_trace_id();
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{id}");
        assert_eq!(trace_id(&id).unwrap().to_string(), id);
        assert_ne!(id, new_trace_id());
        for none in ["", "nothing", &"0".repeat(32)] {
            assert_eq!(trace_id(none), None, "{none}");
        }
    }

    #[test]
    fn the_spans_of_a_trace_have_ids_of_their_own_and_the_first_is_known_from_the_trace_alone() {
        // One of these numbers becomes zero, which is no id.
        for trace in [1, u128::MAX, u128::from(u64::MAX) - 500] {
            let mut ids = SpanIds::of(TraceId::from(trace));
            let found: Vec<_> = (0..20_000).map(|_| ids.next()).collect();
            assert_eq!(root(TraceId::from(trace)).span_id(), found[0]);
            let unlike: BTreeSet<_> = found.iter().map(ToString::to_string).collect();
            assert_eq!(unlike.len(), found.len());
            assert!(!found.contains(&SpanId::INVALID));
        }
    }
}
