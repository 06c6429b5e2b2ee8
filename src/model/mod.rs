//! Plain data: what an event, a risk, an action and an outcome are. No IO, no clock.

pub mod action;
pub mod escape;
pub mod event;
pub mod ids;
pub mod lenient;
pub mod outcome;
pub mod risk;
pub mod similar;
