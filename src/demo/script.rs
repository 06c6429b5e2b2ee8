//! Who plays, and which events come with which changes. The changes follow from the playbooks as a reader understands
//! them; the daemon has no say in it.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::org::{App, Org, User, events};
use super::tally::Expected;

/// How late the late event is.
const LATE: SignedDuration = SignedDuration::from_mins(12);

/// The people, groups and apps of the org.
#[derive(Debug)]
pub(super) struct Cast {
    /// Her account is taken over.
    pub(super) ann: User,
    /// At medium risk before the story begins.
    ben: User,
    /// At low risk.
    cleo: User,
    /// At high risk before the story begins; one of his apps comes from a group.
    pub(super) dan: User,
    /// Becomes a risk while ServiceNow is down.
    pub(super) finn: User,
    /// Becomes a risk when the daemon is killed.
    pub(super) gia: User,
    /// The manager of them all.
    mia: User,
    high_group: String,
    payroll: App,
    vault: App,
    source_code: App,
}

/// One event of the story.
#[derive(Debug)]
pub(super) struct Scripted {
    /// What happened, in words.
    pub(super) text: String,
    /// The record.
    pub(super) event: Value,
    /// The changes that it calls for.
    pub(super) expected: Vec<Expected>,
}

impl Cast {
    /// Makes the org what it is when the story begins.
    pub(super) fn enter(org: &Org) -> Self {
        let mia = org.add_user(User::new("Mia", "Stone"));
        // The manager stands in the profile of some, and as a linked object of the others.
        let managed =
            |first, last| org.add_user(User { manager_id: Some(mia.login.clone()), ..User::new(first, last) });
        let cast = Self {
            ann: org.add_user(User { mobile_phone: Some("+1 555 0100".to_owned()), ..User::new("Ann", "Miller") }),
            ben: managed("Ben", "Carter"),
            cleo: managed("Cleo", "Lang"),
            dan: managed("Dan", "Ortiz"),
            finn: managed("Finn", "Walsh"),
            gia: managed("Gia", "Rossi"),
            high_group: org.add_group("High Risk Users"),
            payroll: added_app(org, "Payroll"),
            vault: added_app(org, "Secrets Vault"),
            source_code: added_app(org, "Source Code"),
            mia,
        };
        org.link_manager(&cast.ann.id, &cast.mia.id);
        let medium_group = org.add_group("Medium Risk Users");
        org.add_member(&medium_group, &cast.ben.id);
        org.add_member(&cast.high_group, &cast.dan.id);
        let finance = org.add_group("Finance");
        org.add_member(&finance, &cast.dan.id);
        org.assign_group(&cast.payroll.id, &finance);
        cast
    }

