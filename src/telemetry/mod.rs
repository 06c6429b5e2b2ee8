//! What the daemon tells of itself: its log, and what systemd is told.

pub mod log;
pub mod systemd;
