//! okta-responder polls the Okta System Log outward and answers identity threats from inside your own network.
#![forbid(unsafe_code)]

pub mod app;
pub mod cli;
pub mod config;
pub mod connectors;
pub mod demo;
pub mod engine;
pub mod guard;
pub mod http;
pub mod model;
pub mod okta;
pub mod playbook;
pub mod store;
pub mod telemetry;
