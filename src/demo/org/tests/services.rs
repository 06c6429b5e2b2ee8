use lettre::message::Mailbox;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::*;
use crate::demo::org::{
    Fault, Misbehaviour, SERVICENOW_CLIENT_ID, SERVICENOW_CLIENT_SECRET, SERVICENOW_PASSWORD, SERVICENOW_USER,
    SLACK_TOKEN, Service,
};

impl Fixture {
    fn table(&self, method: Method, rest: &str) -> RequestBuilder {
        let url = format!("{}/api/now/table/{rest}", self.org.servicenow_url());
        self.client.request(method, url).basic_auth(SERVICENOW_USER, Some(SERVICENOW_PASSWORD))
    }

    async fn slack(&self, body: &Value) -> Value {
        self.slack_method("chat.postMessage", body).await
    }

    async fn slack_method(&self, method: &str, body: &Value) -> Value {
        let url = format!("{}/{method}", self.org.slack_api_url());
        let response = self.client.post(url).bearer_auth(SLACK_TOKEN).json(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }
}

#[tokio::test]
async fn an_incident_is_created_found_by_its_key_and_not_unique() {
    let fixture = Fixture::new().await;
    let body = json!({"short_description": "x", "urgency": 1, "impact": 2, "correlation_id": "k", "caller_id": "abc"});
    let created = Answer::of(fixture.table(Method::POST, "incident").json(&body).send().await.unwrap()).await;
    assert_eq!(created.status, 201);
    let record = &created.body["result"];
    assert_eq!((&record["number"], &record["priority"]), (&json!("INC0010001"), &json!("2")));
    assert_eq!(record["caller_id"]["value"], "abc");
    let sys_id = record["sys_id"].as_str().unwrap();
    assert_eq!(sys_id.len(), 32);
    assert!(created.header("location").ends_with(&format!("/api/now/table/incident/{sys_id}")));

    fixture.table(Method::POST, "incident").json(&body).send().await.unwrap();
    let query = "incident?sysparm_query=correlation_id=k%5Eactive=true%5EORDERBYDESCnumber&sysparm_limit=1&sysparm_fields=number,state";
    let found = Answer::of(fixture.table(Method::GET, query).send().await.unwrap()).await;
    assert_eq!(found.body, json!({"result": [{"number": "INC0010002", "state": "1"}]}));
    assert!(fixture.org.close_incident("INC0010002"));
    let found = Answer::of(fixture.table(Method::GET, query).send().await.unwrap()).await;
    assert_eq!(found.body["result"][0]["number"], "INC0010001");

    let note = json!({"work_notes": "seen again"});
    let path = format!("incident/{sys_id}");
    let patched = Answer::of(fixture.table(Method::PATCH, &path).json(&note).send().await.unwrap()).await;
    assert_eq!(patched.body["result"]["work_notes"], "", "a journal is shown to those who ask for display values");
    let shown = format!("{path}?sysparm_display_value=true&sysparm_fields=work_notes");
    let shown = Answer::of(fixture.table(Method::GET, &shown).send().await.unwrap()).await;
    assert_eq!(shown.body["result"]["work_notes"], "seen again");
    let silent = fixture.table(Method::PATCH, &path).json(&json!({"state": "6"})).send().await.unwrap();
    assert_eq!(silent.status(), 403, "a data policy wants code and notes");
    let effects: Vec<_> = fixture.org.effects().into_iter().map(|effect| (effect.kind, effect.key.unwrap())).collect();
    let key = || "k".to_owned();
    assert_eq!(effects, [("incident.create", key()), ("incident.create", key()), ("incident.update", key())]);
    assert_eq!(fixture.org.incidents().len(), 2);
}

#[tokio::test]
async fn servicenow_wants_credentials_and_gives_tokens_for_forms_only() {
    let fixture = Fixture::new().await;
    let table = format!("{}/api/now/table/incident", fixture.org.servicenow_url());
    let refused = Answer::of(fixture.client.get(&table).send().await.unwrap()).await;
    assert_eq!((refused.status, &refused.body["status"]), (401, &json!("failure")));
    assert_eq!(refused.body["error"]["message"], "User Not Authenticated");

    let url = format!("{}/oauth_token.do", fixture.org.servicenow_url());
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", SERVICENOW_CLIENT_ID),
        ("client_secret", SERVICENOW_CLIENT_SECRET),
    ];
    let as_json: std::collections::HashMap<_, _> = form.into_iter().collect();
    assert_eq!(fixture.client.post(&url).json(&as_json).send().await.unwrap().status(), 400);
    let issued = Answer::of(fixture.client.post(&url).form(&form).send().await.unwrap()).await;
    let token = issued.body["access_token"].as_str().unwrap();
    assert_eq!(fixture.client.get(&table).bearer_auth(token).send().await.unwrap().status(), 200);
    let wrong = fixture.client.post(&url).form(&[("grant_type", "client_credentials")]).send().await.unwrap();
    assert_eq!(wrong.status(), 401);
}

