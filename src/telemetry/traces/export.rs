//! Spans sent to a collector, by the exporters of OpenTelemetry over our HTTP.
//!
//! No tracer provider and no batch processor: spans are made when the session has ended, so there is no queue that could
//! overflow and nothing to wait for when it is dropped.
//!
//! The exporters let `OTEL_*` variables win over what they are told. They only encode here: where it goes, with which
//! headers and for how long is [`Collector`]'s own affair.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, try_join_all};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::export::trace::{SpanData, SpanExporter};
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::Config;
use prost::Message;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url, redirect};

use super::codes;
use crate::config::{Tracing, TracingProtocol};
use crate::http_error::cause;
use crate::redact::{redact, without_login, without_password};
use crate::telemetry::http;
use crate::workflow::code::Code;

/// A collector that takes longer over one request is given up, and the trace with it. Requests go side by side, so this is what
/// a collector costs that cannot be reached or hangs.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// In one request: below a megabyte, which is what a proxy takes at least.
const BATCH: usize = 512;
/// So many requests at once: a collector far away costs its delay once.
const LANES: usize = 4;
/// So much of an answer is shown.
const MOST_WORDS: usize = 200;

/// Why not every span has arrived.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The address cannot be used.
    #[error("cannot send traces to tracing.url {url:?}: {why}")]
    Address {
        /// As configured.
        url: String,
        /// Why.
        why: String,
    },
    /// Nobody is there, or the connection broke.
    #[error("cannot send the trace to {url}: {why}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        why: String,
    },
    /// No answer in time.
    #[error("cannot send the trace to {url}: no answer within {within:?}; {taken} spans were taken before")]
    Slow {
        /// Where.
        url: String,
        /// How long it had.
        within: Duration,
        /// So many had arrived.
        taken: usize,
    },
    /// Not what a collector answers when it has taken them.
    #[error("cannot send the trace to {url}: {answer}")]
    Refused {
        /// Where.
        url: String,
        /// What it said.
        answer: String,
    },
}

impl ExportError {
    /// What `mt explain` knows about it.
    pub fn code(&self) -> Code {
        match self {
            Self::Address { .. } => codes::ADDRESS,
            Self::Unreachable { .. } => codes::UNREACHABLE,
            Self::Slow { .. } => codes::SLOW,
            Self::Refused { .. } => codes::REFUSED,
        }
    }
}

/// What was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Spans.
    pub spans: usize,
    /// Bytes of all requests' bodies.
    pub bytes: usize,
}

/// Sends all spans, or gives up after this time or after a request that took longer than [`ANSWER_WITHIN`].
///
/// # Errors
/// The first thing that went wrong, in words for people; what was sent before it has arrived.
pub async fn send(
    tracing: &Tracing,
    resource: &Resource,
    spans: impl Iterator<Item = Vec<SpanData>> + Send,
    within: Duration,
) -> Result<Sent, ExportError> {
    let collector = Collector::new(tracing)?;
    let (spans, taken) = (Mutex::new(Batches::of(spans)), AtomicUsize::new(0));
    let lane = async |mut exporter: Box<dyn SpanExporter>| {
        loop {
            let batch = spans.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(batch) = batch else { return Ok::<_, Why>(()) };
            let size = batch.len();
            // The collector's own words, where it has some: the exporters' are their names of themselves.
            exporter
                .export(batch)
                .await
                .map_err(|error| collector.failed().unwrap_or(Why::Refused(error.to_string())))?;
            taken.fetch_add(size, Ordering::Relaxed);
        }
    };
    let lanes = (0..LANES).map(|_| collector.exporter(resource)).collect::<Result<Vec<_>, _>>()?;
    let all = try_join_all(lanes.into_iter().map(lane));
    let ended = tokio::time::timeout(within, all).await.unwrap_or(Err(Why::Slow(within)));
    let (spans, url) = (taken.into_inner(), collector.shown);
    match ended {
        Ok(_) => Ok(Sent { spans, bytes: collector.bytes.load(Ordering::Relaxed) }),
        Err(Why::Slow(within)) => Err(ExportError::Slow { url, within, taken: spans }),
        Err(Why::Unreachable(why)) => Err(ExportError::Unreachable { url, why }),
        Err(Why::Refused(answer)) => Err(ExportError::Refused { url, answer }),
    }
}

