//! What was sent to people in this process, for the metrics.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::workflow::id::Subject;

/// Who was sent something, and by which way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// The admins, by mail.
    AdminsByMail,
    /// The admins, by Slack.
    AdminsBySlack,
    /// The stakeholders of a service, by mail.
    Service(Subject),
}

/// One try to send something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// To whom.
    pub to: Recipient,
    /// Was it accepted?
    pub success: bool,
    /// When the try ended.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
}

/// Every try of this process, in order.
#[derive(Debug, Default)]
pub struct Deliveries(Mutex<Vec<Delivery>>);

impl Deliveries {
    /// Notes a try that began at `since` and has just ended.
    pub fn add(&self, to: Recipient, success: bool, since: Instant) {
        let delivery = Delivery { to, success, at: Timestamp::now(), took: since.elapsed() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(delivery);
    }

    /// What was noted so far.
    pub fn all(&self) -> Vec<Delivery> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
