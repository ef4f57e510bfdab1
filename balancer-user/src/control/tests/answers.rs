//! What each request is answered with, and to whom.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::*;
use crate::control::protocol::{FailbackCommand, FlowsQuery, Stats, TraceQuery, WhyQuery};

/// A user without any rights on most systems.
const NOBODY: u32 = 65534;

/// Status and JSON body of an answer.
fn parts(answer: &str) -> (u16, Value) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {head:?}"));
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[track_caller]
fn assert_refused(answer: &str, status: u16, error: &str) {
    let (found, body) = parts(answer);
    let said = body["error"].as_str().unwrap_or_default();
    assert!(found == status && said.contains(error), "wanted {status} with {error:?}: {answer}");
}

#[tokio::test]
async fn both_documents_arrive_as_they_were_filled_in() {
    let lab = Lab::start();
    assert_eq!(lab.client().get::<Status>().await.unwrap(), example::status());
    assert_eq!(lab.client().get::<Stats>().await.unwrap(), example::stats());
}

#[tokio::test]
async fn flows_arrive_as_they_were_listed_however_many_there_are() {
    let lab = Lab::start();
    let listed = lab.listed(&FlowsQuery::default()).await.unwrap();
    assert_eq!(listed, example::flows());
    // Far more than one piece, and than a socket holds.
    for limit in [0, 1, 100_000] {
        let query = FlowsQuery { limit: Some(limit), ..FlowsQuery::default() };
        let listed = lab.listed(&query).await.unwrap();
        assert_eq!(listed.flows.len() as u64, limit);
        assert!(listed.flows.chunks(2).all(|two| two == &example::flows().flows[..two.len()]));
    }
}

#[tokio::test]
async fn a_listing_that_is_refused_or_misspelt_comes_back_with_its_reason() {
    let lab = Lab::start();
    let query = FlowsQuery { pool: Some("a pool & more".to_owned()), ..FlowsQuery::default() };
    let error = lab.listed(&query).await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Refused(reason) if reason == "there is no pool \"a pool & more\""),
        "{error}"
    );
    let answer = lab.exchange(b"GET /v1/flows?pol=p HTTP/1.1\r\nHost: b\r\n\r\n").await;
    assert_refused(&answer, 400, "\"pol\" is none of pool, backend, client, limit");
    assert_refused(&lab.exchange(&post("/v1/flows", "{}")).await, 405, "/v1/flows is for GET, not for POST");
}

#[tokio::test]
async fn a_command_is_answered_when_it_is_carried_out() {
    let lab = Lab::start();
    let command = FailoverCommand {
        pool: "passwords".to_owned(),
        to: Some("server2".to_owned()),
        force: false,
        reset: false,
        no_wait: false,
    };
    let outcome = lab.client().tell(&command).await.unwrap();
    assert_eq!((outcome.changed, outcome.active.as_deref()), (true, Some("server2")));
    let outcome =
        lab.client().tell(&FailbackCommand { pool: "passwords".to_owned(), no_wait: false }).await.unwrap();
    assert_eq!((outcome.changed, outcome.active.as_deref()), (false, Some("server1")));
}

