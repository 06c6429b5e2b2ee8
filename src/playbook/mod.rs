//! Playbooks: what the operator wants done about which event. Pure: no IO, no clock.

pub mod condition;
pub mod facts;
pub mod template;

use thiserror::Error;

pub use condition::{Condition, ConditionError};
pub use facts::{Fact, FactSet, FactValue, Facts, LinkBase, StepView};
pub use template::{ParamTemplates, Template, TemplateError};

/// A condition or template that the operator has to change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}; {remedy}")]
pub struct CompileError {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

impl CompileError {
    fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }

    fn unknown_name(name: &str) -> Self {
        let message = format!("nothing is called `{}`", facts::cut(name, 100));
        Self::new(message, format!("use one of {}", Facts::names_for_people()))
    }
}
