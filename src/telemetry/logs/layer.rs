//! What is said by `tracing`, made into lines with all that the spans around it know.

use std::fmt::Debug;

use jiff::Timestamp;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::line::{About, Line};

/// Our own crate and program.
const OURS: [&str; 2] = ["managed_tokens", "mt"];

/// Hands every event to `sink`.
pub(super) struct Lines<S> {
    sink: S,
}

impl<S: Fn(Line)> Lines<S> {
    pub fn new(sink: S) -> Self {
        Self { sink }
    }
}

/// Everything of ours; of libraries only what is wrong.
pub(super) fn filter() -> Targets {
    Targets::new().with_default(LevelFilter::WARN).with_targets(OURS.map(|ours| (ours, LevelFilter::DEBUG)))
}

impl<C, S> Layer<C> for Lines<S>
where
    C: Subscriber + for<'a> LookupSpan<'a>,
    S: Fn(Line) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, C>) {
        let Some(span) = context.span(id) else { return };
        let mut said = Said::default();
        attributes.record(&mut said);
        span.extensions_mut().insert(said.about);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, C>) {
        let at = Timestamp::now();
        let mut said = Said::default();
        event.record(&mut said);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(about) = span.extensions().get::<About>() {
                said.about.fill_from(about);
            }
        }
        let library = event.metadata().target();
        let ours = OURS.iter().any(|ours| library.split("::").next() == Some(ours));
        (self.sink)(Line {
            at,
            level: *event.metadata().level(),
            library: (!ours).then_some(library),
            about: said.about,
            message: said.message,
            fields: said.fields,
        });
    }
}

/// What an event or a span says.
#[derive(Default)]
struct Said {
    about: About,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Said {
    fn text(&mut self, field: &Field, text: String) {
        match self.about.place(field.name()) {
            // The target of a step that does not fan out has no name.
            Some(place) => *place = (text != "-").then_some(text),
            None if field.name() == "message" => self.message = text,
            None => self.fields.push((field.name(), text.into())),
        }
    }

    fn value(&mut self, field: &Field, value: Value) {
        self.fields.push((field.name(), value));
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.value(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::instrument::WithSubscriber;
    use tracing::{Instrument, debug, info, info_span};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn collect() -> (impl Subscriber + Send + Sync, Arc<Mutex<Vec<Line>>>) {
        let lines: Arc<Mutex<Vec<Line>>> = Arc::default();
        let taken = lines.clone();
        let layer = Lines::new(move |line| taken.lock().unwrap().push(line)).with_filter(filter());
        (tracing_subscriber::registry().with(layer), lines)
    }

    #[tokio::test]
    async fn what_an_action_says_carries_the_service_step_and_target_around_it() {
        let (subscriber, lines) = collect();
        async {
            let step = info_span!("step", service = "dune_production", step = "push");
            let target = info_span!(parent: &step, "target", target = "node1", service = None::<&str>);
            async { debug!(target: "managed_tokens::steps", target = "node2", tries = 2, "said") }
                .instrument(target)
                .await;
        }
        .with_subscriber(subscriber)
        .await;
        let lines = lines.lock().unwrap();
        let about = &lines[0].about;
        assert_eq!(about.service.as_deref(), Some("dune_production"));
        assert_eq!(about.step.as_deref(), Some("push"));
        assert_eq!(about.target.as_deref(), Some("node2"), "what the line itself says wins");
        assert_eq!((lines[0].message.as_str(), lines[0].fields.len()), ("said", 1));
    }

    #[tokio::test]
    async fn libraries_are_heard_only_when_something_is_wrong() {
        let (subscriber, lines) = collect();
        async {
            info!(target: "hyper::client", "chatter");
            tracing::warn!(target: "hyper::client", "trouble");
            debug!(target: "mt", "ours");
        }
        .with_subscriber(subscriber)
        .await;
        let found: Vec<_> = lines.lock().unwrap().iter().map(|l| (l.library, l.message.clone())).collect();
        assert_eq!(found, [(Some("hyper::client"), "trouble".to_owned()), (None, "ours".to_owned())]);
    }
}
