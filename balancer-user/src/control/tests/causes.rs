//! What the client makes of a socket without a daemon, and of answers that no daemon of this version gives.

use tokio::net::UnixListener;

use super::*;

/// What the client says when `answer` is all that comes.
async fn after(answer: &str) -> ClientError {
    asking(answer, async |client| client.get::<Status>().await.unwrap_err()).await
}

/// What comes of asking a daemon that answers so, whatever it is asked.
async fn asking<T>(answer: &str, ask: impl AsyncFnOnce(Client) -> T) -> T {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let answer = answer.to_owned();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let _length = stream.read(&mut request).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    timeout(DEADLINE, ask(Client::new(&path))).await.unwrap()
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn no_socket_and_a_stale_one_both_mean_no_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    for what in ["missing", "stale"] {
        let error = Client::new(&path).get::<Status>().await.unwrap_err();
        assert!(matches!(error, ClientError::NoDaemon { .. }), "{what}: {error}");
        assert!(error.to_string().contains("start it with `balancer run`"), "{error}");
        drop(UnixListener::bind(&path));
    }
}

#[tokio::test]
async fn another_schema_is_a_matter_of_versions() {
    let error = after(&ok(r#"{"schema": "balancer.status/2", "pools": {}}"#)).await;
    let said = error.to_string();
    assert!(said.contains(r#"speaks "balancer.status/2" instead of balancer.status/1"#), "{said}");

    let error = after(&ok(r#"{"schema": "balancer.status/1", "as_of": "2026-01-02T03:04:05.678Z"}"#)).await;
    assert!(error.to_string().contains("missing field `attachments`"), "{error}");
}

#[tokio::test]
async fn a_listing_that_is_none_or_breaks_off_is_told_as_any_answer() {
    let after = async |answer: &str| {
        let ask = async |client: Client| listed(&client, &FlowsQuery::default()).await;
        asking(answer, ask).await.unwrap_err()
    };
    let error = after(&ok(r#"{"schema": "balancer.flows/2", "flows": {}}"#)).await;
    let said = error.to_string();
    assert!(
        said.contains(r#"the daemon speaks "balancer.flows/2" instead of balancer.flows/1, this"#),
        "{said}"
    );
    let error = after(&ok(r#"{"schema": "balancer.flows/1", "flows": []}"#)).await;
    let said = error.to_string();
    assert!(said.contains("fills in balancer.flows/1 differently (missing field `as_of`"), "{said}");
    let error = after(&ok("<html>")).await;
    assert!(error.to_string().contains("not JSON that this version can read"), "{error}");
    let whole = ok(example::FLOWS);
    let error = after(&whole[..whole.len() - 10]).await;
    assert!(error.to_string().contains("broke off before it had answered"), "{error}");
}

#[tokio::test]
async fn a_path_that_the_daemon_does_not_know_is_a_matter_of_versions() {
    let error = after("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
    assert!(error.to_string().contains("the daemon does not know /v1/status"), "{error}");
}

#[tokio::test]
async fn something_else_that_answers_is_no_daemon_of_ours() {
    for answer in ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"] {
        let error = after(answer).await;
        assert!(matches!(error, ClientError::Broken { .. }), "{answer:?}: {error}");
    }
    let error = after(&ok("<html>")).await;
    assert!(error.to_string().contains("not JSON that this version can read"), "{error}");
}

#[tokio::test]
async fn forbidden_is_a_matter_of_permission() {
    let error = after("HTTP/1.1 403 Forbidden\r\nContent-Length: 17\r\n\r\n{\"error\": \"uid\"} ").await;
    assert_eq!(error.to_string(), "the daemon says: uid");
    assert!(matches!(error, ClientError::Forbidden(_)), "{error:?}");
}
