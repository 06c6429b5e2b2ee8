//! The part of `check` that asks the services. It only reads.

mod named;
mod okta;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Sleep;

use crate::app;
use crate::config::load::Loaded;
use crate::config::secret::SecretEnv;
use crate::connectors::Services;
use crate::connectors::probe::{Finding, Grade};
use crate::model::outcome::{Failure, Reason};

/// The time that all questions together are given.
const PATIENCE: Duration = Duration::from_secs(180);

/// One thing that was tried.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// What.
    pub check: String,
    /// Whether the daemon would work as far as this goes.
    pub ok: bool,
    /// How it stands.
    pub state: State,
    /// Whether it failed because nobody answered.
    pub unreachable: bool,
    /// What was found, or what is wrong.
    pub detail: String,
    /// What to do, where the detail does not say it.
    pub remedy: Option<String>,
}

/// How a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// As it has to be.
    Ok,
    /// It cannot be verified without changing something, or it may be a problem.
    Note,
    /// The daemon would not work.
    Failed,
}

impl From<Finding> for Row {
    fn from(finding: Finding) -> Self {
        let unreachable = finding.is_unreachable();
        let state = match finding.grade {
            Grade::Fine => State::Ok,
            Grade::Note => State::Note,
            Grade::Failed(_) => State::Failed,
        };
        let Finding { about, detail, remedy, .. } = finding;
        Self { check: about, ok: state != State::Failed, state, unreachable, detail, remedy }
    }
}

/// Tries everything, tells each row as it comes, and returns them all.
pub(super) async fn check(
    loaded: &Loaded,
    env: &SecretEnv,
    tell: impl FnMut(&Row) -> io::Result<()>,
) -> anyhow::Result<Vec<Row>> {
    let okta = Arc::new(app::okta_client(loaded, env)?);
    let services = Services::new(
        &loaded.config,
        Arc::clone(&okta),
        app::service_secrets(&loaded.config, env)?,
        &app::network(&loaded.config, env)?,
    )?;
    let mut rows = Rows { tell, told: Vec::new(), over: Box::pin(tokio::time::sleep(PATIENCE)) };
    okta::ask(&mut rows, loaded, env, &okta).await?;
    if let Some(servicenow) = &services.servicenow {
        rows.ask("ServiceNow table", servicenow.probe()).await?;
    }
    if let Some(jira) = &services.jira {
        let projects = named::projects(loaded);
        rows.ask("Jira account", jira.probe(&projects)).await?;
    }
    if let Some(pagerduty) = &services.pagerduty {
        rows.ask("PagerDuty", pagerduty.probe()).await?;
    }
    if let Some(slack) = &services.slack {
        let channels = named::channels(loaded);
        rows.ask("Slack token", slack.probe(&channels)).await?;
    }
    if let Some(teams) = &services.teams {
        rows.ask("Teams webhook", teams.probe()).await?;
    }
    if let Some(email) = &services.email {
        rows.ask("mail server", email.probe()).await?;
    }
    if let Some(http) = &services.http {
        rows.ask("services of [http.NAME]", http.probe()).await?;
    }
    Ok(rows.told)
}

/// The rows so far, and the end of our patience.
struct Rows<T> {
    tell: T,
    told: Vec<Row>,
    over: Pin<Box<Sleep>>,
}

impl<T: FnMut(&Row) -> io::Result<()>> Rows<T> {
    /// Asks a question as long as there is time, and tells what came of it.
    async fn ask(&mut self, what: &str, question: impl Future<Output = Vec<Finding>>) -> io::Result<()> {
        for finding in self.hear(question).await.unwrap_or_else(|| vec![late(what)]) {
            self.add(finding)?;
        }
        Ok(())
    }

    /// The answer to a question, unless there is no time left.
    async fn hear<A>(&mut self, question: impl Future<Output = A>) -> Option<A> {
        if self.over.is_elapsed() {
            return None;
        }
        tokio::select! {
            answer = question => Some(answer),
            () = &mut self.over => None,
        }
    }

    fn add(&mut self, finding: Finding) -> io::Result<()> {
        let row = Row::from(finding);
        (self.tell)(&row)?;
        self.told.push(row);
        Ok(())
    }
}

/// A question for which there was no time.
fn late(what: &str) -> Finding {
    let detail = format!("not answered: all questions together are given {} s", PATIENCE.as_secs());
    Finding::failed(what, Failure::new(Reason::Timeout, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn questions_that_are_not_answered_do_not_hold_up_the_check_for_ever() {
        let mut rows = Rows { tell: |_: &Row| Ok(()), told: Vec::new(), over: Box::pin(tokio::time::sleep(PATIENCE)) };
        rows.ask("first", async { vec![Finding::fine("first", "here")] }).await.unwrap();
        rows.ask("second", std::future::pending()).await.unwrap();
        rows.ask("third", async { vec![Finding::fine("third", "here")] }).await.unwrap();
        let states: Vec<_> = rows.told.iter().map(|row| (row.check.as_str(), row.state, row.unreachable)).collect();
        assert_eq!(
            states,
            [("first", State::Ok, false), ("second", State::Failed, true), ("third", State::Failed, true)]
        );
    }
}