/// Pieces of [`BATCH`] spans.
struct Batches<I> {
    spans: I,
    rest: Vec<SpanData>,
}

impl<I: Iterator<Item = Vec<SpanData>>> Batches<I> {
    fn of(spans: I) -> Self {
        Self { spans, rest: Vec::new() }
    }

    fn next(&mut self) -> Option<Vec<SpanData>> {
        while self.rest.len() < BATCH {
            match self.spans.next() {
                Some(more) => self.rest.extend(more),
                None => break,
            }
        }
        let after = self.rest.split_off(self.rest.len().min(BATCH));
        let batch = std::mem::replace(&mut self.rest, after);
        (!batch.is_empty()).then_some(batch)
    }
}

/// What went wrong, without the address.
#[derive(Clone, Debug)]
enum Why {
    Slow(Duration),
    Unreachable(String),
    Refused(String),
}

/// The HTTP of both exporters.
#[derive(Clone, Debug)]
struct Collector {
    client: Client,
    url: Url,
    /// The address as people see it.
    shown: String,
    protocol: TracingProtocol,
    bytes: Arc<AtomicUsize>,
    failed: Arc<Mutex<Option<Why>>>,
}

impl Collector {
    fn new(tracing: &Tracing) -> Result<Self, ExportError> {
        let wrong = |why: String| ExportError::Address { url: without_password(&tracing.url), why };
        let url = address(tracing).map_err(wrong)?;
        // What answers with another address is no collector.
        let builder = || Client::builder().redirect(redirect::Policy::none()).timeout(ANSWER_WITHIN);
        let client = http::client(builder, &url).map_err(|error| wrong(cause(&error)))?;
        let shown = without_password(url.as_str());
        Ok(Self { client, url, shown, protocol: tracing.protocol, bytes: Arc::default(), failed: Arc::default() })
    }

    // Deprecated in favour of OTLP, and what sites with an older Jaeger need.
    #[expect(deprecated, reason = "the crate as a whole is: this is the only place that names it")]
    fn exporter(&self, resource: &Resource) -> Result<Box<dyn SpanExporter>, ExportError> {
        let built = match self.protocol {
            TracingProtocol::Jaeger => opentelemetry_jaeger::new_collector_pipeline()
                .with_http_client(self.clone())
                .with_endpoint(self.url.as_str())
                .with_service_name(super::SERVICE)
                .with_trace_config(Config::default().with_resource(resource.clone()))
                .with_instrumentation_library_tags(false)
                .build_collector_exporter::<Tokio>()
                .map(|exporter| Box::new(exporter) as Box<dyn SpanExporter>),
            TracingProtocol::Otlp => opentelemetry_otlp::new_exporter()
                .http()
                .with_http_client(self.clone())
                .with_endpoint(self.url.as_str())
                .build_span_exporter()
                .map(|exporter| Box::new(exporter) as Box<dyn SpanExporter>),
        };
        built.map_err(|error| ExportError::Address { url: self.shown.clone(), why: error.to_string() })
    }

    fn failed(&self) -> Option<Why> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn post(&self, body: Vec<u8>) -> Result<(), Why> {
        let content_type = match self.protocol {
            TracingProtocol::Jaeger => "application/vnd.apache.thrift.binary",
            TracingProtocol::Otlp => PROTOBUF,
        };
        let size = body.len();
        let unreachable = |error: reqwest::Error| match error.is_timeout() {
            true => Why::Slow(ANSWER_WITHIN),
            false => Why::Unreachable(cause(&error)),
        };
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, content_type).body(body);
        let mut answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let kind =
            answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
        // However long it is, no more than its first piece is read.
        let first = answer.chunk().await.map_err(unreachable)?.unwrap_or_default();
        if !status.is_success() {
            return Err(Why::Refused(format!("{status} {}", words(&self.url, &first)).trim().to_owned()));
        }
        taken(&self.url, self.protocol, &kind, &first).map_err(Why::Refused)?;
        self.bytes.fetch_add(size, Ordering::Relaxed);
        Ok(())
    }
}

const PROTOBUF: &str = "application/x-protobuf";

