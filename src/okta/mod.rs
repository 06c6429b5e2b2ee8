//! Speaking to Okta: one client for the System Log and for the objects that playbooks change.
//!
//! A token leaves only for the origin of `org_url`: every URL that came from an answer is checked for it, redirects are
//! not followed, and what stands in a path is percent-encoded, because ids come from events that attackers can shape.

pub mod apps;
pub mod auth;
pub mod bucket;
pub mod budget;
pub mod client;
mod crowd;
pub mod devices;
pub mod error;
pub mod gate;
pub mod governance;
pub mod groups;
pub mod lifecycle;
pub mod logs;
mod meter;
pub mod page;
pub mod path;
pub mod rate;
pub mod rights;
pub mod users;

pub use auth::Auth;
pub use bucket::{Bucket, Priority};
pub use client::{Answer, OktaClient, OktaSettings};
pub use error::{OktaError, OktaErrorKind};
pub use gate::Gate;
pub use path::ApiPath;

#[cfg(test)]
mod day;
#[cfg(test)]
pub(crate) mod testing;
