//! What the tests of the client and of its connectors share.

use std::time::Duration;

use mockito::{Mock, ServerGuard};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use url::Url;

use super::{Auth, OktaClient, OktaSettings};
use crate::http::Network;

/// Must stand in no error, log or `Debug`.
pub(crate) const TOKEN: &str = "00secretTokenOfTheTests";

pub(crate) const USER: &str = "00u1234567890abcdefg";
pub(crate) const GROUP: &str = "00g1234567890abcdefg";
pub(crate) const APP: &str = "0oa1234567890abcdefg";

/// A client of a server on this machine.
pub(crate) fn client(url: &str) -> OktaClient {
    client_within(url, Duration::from_secs(5))
}

/// The same with a bound on one request.
pub(crate) fn client_within(url: &str, timeout: Duration) -> OktaClient {
    let settings = OktaSettings {
        org_url: Url::parse(url).unwrap(),
        admin_url: Url::parse("https://example-admin.okta.com").unwrap(),
        timeout,
        network: Network::default(),
    };
    OktaClient::new(&settings, Auth::ssws(&SecretString::from(TOKEN)).unwrap()).unwrap()
}

/// An error body as Okta writes it.
pub(crate) fn error_body(code: &str, summary: &str) -> String {
    json!({"errorCode": code, "errorSummary": summary, "errorLink": code, "errorId": "oae1", "errorCauses": []})
        .to_string()
}

/// A mock of one request that answers JSON, as often as it is asked and until another mock of the same request replaces it.
pub(crate) async fn answers(server: &mut ServerGuard, method: &str, path: &str, status: usize, body: &Value) -> Mock {
    let mock = server.mock(method, path).match_query(mockito::Matcher::Any).with_status(status);
    mock.with_header("content-type", "application/json")
        .with_body(body.to_string())
        .expect_at_least(0)
        .create_async()
        .await
}

/// A server that reads each request, writes these bytes and breaks the connection.
pub(crate) async fn writes_and_hangs_up(answer: &'static [u8]) -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            // The client may have gone already.
            let _ = stream.write_all(answer).await;
        }
    });
    (url, task)
}

/// A group as Okta writes it.
pub(crate) fn group(id: &str, name: &str, kind: &str) -> Value {
    json!({"id": id, "type": kind, "profile": {"name": name, "description": null}})
}