/// Is this what a collector says that has taken everything?
fn taken(url: &Url, protocol: TracingProtocol, kind: &str, answer: &[u8]) -> Result<(), String> {
    let stranger = || Err(format!("what answers there is no collector of this protocol: {}", words(url, answer)));
    match protocol {
        _ if answer.is_empty() => Ok(()),
        // Jaeger says 202 and nothing else.
        TracingProtocol::Jaeger => stranger(),
        TracingProtocol::Otlp if kind.starts_with(PROTOBUF) => match ExportTraceServiceResponse::decode(answer) {
            Ok(ExportTraceServiceResponse { partial_success: Some(partial) }) if partial.rejected_spans > 0 => {
                let why = words(url, partial.error_message.as_bytes());
                Err(format!("{} spans were rejected: {why}", partial.rejected_spans))
            }
            Ok(_) => Ok(()),
            Err(_) => stranger(),
        },
        // Some answer `{}` whatever they were asked in.
        TracingProtocol::Otlp => match serde_json::from_slice::<serde_json::Map<_, _>>(answer) {
            Ok(_) => Ok(()),
            Err(_) => stranger(),
        },
    }
}

/// For what tries hostile answers: why this one is not taken, as people are told.
pub(crate) fn try_answer<'a>(url: &'a Url, answer: &'a [u8]) -> impl Iterator<Item = String> + 'a {
    let kinds = [(TracingProtocol::Jaeger, ""), (TracingProtocol::Otlp, PROTOBUF), (TracingProtocol::Otlp, "")];
    kinds.into_iter().filter_map(move |(protocol, kind)| taken(url, protocol, kind, answer).err())
}

/// The beginning of what the server at this URL answers in one line, redacted.
fn words(url: &Url, answer: &[u8]) -> String {
    let text = without_login(url, &String::from_utf8_lossy(answer));
    let text = redact(&text).split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().filter(|c| !c.is_control()).take(MOST_WORDS).collect()
}

impl HttpClient for Collector {
    // What `async_trait` makes of the trait's `async fn`.
    fn send<'life0, 'async_trait>(
        &'life0 self,
        request: Request<Vec<u8>>,
    ) -> BoxFuture<'async_trait, Result<Response<Bytes>, HttpError>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            match self.post(request.into_body()).await {
                Ok(()) => Ok(Response::new(Bytes::new())),
                Err(why) => {
                    self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
                    Err("not taken".into())
                }
            }
        })
    }
}