#[tokio::test]
async fn a_sleeping_instance_answers_200_with_a_page() {
    let fixture = Fixture::with(OrgOptions { hibernating: true, ..OrgOptions::default() }).await;
    let response = fixture.table(Method::POST, "incident").json(&json!({})).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.text().await.unwrap().contains("Hibernating Instance"));
    assert!(fixture.org.effects().is_empty());
}

#[tokio::test]
async fn slack_tells_of_errors_with_200_and_keeps_what_it_accepts() {
    let options = OrgOptions { slack_channels: vec!["#security".to_owned()], ..OrgOptions::default() };
    let fixture = Fixture::with(options).await;
    let refused = async |body: Value| fixture.slack(&body).await["error"].as_str().unwrap().to_owned();
    assert_eq!(refused(json!({"channel": "#elsewhere", "text": "x"})).await, "channel_not_found");
    assert_eq!(refused(json!({"channel": "#security"})).await, "no_text");
    let url = format!("{}/chat.postMessage", fixture.org.slack_api_url());
    let wrong = fixture.client.post(&url).bearer_auth("xoxb-wrong").json(&json!({})).send().await.unwrap();
    assert_eq!(wrong.json::<Value>().await.unwrap(), json!({"ok": false, "error": "invalid_auth"}));
    assert!(fixture.org.slack_messages().is_empty());

    let metadata = json!({"event_type": "okta_responder", "event_payload": {"key": "k1"}});
    let posted = fixture.slack(&json!({"channel": "#security", "text": "hello", "metadata": metadata})).await;
    assert_eq!((&posted["ok"], posted["ts"].is_string()), (&json!(true), true));
    let webhook = fixture.client.post(fixture.org.slack_webhook_url()).json(&json!({"text": "hi"})).send();
    assert_eq!(webhook.await.unwrap().text().await.unwrap(), "ok");
    let messages = fixture.org.slack_messages();
    assert_eq!((messages[0].text.as_str(), messages[0].metadata.as_ref()), ("hello", Some(&metadata)));
    assert_eq!((messages[1].text.as_str(), messages[1].ts.as_deref()), ("hi", None));
    assert_eq!(fixture.org.effects()[0].key.as_deref(), Some("k1"));
}

#[tokio::test]
async fn slack_knows_its_messages_when_they_are_answered_or_edited() {
    let fixture = Fixture::new().await;
    let error = |answer: Value| answer["error"].as_str().unwrap_or("none").to_owned();
    let post = async |body: Value| fixture.slack(&body).await;
    let first = post(json!({"channel": "#security", "text": "hello"})).await;
    let (ts, channel) = (&first["ts"], &first["channel"]);
    assert_eq!(channel, "C0SIMSECURITY", "an answer names the id");
    let reply = |thread: &Value| json!({"channel": "#security", "text": "more", "thread_ts": thread});
    assert_eq!(error(post(reply(ts)).await), "none");
    assert_eq!(error(post(reply(&json!("1.2"))).await), "thread_not_found");

    let edit = async |body: Value| error(fixture.slack_method("chat.update", &body).await);
    assert_eq!(edit(json!({"channel": channel, "ts": ts, "text": "bye"})).await, "none");
    assert_eq!(edit(json!({"channel": "#security", "ts": ts, "text": "bye"})).await, "channel_not_found");
    assert_eq!(edit(json!({"channel": channel, "ts": "1.2", "text": "bye"})).await, "message_not_found");
    assert_eq!(edit(json!({"channel": channel, "ts": ts, "text": "x".repeat(4001)})).await, "msg_too_long");
    assert_eq!(edit(json!({"channel": channel, "ts": ts})).await, "no_text");
    let messages = fixture.org.slack_messages();
    assert_eq!((messages[0].text.as_str(), &messages[0].edited[..]), ("bye", &["hello".to_owned()][..]));
    assert_eq!(messages[1].thread.as_deref(), ts.as_str());
    assert_eq!(fixture.org.effects_of("slack.update").len(), 1);

    fixture.org.slack_close_edits();
    assert_eq!(edit(json!({"channel": channel, "ts": ts, "text": "again"})).await, "edit_window_closed");
    fixture.org.slack_delete(ts.as_str().unwrap());
    assert_eq!(error(post(reply(ts)).await), "thread_not_found");
}