#[tokio::test]
async fn a_refused_command_comes_back_with_its_reason() {
    let lab = Lab::start();
    let command = FailoverCommand {
        pool: "passwords".to_owned(),
        to: None,
        force: false,
        reset: false,
        no_wait: false,
    };
    let error = lab.client().tell(&command).await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Refused(reason) if reason.starts_with("server2 is down")),
        "{error}"
    );

    let answer = lab.exchange(&post("/v1/failover", r#"{"pool": "passwords"}"#)).await;
    assert_refused(&answer, 409, "server2 is down");
}

#[tokio::test]
async fn an_unknown_path_and_a_wrong_method_are_told_apart() {
    let lab = Lab::start();
    assert_refused(&lab.exchange(b"GET /v2/status HTTP/1.1\r\nHost: b\r\n\r\n").await, 404, "/v2/status");
    let answer = lab.exchange(&post("/v1/status", "{}")).await;
    assert_refused(&answer, 405, "/v1/status is for GET, not for POST");
    assert!(answer.contains("allow: GET\r\n"), "{answer}");
    let answer = lab.exchange(b"GET /v1/failover HTTP/1.1\r\nHost: b\r\n\r\n").await;
    assert_refused(&answer, 405, "/v1/failover is for POST, not for GET");
}

#[tokio::test]
async fn a_body_that_is_no_command_is_refused_with_what_is_wrong() {
    let lab = Lab::start();
    let cases = [
        ("", "EOF"),
        ("pool=passwords", "expected"),
        ("{}", "missing field `pool`"),
        (r#"{"pool": 7}"#, "expected a string"),
        (r#"{"pool": "p", "reste": true}"#, "unknown field `reste`"),
    ];
    for (body, error) in cases {
        assert_refused(&lab.exchange(&post("/v1/failover", body)).await, 400, error);
    }
    let deep = "[".repeat(40_000);
    assert_refused(&lab.exchange(&post("/v1/failback", &deep)).await, 400, "the body is no command");
}

#[tokio::test]
async fn a_daemon_that_is_gone_is_said_to_be_stopping() {
    let lab = Lab::start();
    lab.daemon.abort();
    assert_refused(&lab.exchange(GET_STATUS).await, 503, "the daemon is stopping");
}

#[tokio::test]
async fn a_daemon_that_takes_too_long_is_not_waited_for() {
    let lab = Lab::limited(Limits { carry_out: Duration::from_millis(50), ..Limits::default() });
    assert_refused(&lab.exchange(STUCK).await, 504, "no answer from the daemon within 50ms");
}

/// Runs curl as a user without rights: status and body.
async fn curl_as_nobody(path: &Path, arguments: &[&str]) -> (u16, String) {
    assert!(rustix::process::geteuid().is_root(), "this test changes its user: run it as root");
    let output = tokio::process::Command::new("curl")
        .args(["--silent", "--max-time", "10", "--write-out", "\n%{http_code}", "--unix-socket"])
        .arg(path)
        .args(arguments)
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .output()
        .await
        .expect("curl is needed by this test");
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn another_user_may_look_but_not_change_anything() {
    const STATUS: &str = "http://balancer/v1/status";
    const FAILBACK: &str = "http://balancer/v1/failback";
    const TRACE: &str = "http://balancer/v1/trace";
    let lab = Lab::start();
    fs::set_permissions(lab.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (status, _) = curl_as_nobody(&lab.path, &[STATUS]).await;
    assert_eq!(status, 0, "the socket's mode keeps out who isn't in the group");

    fs::set_permissions(&lab.path, fs::Permissions::from_mode(0o666)).unwrap();
    let (status, body) = curl_as_nobody(&lab.path, &[STATUS]).await;
    assert_eq!((status, serde_json::from_str::<Status>(&body).unwrap()), (200, example::status()));
    let (status, body) = curl_as_nobody(&lab.path, &["--data", r#"{"pool": "passwords"}"#, FAILBACK]).await;
    assert_eq!(status, 403, "{body}");
    assert!(body.contains("uid 65534 may look but not change anything"), "{body}");
    let (status, body) = curl_as_nobody(&lab.path, &[TRACE]).await;
    assert!(status == 403 && body.contains("do this as root"), "{status} {body}");
}

#[tokio::test]
async fn events_and_why_arrive_as_they_were_told() {
    let lab = Lab::start();
    assert_eq!(lab.client().events(&EventsQuery::default()).await.unwrap(), example::events());
    let query = EventsQuery { limit: 1, ..EventsQuery::default() };
    assert_eq!(lab.client().events(&query).await.unwrap().events.len(), 1);
    let why = |pool: &str| WhyQuery { pool: pool.to_owned() };
    assert_eq!(lab.client().why(&why("passwords")).await.unwrap(), example::why());
    let error = lab.client().why(&why("mails")).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(said) if said == "there is no pool \"mails\""), "{error}");
    let answer = lab.exchange(b"GET /v1/why HTTP/1.1\r\nHost: b\r\n\r\n").await;
    assert_refused(&answer, 400, "it names no pool");
    let answer = lab.exchange(b"GET /v1/events?limit=20000 HTTP/1.1\r\nHost: b\r\n\r\n").await;
    assert_refused(&answer, 400, "no number up to 10000");
}

#[tokio::test]
async fn a_follower_hears_the_past_and_then_each_record_until_the_daemon_ends() {
    let lab = Lab::start();
    let client = lab.client();
    let query = EventsQuery { follow: true, ..EventsQuery::default() };
    let mut following = client.follow(&query).await.unwrap();
    for id in 41..43 + MORE {
        let record = timeout(DEADLINE, following.next()).await.expect("a record").unwrap().unwrap();
        assert_eq!(record.id, id);
    }
    // Nothing happens, for longer than an answer may take.
    assert!(timeout(Duration::from_millis(50), following.next()).await.is_err());
    lab.daemon.abort();
    let end = timeout(DEADLINE, following.next()).await.expect("the end").unwrap();
    assert_eq!(end, None);
}

#[tokio::test]
async fn packets_come_one_by_one_until_there_are_no_more() {
    let lab = Lab::start();
    let client = lab.client();
    let mut packets = client.trace(&TraceQuery::default()).await.unwrap();
    for missed in 0..3 {
        let line = timeout(DEADLINE, packets.next()).await.expect("a packet").unwrap().unwrap();
        assert_eq!(line, packet(missed));
    }
    assert_eq!(timeout(DEADLINE, packets.next()).await.expect("the end").unwrap(), None);
    let query = TraceQuery { service: Some("mail".to_owned()), client: None };
    let error = client.trace(&query).await.expect_err("a refusal");
    assert_eq!(error.to_string(), "refused: there is no service \"mail\"");
    let answer = lab.exchange(b"GET /v1/trace?pool=p HTTP/1.1\r\nHost: b\r\n\r\n").await;
    assert_refused(&answer, 400, "\"pool\" is none of client, service");
}

#[tokio::test]
async fn a_follower_is_refused_like_anybody_else() {
    let lab = Lab::start();
    let query = EventsQuery { pool: Some("mails".to_owned()), follow: true, ..EventsQuery::default() };
    let client = lab.client();
    let error = client.follow(&query).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(said) if said == "there is no pool \"mails\""), "{error}");
}