/// Where spans go. An address without a path gets that of its protocol.
fn address(tracing: &Tracing) -> Result<Url, String> {
    let mut url = Url::parse(&tracing.url).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("the scheme {} is not http or https", url.scheme()));
    }
    if url.path().trim_matches('/').is_empty() {
        url.set_path(match tracing.protocol {
            TracingProtocol::Jaeger => "/api/traces",
            TracingProtocol::Otlp => "/v1/traces",
        });
    }
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracing(protocol: TracingProtocol, url: &str) -> Tracing {
        Tracing { url: url.to_owned(), protocol }
    }

    #[test]
    fn an_address_without_a_path_gets_that_of_its_protocol() {
        use TracingProtocol::{Jaeger, Otlp};
        for (protocol, url, expected) in [
            (Otlp, "http://c:4318", "http://c:4318/v1/traces"),
            (Otlp, "http://c:4318/", "http://c:4318/v1/traces"),
            (Otlp, "https://c/tenant/v1/traces?x=1#y", "https://c/tenant/v1/traces?x=1"),
            (Jaeger, "http://c:14268", "http://c:14268/api/traces"),
            (
                Jaeger,
                "http://c:14268/api/traces?format=jaeger.thrift",
                "http://c:14268/api/traces?format=jaeger.thrift",
            ),
        ] {
            assert_eq!(address(&tracing(protocol, url)).unwrap().as_str(), expected);
        }
        for url in ["ftp://me:hunter2@c", "c:4318", "nothing"] {
            let error = Collector::new(&tracing(Otlp, url)).unwrap_err();
            assert_eq!(error.code(), codes::ADDRESS);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn only_what_a_collector_says_counts_as_taken() {
        use TracingProtocol::{Jaeger, Otlp};
        let partial = |rejected_spans, message: &str| {
            let partial_success = Some(opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess {
                rejected_spans,
                error_message: message.to_owned(),
            });
            ExportTraceServiceResponse { partial_success }.encode_to_vec()
        };
        let url = Url::parse("https://mt:opaque@c").unwrap();
        let taken = |protocol, kind, answer: &[u8]| taken(&url, protocol, kind, answer);
        let repeats = taken(Jaeger, "", b"mt/opaque").unwrap_err();
        assert!(repeats.ends_with("protocol: mt/[redacted]"), "{repeats}");
        let repeats = taken(Otlp, PROTOBUF, &partial(3, "Basic bXQ6b3BhcXVl")).unwrap_err();
        assert_eq!(repeats, "3 spans were rejected: Basic [redacted]");
        assert_eq!(taken(Jaeger, "", b""), Ok(()));
        assert!(taken(Jaeger, "text/html", b"<html>welcome").unwrap_err().ends_with("protocol: <html>welcome"));
        assert_eq!(taken(Otlp, "", b""), Ok(()));
        assert_eq!(taken(Otlp, "application/json", b"{}"), Ok(()));
        assert_eq!(taken(Otlp, PROTOBUF, &partial(0, "a remark")), Ok(()));
        assert_eq!(taken(Otlp, PROTOBUF, &partial(3, "too\nold")).unwrap_err(), "3 spans were rejected: too old");
        assert!(taken(Otlp, PROTOBUF, b"\xff\xff").is_err());
        assert!(taken(Otlp, "text/html", b"<html>").is_err());
        assert!(taken(Otlp, "application/json", b"\"welcome\"").is_err());
    }

    #[tokio::test]
    async fn what_a_collector_repeats_of_the_password_in_its_address_is_not_told() {
        let (place, server) = http::answers_once(http::refusal("bad login mt/opaque or Basic bXQ6b3BhcXVl")).await;
        let tracing = tracing(TracingProtocol::Jaeger, &format!("http://mt:opaque@{place}"));
        let Why::Refused(why) = Collector::new(&tracing).unwrap().post(b"spans".to_vec()).await.unwrap_err() else {
            panic!("it answers")
        };
        assert_eq!(why, "401 Unauthorized bad login mt/[redacted] or Basic [redacted]");
        assert!(server.await.unwrap().ends_with("spans"));
    }

    /// So many spans that every lane has a request.
    fn spans() -> impl Iterator<Item = Vec<SpanData>> + Send {
        let trace = opentelemetry::trace::TraceId::from(7);
        let mut ids = super::super::ids::SpanIds::of(trace);
        let mut span = move || SpanData {
            span_context: super::super::ids::context(trace, ids.next()),
            parent_span_id: opentelemetry::trace::SpanId::INVALID,
            span_kind: opentelemetry::trace::SpanKind::Internal,
            name: "x".into(),
            start_time: std::time::SystemTime::UNIX_EPOCH,
            end_time: std::time::SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: opentelemetry_sdk::trace::SpanEvents::default(),
            links: opentelemetry_sdk::trace::SpanLinks::default(),
            status: opentelemetry::trace::Status::Unset,
            resource: std::borrow::Cow::Owned(Resource::empty()),
            instrumentation_lib: opentelemetry::InstrumentationLibrary::default(),
        };
        (0..2 * LANES).map(move |_| (0..BATCH).map(|_| span()).collect())
    }

    /// Its clock stands still while anything can go on: what is measured are the limits, not the machine.
    #[tokio::test(start_paused = true)]
    async fn a_collector_that_hangs_costs_two_seconds_however_many_requests_there_are() {
        // It accepts, and says nothing.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        for protocol in [TracingProtocol::Jaeger, TracingProtocol::Otlp] {
            for within in [crate::telemetry::BUDGET, Duration::from_secs(1)] {
                let since = tokio::time::Instant::now();
                let failed = send(&tracing(protocol, &url), &Resource::empty(), spans(), within).await.unwrap_err();
                let limit = within.min(ANSWER_WITHIN);
                let ExportError::Slow { within, taken: 0, .. } = &failed else { panic!("{failed:?}") };
                assert_eq!(*within, limit);
                assert!(since.elapsed() < limit + Duration::from_millis(500), "{:?}", since.elapsed());
            }
        }
    }
}
