//! Traces as a collector gets them, read with the published definitions and nothing of ours:
//!
//! - OTLP: the messages of `opentelemetry-proto`, which are generated from
//!   github.com/open-telemetry/opentelemetry-proto (`collector/trace/v1/trace_service.proto`).
//! - Jaeger: `Batch` of github.com/jaegertracing/jaeger-idl (`thrift/jaeger.thrift`) in Thrift's binary protocol, by the
//!   field numbers of that file.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use thrift::protocol::{TBinaryInputProtocol, TInputProtocol, TType};

/// One span, whatever it came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// 32 hexadecimal digits.
    pub trace: String,
    /// 16 hexadecimal digits.
    pub id: String,
    /// All zero for the root.
    pub parent: String,
    pub name: String,
    /// Microseconds since 1970: Jaeger knows no finer ones.
    pub from: i64,
    pub to: i64,
    pub attributes: BTreeMap<String, String>,
    /// The description of its error status.
    pub error: Option<String>,
    /// Trace and span.
    pub links: Vec<(String, String)>,
    /// Of who sent it.
    pub resource: BTreeMap<String, String>,
}

impl Span {
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.get(key).map(String::as_str)
    }

    pub fn is_root(&self) -> bool {
        self.parent.bytes().all(|digit| digit == b'0')
    }
}

/// The spans of an OTLP request.
#[track_caller]
pub fn otlp(body: &[u8]) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body).expect("it is an OTLP request");
    let mut found = Vec::new();
    for group in request.resource_spans {
        let resource = attributes(group.resource.expect("a resource").attributes);
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let status = span.status.unwrap_or_default();
            let hex = |id: &[u8], digits: usize| {
                format!("{:0>digits$}", id.iter().map(|b| format!("{b:02x}")).collect::<String>())
            };
            let link = |link: &opentelemetry_proto::tonic::trace::v1::span::Link| {
                (hex(&link.trace_id, 32), hex(&link.span_id, 16))
            };
            found.push(Span {
                trace: hex(&span.trace_id, 32),
                id: hex(&span.span_id, 16),
                parent: hex(&span.parent_span_id, 16),
                name: span.name,
                from: i64::try_from(span.start_time_unix_nano / 1000).expect("not that late"),
                to: i64::try_from(span.end_time_unix_nano / 1000).expect("not that late"),
                attributes: attributes(span.attributes),
                error: (status.code == StatusCode::Error as i32).then_some(status.message),
                links: span.links.iter().map(link).collect(),
                resource: resource.clone(),
            });
        }
    }
    found
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => panic!("no text and no number: {other:?}"),
    };
    pairs.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

/// The spans of a Jaeger batch.
#[track_caller]
pub fn jaeger(body: &[u8]) -> Vec<Span> {
    let mut rest = body;
    let batch = Thrift::structure(&mut TBinaryInputProtocol::new(&mut rest, true));
    assert!(rest.is_empty(), "{} bytes after the batch", rest.len());
    // Batch: 1 process, 2 spans. Process: 1 serviceName, 2 tags.
    let process = batch.field(1).expect("a process");
    let mut resource = tags(process.field(2));
    resource.insert("service.name".to_owned(), process.field(1).expect("a name").text());
    let spans = batch.field(2).expect("spans").list();
    spans.iter().map(|span| jaeger_span(span, &resource)).collect()
}

/// Span: 1 traceIdLow, 2 traceIdHigh, 3 spanId, 4 parentSpanId, 5 operationName, 6 references, 7 flags, 8 startTime, 9 duration,
/// 10 tags. SpanRef: 1 refType (1 = FOLLOWS_FROM), 2 traceIdLow, 3 traceIdHigh, 4 spanId.
fn jaeger_span(span: &Thrift, resource: &BTreeMap<String, String>) -> Span {
    let number = |of: &Thrift, field| of.field(field).expect("it is required").number();
    let trace = |low, high| format!("{high:016x}{low:016x}");
    let mut attributes = tags(span.field(10));
    let error = attributes.remove("error").map(|error| {
        assert_eq!((error.as_str(), attributes.remove("otel.status_code").as_deref()), ("true", Some("ERROR")));
        attributes.remove("otel.status_description").expect("a description")
    });
    assert_eq!(number(span, 7) & 1, 1, "it is sampled");
    let link = |link: &Thrift| {
        assert_eq!(number(link, 1), 1, "FOLLOWS_FROM");
        (trace(number(link, 2), number(link, 3)), format!("{:016x}", number(link, 4)))
    };
    Span {
        trace: trace(number(span, 1), number(span, 2)),
        id: format!("{:016x}", number(span, 3)),
        parent: format!("{:016x}", number(span, 4)),
        name: span.field(5).expect("a name").text(),
        from: number(span, 8),
        to: number(span, 8) + number(span, 9),
        attributes,
        error,
        links: span.field(6).map(|links| links.list().iter().map(link).collect()).unwrap_or_default(),
        resource: resource.clone(),
    }
}

