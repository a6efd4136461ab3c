//! Who is told: from the configuration, the mode and the command line.

use std::collections::{BTreeMap, BTreeSet};

use crate::acting::launch::Notices;
use crate::config::Config;
use crate::notify::{Group, OutboxEntry};
use crate::redact::Secret;
use crate::workflow::definition::Mode;
use crate::workflow::id::Subject;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Addressees {
    /// The sender; `None`: mail is not configured.
    pub from: Option<String>,
    /// Tell nobody, and leave what waits.
    pub off: bool,
    /// `disableNotifications`; a service may have its own switch, an account has none.
    pub disabled: bool,
    usual: Operators,
    test: Operators,
    stakeholders: BTreeMap<Subject, Vec<String>>,
    silent: BTreeSet<Subject>,
}

#[derive(Clone, Debug, Default)]
struct Operators {
    mail: Vec<String>,
    webhook: Option<Secret>,
}

impl Addressees {
    /// Those of a run in this mode.
    pub fn new(config: &Config, notices: &Notices, mode: Mode) -> Self {
        let onboarding = match mode {
            Mode::Onboard | Mode::OnboardPush => true,
            Mode::Normal | Mode::Test => false,
        };
        let operators = |recipients: &crate::config::Recipients| Operators {
            mail: notices.admin.clone().map_or_else(|| recipients.admin_email.clone(), |admin| vec![admin]),
            webhook: recipients.slack_alerts_url.clone(),
        };
        let subject = |service: &crate::config::Service| Subject::new(service.name.as_str());
        let (on, off): (Vec<_>, Vec<_>) = config.services.iter().partition(|service| service.notifications);
        Self {
            from: config.email.as_ref().map(|email| email.from.clone()),
            off: notices.off || onboarding,
            disabled: config.disable_notifications,
            usual: operators(&config.notifications),
            test: operators(&config.notifications_test),
            stakeholders: on.into_iter().map(|service| (subject(service), service.emails.clone())).collect(),
            silent: off.into_iter().map(subject).collect(),
        }
    }

    /// The notifications of this service are off.
    pub fn is_silent(&self, service: &Subject) -> bool {
        self.silent.contains(service)
    }

    /// The addresses of a group; none for Slack, and `None` where nobody is to be told.
    pub fn of(&self, group: &Group, test: bool) -> Option<&[String]> {
        let operators = if test { &self.test } else { &self.usual };
        let addresses = match group {
            Group::Slack => return operators.webhook.as_ref().map(|_| [].as_slice()),
            Group::Admins => &operators.mail,
            Group::Stakeholders(service) => self.stakeholders.get(service)?,
        };
        (!addresses.is_empty()).then_some(addresses.as_slice())
    }

    /// Where Slack's messages go.
    pub fn webhook(&self, test: bool) -> Option<Secret> {
        if test { self.test.webhook.clone() } else { self.usual.webhook.clone() }
    }

    /// A message that waited, to those who are configured now; `None`: nobody is any more.
    pub fn readdressed(&self, entry: &OutboxEntry) -> Option<OutboxEntry> {
        let recipients = self.of(&Group::of_name(&entry.group)?, entry.test)?.to_vec();
        Some(OutboxEntry { recipients, ..entry.clone() })
    }
}
