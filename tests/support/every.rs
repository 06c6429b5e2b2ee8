//! One event that calls for one action of every kind.

use okta_responder::demo::org::{Effect, Fault, Misbehaviour, OrgOptions, Service, User, events};

use super::Scene;

/// The steps, and what the org calls the effect of each.
pub const STEPS: [(&str, &str); 7] = [
    ("add", "group.add"),
    ("remove", "group.remove"),
    ("unassign", "app.unassign"),
    ("sessions", "sessions.clear"),
    ("incident", "incident.create"),
    ("slack", "slack.post"),
    ("mail", "mail"),
];

/// Short pauses, and a stream that begins before the events that are pushed before the daemon starts.
pub const FAST: &str = "[poll]\nstart_from = \"1h\"\n[dispatch]\nretry_initial = \"100ms\"\n";

/// A user who is about to be put into one group, taken out of another, and so on.
pub struct Every {
    /// The scene.
    pub scene: Scene,
    /// Him.
    pub user: User,
    /// The group that he is put into.
    pub high: String,
    /// The group that he is taken out of.
    pub old: String,
    /// The app that he loses.
    pub app: String,
}

impl Every {
    /// A playbook with these of the [`STEPS`], none of which waits for another. `more` is added to each step.
    pub async fn new(steps: &[&str], more: &str) -> Self {
        Self::with(FAST, steps, more).await
    }

    /// The same with other settings.
    pub async fn with(settings: &str, steps: &[&str], more: &str) -> Self {
        let scene = Scene::with(OrgOptions::default(), "", "").await;
        let user = scene.org.add_user(User::new("Ann", "Miller"));
        let (high, old) = (scene.org.add_group("High Risk Users"), scene.org.add_group("Contractors"));
        let app = scene.org.add_app("Payroll");
        scene.org.add_member(&old, &user.id);
        scene.org.assign(&app, &user.id);
        let every = Self { scene, user, high, old, app };
        let mut playbook = "[[playbook]]\nname = \"every\"\non = [\"user.session.start\"]\n".to_owned();
        for step in steps {
            playbook += &format!("[[playbook.step]]\nname = \"{step}\"\n{}\n{more}\n", every.action(step));
        }
        every.scene.configure(settings, &playbook);
        every
    }

    fn action(&self, step: &str) -> String {
        let (name, with) = match step {
            "add" => ("okta.group.add_user", "group = \"High Risk Users\"".to_owned()),
            "remove" => ("okta.group.remove_user", "group = \"Contractors\"".to_owned()),
            "unassign" => ("okta.app.unassign_user", format!("app = \"{}\"", self.app)),
            "sessions" => ("okta.user.clear_sessions", String::new()),
            "incident" => {
                ("servicenow.incident.create", "short_description = \"Risk of {{ target.login }}\"".to_owned())
            }
            "slack" => ("slack.message.post", "channel = \"#security\", text = \"{{ user.login }}\"".to_owned()),
            "mail" => {
                ("email.send", "to = \"boss@example.com\", subject = \"s\", text = \"{{ user.login }}\"".to_owned())
            }
            other => panic!("there is no step {other}"),
        };
        format!("action = \"{name}\"\nwith = {{ {with} }}")
    }

    /// The event. It is one that does not set the user's risk in the org, so that nothing else follows from it.
    pub fn push(&self) {
        self.scene.org.push_event(events::sign_in(&self.user, "HIGH"));
    }

    /// The fault that hits the changing request of a step.
    pub fn fault(&self, step: &str, what: Misbehaviour) -> Fault {
        let (service, method, path) = match step {
            "add" => (Service::Okta, "PUT", self.high.as_str()),
            "remove" => (Service::Okta, "DELETE", self.old.as_str()),
            "unassign" => (Service::Okta, "DELETE", self.app.as_str()),
            "sessions" => (Service::Okta, "DELETE", "/sessions"),
            "incident" => (Service::ServiceNow, "POST", "/table/"),
            "slack" => (Service::Slack, "POST", "chat.postMessage"),
            "mail" => (Service::Smtp, "DATA", ""),
            other => panic!("there is no step {other}"),
        };
        Fault::new(service, what).method(method).path(path)
    }

    /// What a step has done.
    pub fn effects(&self, step: &str) -> Vec<Effect> {
        let (_, kind) = STEPS.into_iter().find(|(name, _)| *name == step).unwrap();
        self.scene.org.effects_of(kind)
    }
}