    /// The apps as the example configuration names them, and their ids here.
    pub(super) fn app_ids(&self) -> [(&'static str, &str); 3] {
        [
            ("0oa1payrollEXAMPLE01", &self.payroll.id),
            ("0oa1vaultsEXAMPLE002", &self.vault.id),
            ("0oa1sourceEXAMPLE003", &self.source_code.id),
        ]
    }

    /// The path by which the take-back of Ann's app is asked for.
    pub(super) fn ann_at_payroll(&self) -> String {
        format!("/apps/{}/users/{}", self.payroll.id, self.ann.id)
    }

    /// Whether the user is in quarantine.
    pub(super) fn is_quarantined(&self, org: &Org, user: &User) -> bool {
        org.is_member(&self.high_group, &user.id)
    }

    /// Ann's account is taken over, and whoever has it takes an app at once. Both events come in one page.
    pub(super) fn takeover(&self, org: &Org) -> Vec<Scripted> {
        org.assign(&self.payroll.id, &self.ann.id);
        let expected = vec![
            change("app.unassign", &self.payroll.id, &self.ann.id),
            told(&["High-risk user was given Payroll", "Ann Miller", "was taken back"]),
        ];
        let payroll = Scripted {
            text: "Ann Miller is assigned to Payroll, an app that no high-risk user may have".to_owned(),
            event: events::app_assigned(&self.payroll, &self.ann),
            expected,
        };
        vec![self.risk_rises(&self.ann, events::risk_detected(&self.ann, "LOW", "HIGH")), payroll]
    }

    /// What else goes on in the org, and Ann's next sign-in.
    pub(super) fn busy_minute(&self, org: &Org) -> Vec<Scripted> {
        for (app, user) in [(&self.payroll, &self.ben), (&self.vault, &self.cleo), (&self.source_code, &self.dan)] {
            org.assign(&app.id, &user.id);
        }
        let assigned = |app: &App, user: &User, what: &str, expected: Vec<Expected>| Scripted {
            text: format!("{} {what}", user.display_name()),
            event: events::app_assigned(app, user),
            expected,
        };
        vec![
            Scripted {
                text: "Cleo Lang signs in, at low risk: nothing to see".to_owned(),
                event: events::sign_in(&self.cleo, "LOW"),
                expected: Vec::new(),
            },
            assigned(
                &self.payroll,
                &self.ben,
                "(medium risk) is assigned to Payroll",
                vec![told(&["User of MEDIUM risk was given Payroll", "Ben Carter"])],
            ),
            assigned(&self.vault, &self.cleo, "(low risk) is assigned to Secrets Vault", Vec::new()),
            assigned(
                &self.payroll,
                &self.dan,
                "(high risk) gets Payroll, because the group Finance grants it",
                vec![told(&["High-risk user was given Payroll", "Dan Ortiz", "*not* taken back"])],
            ),
            assigned(
                &self.source_code,
                &self.dan,
                "(high risk) is assigned to Source Code, an app that managers review",
                vec![
                    Expected {
                        kind: "review.start",
                        target: Some(self.dan.id.clone()),
                        words: vec![format!("{} was given Source Code", self.dan.login), self.mia.id.clone()],
                    },
                    told(&["High-risk user was given Source Code", "Dan Ortiz", "under review"]),
                ],
            ),
            Scripted {
                text: "Ann Miller signs in again; Okta rates the sign-in HIGH".to_owned(),
                event: events::sign_in(&self.ann, "HIGH"),
                expected: vec![
                    incident(
                        &format!("High-risk sign-in: {}", self.ann.login),
                        &["+1 555 0100", "203.0.113.24", "New Device"],
                    ),
                    Expected { kind: "sessions.clear", target: Some(self.ann.id.clone()), words: Vec::new() },
                ],
            },
        ]
    }

    /// What is told when Mia has decided that Dan keeps nothing: one app can be taken from him, one comes from a group.
    pub(super) fn decision(&self) -> Vec<Expected> {
        vec![
            told(&["carried out: SUCCESS", "Dan Ortiz"]),
            told(&["carried out: FAILURE", "Dan Ortiz"]),
            told(&["Access review ended", "Dan Ortiz", "Mia Stone"]),
        ]
    }

    /// A risk while ServiceNow is down.
    pub(super) fn rise_of_finn(&self) -> Vec<Scripted> {
        vec![self.risk_rises(&self.finn, events::risk_detected_structured(&self.finn, "LOW", "HIGH"))]
    }

    /// A risk while the daemon is killed.
    pub(super) fn rise_of_gia(&self) -> Vec<Scripted> {
        vec![self.risk_rises(&self.gia, events::risk_detected(&self.gia, "LOW", "HIGH"))]
    }

    /// What undoes the answer to the rise of Gia.
    pub(super) fn all_clear_for_gia(&self) -> Vec<Expected> {
        vec![
            change("group.remove", &self.high_group, &self.gia.id),
            Expected { kind: "incident.update", target: None, words: words(&["was reverted by a person"]) },
        ]
    }

    /// What happens while no daemon runs.
    pub(super) fn meanwhile(&self, org: &Org) -> Vec<Scripted> {
        org.assign(&self.vault.id, &self.ben.id);
        let happened = org.now().checked_sub(LATE).unwrap_or(Timestamp::UNIX_EPOCH);
        vec![
            Scripted {
                text: "the risk of Finn Walsh falls, HIGH to LOW".to_owned(),
                event: events::risk_detected(&self.finn, "HIGH", "LOW"),
                expected: vec![
                    change("group.remove", &self.high_group, &self.finn.id),
                    told(&["User risk LOW", "Finn Walsh"]),
                ],
            },
            Scripted {
                text: "twelve minutes late: Ben Carter (medium risk) was assigned to Secrets Vault".to_owned(),
                event: events::published_at(events::app_assigned(&self.vault, &self.ben), happened),
                expected: vec![told(&["User of MEDIUM risk was given Secrets Vault", "Ben Carter"])],
            },
        ]
    }

    fn risk_rises(&self, user: &User, event: Value) -> Scripted {
        let name = user.display_name();
        Scripted {
            text: format!("Okta raises the risk of {name}, LOW to HIGH"),
            event,
            expected: vec![
                change("group.add", &self.high_group, &user.id),
                incident(&format!("User risk HIGH: {}", user.login), &[&name]),
                Expected {
                    kind: "mail",
                    target: Some(self.mia.email.clone()),
                    words: vec![format!("Subject: Sign-ins of {name} are restricted")],
                },
                told(&["User risk HIGH", &name, "Incident: "]),
            ],
        }
    }
}

fn added_app(org: &Org, label: &str) -> App {
    App { id: org.add_app(label), label: label.to_owned() }
}

fn change(kind: &'static str, of: &str, user: &str) -> Expected {
    Expected { kind, target: Some(format!("{of}/{user}")), words: Vec::new() }
}

fn incident(title: &str, details: &[&str]) -> Expected {
    Expected { kind: "incident.create", target: None, words: words(&[&[title], details].concat()) }
}

fn told(text: &[&str]) -> Expected {
    Expected { kind: "slack.post", target: Some("#security".to_owned()), words: words(text) }
}

fn words(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}
