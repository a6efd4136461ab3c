//! The configuration file: found, loaded from JSON, YAML or RON, and resolved into one [`Service`] per experiment and role.

pub mod service;

pub use service::{AccountName, CreddName, ExperimentName, IssuerService, NodeName, RoleName, Service, ServiceName};