/// Tag: 1 key, 2 vType (0 string, 2 bool, 3 long), 3 vStr, 5 vBool, 6 vLong.
fn tags(tags: Option<&Thrift>) -> BTreeMap<String, String> {
    let tags = tags.map(Thrift::list).unwrap_or_default();
    let pair = |tag: &Thrift| {
        let value = match tag.field(2).expect("a type").number() {
            0 => tag.field(3).expect("a text").text(),
            2 => (tag.field(5).expect("true or false").number() != 0).to_string(),
            3 => tag.field(6).expect("a number").number().to_string(),
            other => panic!("no text and no number: {other}"),
        };
        (tag.field(1).expect("a key").text(), value)
    };
    tags.iter().map(pair).collect()
}

/// What Thrift's binary protocol holds.
#[derive(Debug)]
enum Thrift {
    Structure(BTreeMap<i16, Thrift>),
    List(Vec<Thrift>),
    Text(Vec<u8>),
    Number(i64),
    Double,
}

impl Thrift {
    fn structure(input: &mut dyn TInputProtocol) -> Self {
        let mut fields = BTreeMap::new();
        input.read_struct_begin().expect("a structure");
        loop {
            let field = input.read_field_begin().expect("a field");
            if field.field_type == TType::Stop {
                break;
            }
            let value = Self::value(input, field.field_type);
            assert!(fields.insert(field.id.expect("its number"), value).is_none(), "a field twice");
            input.read_field_end().expect("its end");
        }
        input.read_struct_end().expect("its end");
        Self::Structure(fields)
    }

    fn value(input: &mut dyn TInputProtocol, kind: TType) -> Self {
        match kind {
            TType::Bool => Self::Number(i64::from(input.read_bool().expect("a boolean"))),
            TType::I32 => Self::Number(i64::from(input.read_i32().expect("a number"))),
            TType::I64 => Self::Number(input.read_i64().expect("a number")),
            TType::String => Self::Text(input.read_bytes().expect("a text")),
            TType::Double => {
                input.read_double().expect("a number");
                Self::Double
            }
            TType::Struct => Self::structure(input),
            TType::List => {
                let list = input.read_list_begin().expect("a list");
                let values = (0..list.size).map(|_| Self::value(input, list.element_type)).collect();
                input.read_list_end().expect("its end");
                Self::List(values)
            }
            other => panic!("jaeger.thrift has no {other:?} here"),
        }
    }

    fn field(&self, number: i16) -> Option<&Self> {
        match self {
            Self::Structure(fields) => fields.get(&number),
            other => panic!("no structure: {other:?}"),
        }
    }

    fn list(&self) -> &[Self] {
        match self {
            Self::List(values) => values,
            other => panic!("no list: {other:?}"),
        }
    }

    fn number(&self) -> i64 {
        match self {
            Self::Number(number) => *number,
            other => panic!("no number: {other:?}"),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Text(bytes) => String::from_utf8(bytes.clone()).expect("UTF-8"),
            other => panic!("no text: {other:?}"),
        }
    }
}

/// The spans are one whole trace: one root, every other one below a span that is there too and within its time. Returns the root.
#[track_caller]
pub fn whole(spans: &[Span]) -> &Span {
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "an id twice");
    let roots: Vec<_> = spans.iter().filter(|span| span.is_root()).collect();
    let [root] = roots[..] else { panic!("{} roots", roots.len()) };
    let mut traces = BTreeSet::new();
    for span in spans {
        traces.insert(&span.trace);
        assert_eq!(span.resource.get("service.name").map(String::as_str), Some("managed-tokens"));
        assert_eq!(span.attribute("run"), root.attribute("run"), "{span:?}");
        if span.is_root() {
            continue;
        }
        let parent = by_id.get(span.parent.as_str()).unwrap_or_else(|| panic!("nobody is above {span:?}"));
        // Jaeger's beginning and duration are cut off to microseconds, each for itself.
        assert!(span.from >= parent.from && span.to <= parent.to + 2, "{span:?} is not within {parent:?}");
    }
    assert_eq!(traces.len(), 1);
    root
}

/// The names from the root down.
pub fn path(spans: &[Span], span: &Span) -> String {
    match spans.iter().find(|above| above.id == span.parent) {
        Some(above) => format!("{} / {}", path(spans, above), span.name),
        None => span.name.clone(),
    }
}

/// The trace as a tree, for people.
pub fn tree(spans: &[Span]) -> String {
    let mut text = String::new();
    let mut roots: Vec<&Span> = spans.iter().filter(|span| span.is_root()).collect();
    branch(spans, &mut roots, 0, &mut text);
    text
}

fn branch(spans: &[Span], level: &mut [&Span], depth: usize, text: &mut String) {
    level.sort_by_key(|span| span.from);
    for span in level {
        let ms = (span.to - span.from) / 1000;
        let line = format!("{}{}", "  ".repeat(depth), span.name);
        let outcome = span.attribute("outcome").unwrap_or_default();
        let error = span.error.as_ref().map(|error| format!("  ERROR {error}")).unwrap_or_default();
        text.push_str(&format!("{line:<34} {ms:>6} ms  {outcome}{error}\n"));
        let mut below: Vec<&Span> = spans.iter().filter(|below| below.parent == span.id).collect();
        branch(spans, &mut below, depth + 1, text);
    }
}
