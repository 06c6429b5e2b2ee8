//! Whether issues can be created, as far as Jira tells without one.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Jira, cut};
use crate::connectors::probe::Finding;
use crate::connectors::wire::Sends;
use crate::model::escape::Escape;
use crate::model::outcome::{Failure, Outcome, Reason};

/// What playbooks ask of one project.
#[derive(Debug, Default)]
pub struct ProjectUse {
    /// The types of issues that they name, as far as they are fixed.
    pub issue_types: BTreeSet<String>,
    /// Where it is named, in words.
    pub places: Vec<String>,
}

impl Jira {
    /// Asks who we are, and of every project by its key whether it is there, has the types of issues that are wanted and
    /// lets us create them. Changes nothing.
    pub async fn probe(&self, projects: &BTreeMap<String, ProjectUse>) -> Vec<Finding> {
        const ABOUT: &str = "Jira account";
        let account = match self.who_we_are().await.map_err(Outcome::into_failure) {
            Ok(name) => Finding::fine(ABOUT, format!("signed in at {} as {name}", self.host)),
            Err(failure) if failure.reason == Reason::NotFound => {
                return vec![Finding::failed(ABOUT, failure).remedy("check `url` and `flavor` in [jira]")];
            }
            Err(failure) => return vec![Finding::failed(ABOUT, failure)],
        };
        let mut findings = vec![account];
        for (key, wanted) in projects {
            let about = format!("Jira project {key}");
            let found = match self.project(key).await {
                Ok(project) => self.may_create(about, key, &project, wanted).await,
                Err(failure) if failure.reason == Reason::NotFound => Finding::failed(
                    about,
                    Failure::new(failure.reason, "there is no such project that this account may see"),
                )
                .remedy("correct the key in the playbook, or give the account the permission to browse the project"),
                Err(failure) => Finding::failed(about, failure),
            };
            findings.push(found.and_says(&format!(", for {}", wanted.places.join("; "))));
        }
        findings
    }

    /// The name of our account. Jira refuses this, other than a search, to nobody in particular.
    pub(super) async fn who_we_are(&self) -> Result<String, Outcome> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Myself {
            display_name: String,
        }
        let what = format!("asking {} who we are", self.host);
        let url = self.api("myself")?;
        let answer = self.exchange(|http| http.get(url.clone()), &what, Sends::Reading).await?;
        let Myself { display_name } = self.parse(&answer, &what, Sends::Reading)?;
        let is_told = !answer.repeats_credential;
        Ok(if is_told { format!("`{}`", cut(&Escape::Line.apply(&display_name), 100)) } else { "a user".to_owned() })
    }

    async fn project(&self, key: &str) -> Result<Project, Failure> {
        let what = format!("reading project {} at {}", cut(key, 64), self.host);
        if !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(Failure::new(Reason::BadParameters, format!("{what}: that is not the key of a project")));
        }
        let read = async {
            let url = self.api(&format!("project/{key}"))?;
            let answer = self.exchange(|http| http.get(url.clone()), &what, Sends::Reading).await?;
            self.parse(&answer, &what, Sends::Reading)
        };
        read.await.map_err(Outcome::into_failure)
    }

    async fn may_create(&self, about: String, key: &str, project: &Project, wanted: &ProjectUse) -> Finding {
        #[derive(Deserialize)]
        struct Granted {
            permissions: BTreeMap<String, Permission>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Permission {
            have_permission: bool,
        }
        const CREATE: &str = "CREATE_ISSUES";
        let what = format!("asking {} what we may do in {key}", self.host);
        let asked = async {
            let url = self.api("mypermissions")?;
            let query = [("permissions", CREATE), ("projectKey", key)];
            let answer = self.exchange(|http| http.get(url.clone()).query(&query), &what, Sends::Reading).await?;
            self.parse::<Granted>(&answer, &what, Sends::Reading)
        };
        let granted = match asked.await.map_err(Outcome::into_failure) {
            Ok(Granted { permissions }) => permissions.get(CREATE).is_some_and(|right| right.have_permission),
            Err(failure) => return Finding::failed(about, failure),
        };
        if !granted {
            let failure = Failure::new(Reason::Forbidden, "this account may not create issues there");
            return Finding::failed(about, failure).remedy("give it the permission \"Create issues\" in the project");
        }
        let names: Vec<_> = project.issue_types.iter().map(|kind| kind.name.as_str()).collect();
        let missing =
            wanted.issue_types.iter().find(|wanted| !names.iter().any(|name| name.eq_ignore_ascii_case(wanted)));
        match missing {
            Some(missing) => {
                let names: Vec<_> = names.iter().take(20).map(|name| format!("`{}`", told(name))).collect();
                let detail = format!("it has no type of issue `{}`", told(missing));
                Finding::failed(about, Failure::new(Reason::NotFound, detail))
                    .remedy(format!("correct `issue_type` in the playbook; there are {}", names.join(", ")))
            }
            None => Finding::fine(about, format!("`{}`: issues can be created", told(&project.name))),
        }
    }
}

fn told(text: &str) -> String {
    cut(&Escape::Line.apply(text), 64)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Project {
    #[serde(default)]
    name: String,
    #[serde(default)]
    issue_types: Vec<IssueType>,
}

#[derive(Debug, Deserialize)]
struct IssueType {
    name: String,
}
