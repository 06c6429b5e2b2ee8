//! Whether incidents can be created, as far as the instance tells without one.

use serde::Deserialize;

use super::{Login, ServiceNow, cut};
use crate::connectors::probe::Finding;
use crate::connectors::wire::Sends;
use crate::model::outcome::{Failure, Outcome};

/// The most roles that are read.
const MAX_ROLES: &str = "500";

/// Roles that may create records as the product is delivered: of every table, of `incident`, of `sn_si_incident`
/// (ServiceNow documentation, "Base system roles" and "Security Incident Response roles"). An instance can change that.
const ANY_TABLE: &[&str] = &["admin"];
const INCIDENT: &[&str] = &["itil", "itil_admin", "sn_incident_write"];
const SECURITY_INCIDENT: &[&str] = &["sn_si.admin", "sn_si.analyst", "sn_si.basic", "sn_si.integration_user"];

impl ServiceNow {
    /// Reads the table, and the roles of the account where the instance shows them. The Table API has no way to ask
    /// whether a record could be created but to create one. Changes nothing.
    pub async fn probe(&self) -> Vec<Finding> {
        let read = self.read_one().await;
        let refused = read.is_err();
        let mut findings = vec![Finding::of("ServiceNow table", read)];
        if !refused {
            findings.push(self.may_write().await);
        }
        findings
    }

    async fn read_one(&self) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct Records {
            #[serde(rename = "result")]
            _result: Vec<serde::de::IgnoredAny>,
        }
        let what = format!("reading table `{}` at {}", self.table, self.host);
        let probe = async {
            let url = self.table_url()?;
            let query = [("sysparm_limit", "1"), ("sysparm_fields", "sys_id")];
            let answer = self.exchange(|http| http.get(url.clone()).query(&query), &what, Sends::Reading).await?;
            self.parse::<Records>(&answer, &what, Sends::Reading).map(drop)
        };
        probe.await.map_err(Outcome::into_failure)?;
        Ok(format!("`{}` at {} can be read", self.table, self.host))
    }

    async fn may_write(&self) -> Finding {
        const ABOUT: &str = "ServiceNow rights";
        const NOT_TRIED: &str = "writing cannot be tried without creating a record";
        let Some(username) = self.username().filter(|name| !name.contains('^')) else {
            return Finding::note(ABOUT, format!("{NOT_TRIED}, and the roles of the client's user are not known"));
        };
        let roles = match self.roles_of(username).await {
            Ok(roles) if !roles.is_empty() => roles,
            Ok(_) => {
                return Finding::note(ABOUT, format!("{NOT_TRIED}, and the instance shows no roles of the account"));
            }
            Err(failure) => {
                let why = cut(&failure.detail, 200);
                return Finding::note(ABOUT, format!("{NOT_TRIED}, and the account's roles could not be read ({why})"));
            }
        };
        let of_table = match self.table.as_str() {
            "incident" => INCIDENT,
            "sn_si_incident" => SECURITY_INCIDENT,
            _ => &[],
        };
        let enough = roles.iter().find(|role| ANY_TABLE.iter().chain(of_table).any(|known| known == role));
        match enough {
            Some(role) => Finding::fine(
                ABOUT,
                format!(
                    "{NOT_TRIED}; the account has the role `{role}`, which may create in `{}` as delivered",
                    self.table
                ),
            ),
            None if of_table.is_empty() => {
                Finding::note(ABOUT, format!("{NOT_TRIED}; which roles may create in `{}` is not known", self.table))
            }
            None => {
                let such = of_table.first().copied().unwrap_or_default();
                let roles: Vec<_> = roles.iter().take(10).map(|role| format!("`{role}`")).collect();
                let detail =
                    format!("{NOT_TRIED}; the account has {}, of which none may as delivered", roles.join(", "));
                Finding::note(ABOUT, detail)
                    .remedy(format!("give the account a role that may create in `{}`, such as `{}`", self.table, such))
            }
        }
    }

    /// The active roles of a user by name. A part of a query that the instance does not understand is ignored there, so
    /// only rows that are told to be this user's count.
    async fn roles_of(&self, username: &str) -> Result<Vec<String>, Failure> {
        #[derive(Deserialize)]
        struct Rows {
            result: Vec<Row>,
        }
        #[derive(Deserialize)]
        struct Row {
            #[serde(rename = "role.name", default)]
            role: String,
            #[serde(rename = "user.user_name", default)]
            user: String,
        }
        let what = format!("reading the account's roles at {}", self.host);
        let asked = async {
            let url = self.url("api/now/table/sys_user_has_role")?;
            let query = [
                ("sysparm_query", format!("user.user_name={username}^state=active")),
                ("sysparm_fields", "role.name,user.user_name".to_owned()),
                ("sysparm_limit", MAX_ROLES.to_owned()),
            ];
            let answer = self.exchange(|http| http.get(url.clone()).query(&query), &what, Sends::Reading).await?;
            self.parse::<Rows>(&answer, &what, Sends::Reading)
        };
        let rows = asked.await.map_err(Outcome::into_failure)?.result;
        let of_user = rows.into_iter().filter(|row| row.user.eq_ignore_ascii_case(username));
        Ok(of_user.map(|row| row.role).filter(|role| is_role(role)).collect())
    }

    fn username(&self) -> Option<&str> {
        match &self.login {
            Login::Basic { username, .. } => Some(username),
            Login::OAuth(oauth) => oauth.user.as_ref().map(|(username, _)| username.as_str()),
        }
    }
}

/// Whether a text can be a role's name, and be printed.
fn is_role(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 100
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
