//! How long an answer takes: from the last byte of a page that holds a risk event to the first byte of the request that
//! puts the user into the quarantine group, of the real binary.
//!
//! Between the two lie three durable commits: the page with its cursor, the decision, the claim of the action. The same
//! run measures bare durable commits on the same disk; the aim is four of them and 5 ms. A proxy between daemon and org
//! notes the moments, so the org's own time does not count. `EVENTS` sets how many are measured.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench reads the real clock, prints its figures, and may fail"
)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use okta_responder::demo::org::{OrgOptions, User, events};
use support::daemon::{BOUND, Scene};
use support::{ms, quantile};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Without limits, which would hold back a long run.
const QUARANTINE: &str = r#"
[guard.limits]
overall = "unlimited"
per_playbook = "unlimited"
[[playbook]]
name = "user-risk-changed"
on = ["user.risk.detect"]

  [[playbook.step]]
  name = "quarantine"
  when = 'risk.level == "HIGH"'
  action = "okta.group.add_user"
  with = { group = "High Risk Users" }
"#;

/// Answers before the first that counts: the group's id is looked up, connections are made.
const WARM_UP: u64 = 3;

/// Beyond four bare commits, what reading the page, deciding and sending may take.
const AIM: Duration = Duration::from_millis(5);

fn main() {
    let count = support::setting("EVENTS", 60);
    let runtime = support::runtime();
    let answers = runtime.block_on(answers(count));
    let directory = tempfile::tempdir().unwrap();
    let commits = commits(&directory.path().join("bare.db"), 200);

    let (commit, answer) = (quantile(&commits, 0.5), quantile(&answers, 0.5));
    let aim = commit * 4 + AIM;
    let ratio = (answer.as_secs_f64() / commit.as_secs_f64() * 100.0).round() / 100.0;
    support::table(
        &format!("From page received to request leaving, {} events", answers.len()),
        &[
            ("median, ms", ms(answer).to_string()),
            ("95th percentile, ms", ms(quantile(&answers, 0.95)).to_string()),
            ("bare durable commit, median, ms", ms(commit).to_string()),
            ("bare durable commit, 95th percentile, ms", ms(quantile(&commits, 0.95)).to_string()),
            ("median answer, in bare commits", ratio.to_string()),
            ("aim for the median: four bare commits and 5 ms", ms(aim).to_string()),
        ],
    );
    let line = serde_json::json!({
        "bench": "latency", "events": answers.len(), "median_ms": ms(answer), "p95_ms": ms(quantile(&answers, 0.95)),
        "bare_commit_median_ms": ms(commit), "bare_commit_p95_ms": ms(quantile(&commits, 0.95)), "ratio": ratio,
        "aim_ms": ms(aim),
    });
    println!("{line}");
}

async fn answers(count: u64) -> Vec<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let options = OrgOptions { next_origin: Some(proxy.clone()), ..OrgOptions::default() };
    let scene = Scene::with(options, "", QUARANTINE).await;
    let config = std::fs::read_to_string(scene.config()).unwrap();
    std::fs::write(scene.config(), config.replace(&scene.org.okta_url(), &proxy)).unwrap();
    let group = scene.org.add_group("High Risk Users");
    let moments = Arc::new(Mutex::new(Moments::default()));
    let upstream = scene.org.okta_url().trim_start_matches("http://").to_owned();
    tokio::spawn(forward_all(listener, upstream, Arc::clone(&moments)));

    let daemon = scene.daemon();
    daemon.wait_for_log("ready");
    let mut answers = Vec::new();
    for number in 0..count + WARM_UP {
        let user = scene.org.add_user(User::new("Ann", &format!("Miller{number}")));
        scene.org.push_event(events::risk_detected(&user, "LOW", "HIGH"));
        let added = scene.org.wait_for(|org| org.is_member(&group, &user.id), BOUND).await;
        assert!(added.is_ok(), "{}", daemon.log());
        let answer = moments.lock().unwrap().answer.take().unwrap();
        if number >= WARM_UP {
            answers.push(answer);
        }
    }
    assert!(daemon.stop().success());
    answers
}

/// When the last page went to the daemon, and how long after it the last change came back.
#[derive(Default)]
struct Moments {
    page: Option<Instant>,
    answer: Option<Duration>,
}

async fn forward_all(listener: TcpListener, upstream: String, moments: Arc<Mutex<Moments>>) {
    while let Ok((client, _)) = listener.accept().await {
        let server = TcpStream::connect(&upstream).await.unwrap();
        tokio::spawn(forward(client, server, Arc::clone(&moments)));
    }
}

/// Passes bytes on, both ways. A connection carries one request after another, so an answer belongs to the last one.
async fn forward(mut client: TcpStream, mut server: TcpStream, moments: Arc<Mutex<Moments>>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut request, mut answer) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut reads_log = false;
    loop {
        tokio::select! {
            length = client.read(&mut request) => {
                let bytes = &request[..length?];
                if bytes.is_empty() {
                    return Ok(());
                }
                reads_log = bytes.starts_with(b"GET /api/v1/logs");
                if bytes.starts_with(b"PUT ") {
                    let mut moments = moments.lock().unwrap();
                    moments.answer = moments.page.map(|page| page.elapsed());
                }
                server.write_all(bytes).await?;
            }
            length = server.read(&mut answer) => {
                let bytes = &answer[..length?];
                if bytes.is_empty() {
                    return Ok(());
                }
                client.write_all(bytes).await?;
                if reads_log {
                    moments.lock().unwrap().page = Some(Instant::now());
                }
            }
        }
    }
}

/// The time of one small durable transaction, again and again.
fn commits(path: &std::path::Path, count: usize) -> Vec<Duration> {
    let connection = support::bare_sqlite(path);
    connection.execute_batch("CREATE TABLE small (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;").unwrap();
    let one = || {
        let began = Instant::now();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        connection.prepare_cached("INSERT INTO small (text) VALUES ('some words')").unwrap().execute([]).unwrap();
        connection.execute_batch("COMMIT").unwrap();
        began.elapsed()
    };
    std::iter::repeat_with(one).take(count).collect()
}
