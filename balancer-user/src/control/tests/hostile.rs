//! Clients that are broken, slow, greedy or many (failure class 49).

use super::*;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Waits until the server has hung up; false when it sends something instead.
async fn is_closed(stream: &mut UnixStream) -> bool {
    let mut byte = [0];
    matches!(timeout(DEADLINE, stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn garbage_is_answered_with_400_or_dropped_and_the_next_client_is_served() {
    let lab = Lab::start();
    let garbage: [&[u8]; 5] = [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"POST /v1/failover HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/failover HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ];
    for bytes in garbage {
        let mut stream = lab.send(bytes).await;
        stream.shutdown().await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{bytes:?}: {answer}");
        lab.client().get::<Status>().await.unwrap();
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_with_413() {
    let lab = Lab::start();
    let answer = lab.exchange(&post("/v1/failover", &" ".repeat(64 * 1024))).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("at most 49152 bytes"), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let lab = Lab::start();
    let request = format!("GET /v1/status HTTP/1.1\r\nX-Padding: {}\r\n\r\n", "x".repeat(64 * 1024));
    let mut stream = connect(&lab.path).await;
    // The server may hang up in the middle of it.
    let _hung_up = stream.write_all(request.as_bytes()).await;
    let answer = rest(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn a_client_that_is_slow_to_ask_is_dropped() {
    let lab = Lab::limited(Limits { receive: Duration::from_millis(50), ..Limits::default() });
    let beginnings: [&[u8]; 3] = [b"", b"GET /v1/sta", &STUCK[..STUCK.len() - 1]];
    for beginning in beginnings {
        let mut stream = lab.send(beginning).await;
        assert!(is_closed(&mut stream).await, "{beginning:?}");
    }
}

#[tokio::test]
async fn trickling_bytes_do_not_extend_the_time_for_a_request() {
    let lab = Lab::limited(Limits { receive: Duration::from_millis(100), ..Limits::default() });
    let mut stream = lab.send(b"GET /v1/status HTTP/1.1\r\nX-Padding: ").await;
    let from = Instant::now();
    let mut byte = [0];
    // A byte now and then, far from the longest head, until the server has hung up.
    while stream.write_all(b"x").await.is_ok() {
        match timeout(Duration::from_millis(5), stream.read(&mut byte)).await {
            Ok(end) => return assert!(matches!(end, Ok(0) | Err(_)), "an answer to half a request"),
            Err(_still_open) => assert!(from.elapsed() < DEADLINE, "still connected"),
        }
    }
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_is_dropped() {
    let mut large = example::status();
    // More than any socket buffer holds.
    large.pools = vec![large.pools[0].clone(); 10_000];
    let lab = Lab::with(Limits { send: Duration::from_millis(50), ..Limits::default() }, large);
    let stream = lab.send(GET_STATUS).await;
    let from = Instant::now();
    // The server reads nothing after the request, so writing fails once it has hung up, and not before.
    loop {
        match stream.try_write(b"x") {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            _ => assert!(from.elapsed() < DEADLINE, "still connected"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_take_its_listing_holds_up_others_for_a_bounded_time() {
    let lab = Lab::limited(Limits { send: Duration::from_millis(200), ..Limits::default() });
    // More than any socket buffer holds.
    let slow = lab.send(b"GET /v1/flows?limit=100000 HTTP/1.1\r\nHost: b\r\n\r\n").await;
    slow.readable().await.unwrap();
    let from = Instant::now();
    let listed = lab.listed(&FlowsQuery::default()).await.unwrap();
    assert_eq!(listed, example::flows());
    assert!(from.elapsed() >= Duration::from_millis(100), "two listings at once");
    drop(slow);

    let lab = Lab::limited(Limits { answer: Duration::from_millis(50), ..Limits::default() });
    let slow = lab.send(b"GET /v1/flows?limit=100000 HTTP/1.1\r\nHost: b\r\n\r\n").await;
    slow.readable().await.unwrap();
    let answer = lab.exchange(b"GET /v1/flows HTTP/1.1\r\nHost: b\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    // Whoever hangs up gives the place back.
    drop(slow);
    let from = Instant::now();
    while let Err(error) = lab.listed(&FlowsQuery::default()).await {
        assert!(from.elapsed() < DEADLINE, "{error}");
    }
}

#[tokio::test]
async fn a_thousand_idle_clients_do_not_starve_an_operator() {
    // Both ends of all connections are in this process.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();

    let lab = Lab::start();
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(connect(&lab.path).await);
    }
    let from = Instant::now();
    lab.client().get::<Status>().await.unwrap();
    assert!(from.elapsed() < Duration::from_secs(2), "it took {:?}", from.elapsed());
}

#[tokio::test]
async fn the_oldest_idle_client_makes_room_for_a_new_one() {
    let lab = Lab::limited(Limits { connections: 3, grace: Duration::from_millis(10), ..Limits::default() });
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(connect(&lab.path).await);
    }
    let mut later = clients.split_off(2);
    for evicted in &mut clients {
        assert!(is_closed(evicted).await);
    }
    for kept in &mut later {
        kept.write_all(GET_STATUS).await.unwrap();
        assert!(rest(kept).await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn a_newcomer_waits_until_the_others_had_their_time_to_ask() {
    let lab = Lab::limited(Limits { connections: 1, grace: DEADLINE, ..Limits::default() });
    let mut first = connect(&lab.path).await;
    let mut second = lab.send(GET_STATUS).await;
    first.write_all(GET_STATUS).await.unwrap();
    assert!(rest(&mut first).await.starts_with("HTTP/1.1 200 "));
    assert!(rest(&mut second).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_command_under_way_is_never_dropped_for_a_new_client() {
    let lab = Lab::limited(Limits {
        connections: 2,
        grace: Duration::from_millis(10),
        carry_out: Duration::from_millis(500),
        ..Limits::default()
    });
    let mut under_way = lab.send(STUCK).await;
    timeout(DEADLINE, lab.stuck.notified()).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..5 {
        idle.push(connect(&lab.path).await);
    }
    lab.client().get::<Status>().await.unwrap();
    let answer = rest(&mut under_way).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
}

#[tokio::test]
async fn neither_idle_clients_nor_a_stuck_command_hold_up_the_end() {
    let lab = Lab::limited(Limits { stop: Duration::from_millis(50), ..Limits::default() });
    let mut idle = connect(&lab.path).await;
    let mut under_way = lab.send(STUCK).await;
    timeout(DEADLINE, lab.stuck.notified()).await.unwrap();
    lab.stop.send(()).unwrap();
    timeout(DEADLINE, lab.server).await.expect("the server goes on").unwrap();
    assert!(is_closed(&mut idle).await && is_closed(&mut under_way).await);
}

#[tokio::test]
async fn a_follower_that_takes_nothing_is_dropped_and_one_that_waits_for_events_is_not() {
    let lab = Lab::limited(Limits { send: Duration::from_secs(1), ..Limits::default() });
    let follow = b"GET /v1/events?follow=true HTTP/1.1\r\nHost: b\r\n\r\n";
    let stuck = lab.send(follow).await;
    let client = lab.client();
    let query = EventsQuery { follow: true, ..EventsQuery::default() };
    let mut waits = client.follow(&query).await.unwrap();
    for _ in 41..43 + MORE {
        timeout(DEADLINE, waits.next()).await.expect("a record").unwrap().unwrap();
    }
    let from = Instant::now();
    loop {
        match stuck.try_write(b"x") {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            _ => assert!(from.elapsed() < DEADLINE, "still connected"),
        }
        tokio::task::yield_now().await;
    }
    assert!(timeout(Duration::from_millis(100), waits.next()).await.is_err(), "it was dropped, too");
}