#[tokio::test]
async fn slack_refuses_a_message_for_any_of_its_blocks() {
    let fixture = Fixture::new().await;
    let with = async |blocks: Value| {
        let body = json!({"channel": "#security", "text": "x", "blocks": blocks});
        fixture.slack(&body).await["error"].as_str().unwrap_or("none").to_owned()
    };
    let section = |text: &str| json!({"type": "section", "text": {"type": "mrkdwn", "text": text}});
    assert_eq!(with(json!([section("x"), {"type": "divider"}])).await, "none");
    for blocks in [json!([section("")]), json!([section(&"x".repeat(3001))]), json!([{"type": "sectoin"}])] {
        assert_eq!(with(blocks).await, "invalid_blocks");
    }
    assert_eq!(with(json!(vec![section("x"); 51])).await, "invalid_blocks");
    assert_eq!(with(json!(vec![section(&"x".repeat(2900)); 5])).await, "msg_blocks_too_long");
}

#[tokio::test]
async fn teams_accepts_signed_cards_of_its_size_with_202_and_nothing_else() {
    let fixture = Fixture::new().await;
    let card = |text: &str| {
        let content = json!({"type": "AdaptiveCard", "version": "1.4", "body": [{"type": "TextBlock", "text": text}]});
        let kind = "application/vnd.microsoft.card.adaptive";
        json!({"type": "message", "attachments": [{"contentType": kind, "content": content}]})
    };
    let post = async |url: String, body: Value| {
        let response = fixture.client.post(url).json(&body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let url = || fixture.org.teams_webhook_url();
    assert_eq!(post(url(), card("hello")).await, (202, String::new()));
    assert_eq!(post(url().replace("sig=", "sig=x"), card("hello")).await.0, 401);
    assert_eq!(post(url(), json!({"text": "hello"})).await.0, 400);
    assert_eq!(post(url(), card(&"x".repeat(28 * 1024))).await.0, 413);
    let effects = fixture.org.effects_of("teams.post");
    assert_eq!((effects.len(), &effects[0].body), (1, &card("hello")));
}

#[tokio::test]
async fn the_mail_server_keeps_envelope_and_unstuffed_message() {
    let fixture = Fixture::new().await;
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", fixture.org.smtp_port())).await.unwrap());
    let conversation = [
        ("", "220"),
        ("EHLO me", "250"),
        ("AUTH PLAIN AGEAYg==", "235"),
        ("RCPT TO:<a@example.com>", "503"),
        ("MAIL FROM:<me@example.com> SIZE=10", "250"),
        ("RCPT TO:<a@example.com>", "250"),
        ("RCPT TO:<b@example.com>", "250"),
        ("DATA", "354"),
        ("Message-ID: <k1@example.com>\r\nSubject: a\r\n b\r\n\r\n..dots\r\nend\r\n.", "250"),
        ("NOOP", "250"),
        ("DATA", "503"),
        ("QUIT", "221"),
    ];
    for (said, expected) in conversation {
        if !said.is_empty() {
            stream.write_all(format!("{said}\r\n").as_bytes()).await.unwrap();
        }
        let mut line = "250-".to_owned();
        while line.get(3..4) == Some("-") {
            line.clear();
            stream.read_line(&mut line).await.unwrap();
        }
        assert!(line.starts_with(expected), "{said}: {line}");
    }
    let mails = fixture.org.mails();
    assert_eq!(mails[0].from, "me@example.com");
    assert_eq!(mails[0].to, ["a@example.com", "b@example.com"]);
    assert!(mails[0].data.ends_with("\r\n\r\n.dots\r\nend\r\n"));
    assert_eq!(mails[0].header("subject").as_deref(), Some("a b"));
    assert_eq!(fixture.org.effects()[0].key.as_deref(), Some("<k1@example.com>"));
}

#[tokio::test]
async fn a_real_client_delivers_and_sees_scripted_refusals() {
    let fixture = Fixture::new().await;
    let transport =
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1").port(fixture.org.smtp_port()).build();
    let mailbox = |text: &str| text.parse::<Mailbox>().unwrap();
    let message = Message::builder()
        .from(mailbox("me@example.com"))
        .to(mailbox("a@example.com"))
        .subject("s")
        .body("hello".to_owned())
        .unwrap();
    transport.send(message.clone()).await.unwrap();
    assert_eq!(fixture.org.mails().len(), 1);

    let refuse = |code, verb: &str| {
        fixture
            .org
            .fault(Fault::new(Service::Smtp, Misbehaviour::status(code, "no")).method(verb).path("a@example.com"));
    };
    refuse(550, "RCPT");
    assert!(transport.send(message.clone()).await.unwrap_err().is_permanent());
    refuse(451, "DATA");
    assert!(transport.send(message.clone()).await.unwrap_err().is_transient());
    assert_eq!(fixture.org.mails().len(), 1, "what was refused is not kept");

    fixture.org.fault(Fault::new(Service::Smtp, Misbehaviour::DropAfter).method("DATA"));
    assert!(transport.send(message).await.is_err());
    assert_eq!(fixture.org.mails().len(), 2, "what was dropped after processing is");
}
