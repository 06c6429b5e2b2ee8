//! The simulated world, asked over its sockets as the daemon asks it.

mod faults;
mod governance;
mod jira;
mod oauth;
mod okta;
mod possession;
mod services;
mod signing;
mod system_log;

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;

use super::{Org, OrgOptions, User};

/// Longer than anything here takes; only a broken test waits that long.
const BOUND: Duration = Duration::from_secs(10);

/// A world and a client with the token.
struct Fixture {
    org: Org,
    client: Client,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(OrgOptions::default()).await
    }

    async fn with(options: OrgOptions) -> Self {
        let client = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        Self { org: Org::start(options).await.unwrap(), client }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request_to(method, &format!("{}{path}", self.org.okta_url()))
    }

    fn request_to(&self, method: Method, url: &str) -> RequestBuilder {
        self.client.request(method, url).header("authorization", format!("SSWS {}", self.org.token()))
    }

    async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path).send().await.unwrap()).await
    }

    async fn get_url(&self, url: &str) -> Answer {
        Answer::of(self.request_to(Method::GET, url).send().await.unwrap()).await
    }

    async fn put(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::PUT, path).send().await.unwrap()).await
    }

    async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path).send().await.unwrap()).await
    }

    fn ada(&self) -> User {
        self.org.add_user(User::new("Ada", "Lovelace"))
    }
}

/// An answer that was read to its end.
struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Value,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        Self { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
    }

    fn link(&self, relation: &str) -> Option<String> {
        let suffix = format!(">; rel=\"{relation}\"");
        self.headers.get_all("link").iter().find_map(|line| {
            let url = line.to_str().unwrap().strip_suffix(&suffix)?;
            Some(url.trim_start_matches('<').to_owned())
        })
    }

    fn next(&self) -> String {
        self.link("next").expect("a link to the next page")
    }

    fn error(&self) -> (u16, &str) {
        (self.status, self.body["errorCode"].as_str().unwrap_or_default())
    }

    fn uuids(&self) -> Vec<String> {
        let events = self.body.as_array().expect("a list of events");
        events.iter().map(|event| event["uuid"].as_str().unwrap().to_owned()).collect()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header {name}")).to_str().unwrap()
    }
}
