//! What people are shown of each document.

use super::super::{events, flows, stats, status, trace, why};
use super::*;
use crate::control::protocol::{
    Backend, Health, LastFailover, LastProbe, PoolReason, PoolState, Status, Timestamp, Traced, Transition,
    Verdict, XdpMode, example,
};

/// The example, with a second backend that is down.
fn two_backends() -> Status {
    let mut status = example::status();
    let pool = &mut status.pools[0];
    let failed = LastProbe {
        service: "web".to_owned(),
        ok: false,
        reason: Some("connection refused".to_owned()),
        certificate_expires: None,
        ..pool.backends[0].last_probe.clone().unwrap()
    };
    pool.backends.push(Backend {
        name: "server2".to_owned(),
        address: "10.0.2.12".to_owned(),
        backup: true,
        health: Health::Down,
        reason: Some("1 failure in 10s".to_owned()),
        since: "2026-01-02T03:03:55.678Z".parse().unwrap(),
        flows: 0,
        last_probe: Some(failed),
        ..pool.backends[0].clone()
    });
    status
}

fn table(status: &Status) -> String {
    status::table(status, status.as_of, Palette::PLAIN)
}

#[test]
fn a_serving_pool_fits_on_a_screen() {
    let expected = "\
balancer 0.1.0, pid 4242, up 12s, configuration generation 1

passwords  serving on server1 since 3m4s ago (2026-01-02T03:01:01.678Z), reason initial, failback manual
     BACKEND           ADDRESS    HEALTH  ADMIN  SINCE  FLOWS  LAST PROBE                             REASON
  ●  server1           10.0.2.11  up      ready  3m4s       3  web ok in 2.1 ms, 1s ago               -
     server2 (backup)  10.0.2.12  down    ready  10s        0  web failed 1s ago: connection refused  1 failure in 10s
     SERVICE  LISTEN            BACKEND PORT  NEW FLOWS  PACKETS    BYTES
     web      203.0.113.10:443  10001                10      100  10.0 kB

interfaces
     wan0  native  program 12, link 3
";
    assert_eq!(table(&two_backends()), expected);
}

#[test]
fn a_pool_with_all_down_says_where_new_flows_go() {
    let mut status = two_backends();
    let pool = &mut status.pools[0];
    pool.state = PoolState::AllDown;
    pool.reason = PoolReason::BackendDown;
    pool.backends[0].health = Health::Down;
    pool.backends[0].last_probe = None;
    status.attachments[0].mode = None;
    status.attachments[0].program_id = None;
    status.attachments[0].link_id = None;
    status.attachments[0].error = Some("no such interface".to_owned());
    status.drops.insert("too_big".to_owned(), 7);
    let expected = "\
balancer 0.1.0, pid 4242, up 12s, configuration generation 1

passwords  all_down on server1 since 3m4s ago (2026-01-02T03:01:01.678Z), reason backend_down, failback manual
     no backend is eligible: new flows still go to server1
     BACKEND           ADDRESS    HEALTH  ADMIN  SINCE  FLOWS  LAST PROBE                             REASON
  ●  server1           10.0.2.11  down    ready  3m4s       3  -                                      -
     server2 (backup)  10.0.2.12  down    ready  10s        0  web failed 1s ago: connection refused  1 failure in 10s
     SERVICE  LISTEN            BACKEND PORT  NEW FLOWS  PACKETS    BYTES
     web      203.0.113.10:443  10001                10      100  10.0 kB

interfaces
     wan0  not attached  no such interface

dropped packets
     too_big  7
";
    assert_eq!(table(&status), expected);

    status.pools[0].active = None;
    let table = table(&status);
    assert!(table.contains("all_down on no backend since"), "{table}");
    assert!(table.contains("new flows are rejected"), "{table}");
    assert!(!table.contains('●'), "{table}");
}

#[test]
fn an_old_answer_and_a_missing_daemon_are_said() {
    let mut status = example::status();
    let second = |text: &str| text.parse::<Timestamp>().unwrap();
    let headline = |status: &Status, now| {
        status::table(status, second(now), Palette::PLAIN).lines().next().unwrap().to_owned()
    };
    assert!(!headline(&status, "2026-01-02T03:04:06.678Z").contains("old"));
    let old = headline(&status, "2026-01-02T03:04:10.678Z");
    assert!(old.ends_with("generation 1; 5s old, as of 2026-01-02T03:04:05.678Z"), "{old}");
    status.daemon = None;
    assert!(headline(&status, "2026-01-02T03:04:05.678Z").starts_with("no daemon is running"));
}

#[test]
fn a_daemon_that_is_degraded_says_so_before_anything_else() {
    let mut status = example::status();
    status.degraded = vec!["the disk is full\x1b".to_owned()];
    assert_eq!(table(&status).lines().nth(1), Some("degraded: the disk is full\\u{1b}"));
}

#[test]
fn signs_of_trouble_stand_out_before_it_is_there() {
    let mut status = example::status();
    let backend = &mut status.pools[0].backends[0];
    backend.fails = 2;
    backend.last_probe.as_mut().unwrap().certificate_expires = "2026-01-05T03:04:05.678Z".parse().ok();
    let soon = table(&status);
    assert!(soon.contains("up (2 failed)"), "{soon}");
    assert!(soon.contains("web ok in 2.1 ms, 1s ago; certificate expires in 3d"), "{soon}");
    status.pools[0].backends[0].last_probe.as_mut().unwrap().certificate_expires =
        "2026-01-01T00:00:00.000Z".parse().ok();
    assert!(table(&status).contains("; certificate expired"));
}

#[test]
fn a_change_under_way_is_told_with_its_hook() {
    let mut status = example::status();
    status.pools[0].state = PoolState::Switching;
    status.pools[0].transition = Some(Transition {
        id: 7,
        from: Some("server1".to_owned()),
        to: "server2".to_owned(),
        reason: PoolReason::BackendDown,
        step: Some(0),
        hook: Some("promote".to_owned()),
        started: "2026-01-02T03:04:03.678Z".parse().unwrap(),
    });
    let table = table(&status);
    let line =
        "     change 7 from server1 to server2, reason backend_down, started 2s ago, at hook \"promote\"\n";
    assert!(table.contains(line), "{table}");
}

#[test]
fn the_last_failover_is_a_line_with_what_is_known_of_it() {
    let mut status = example::status();
    let failover = |detection_ms, recovery_ms| LastFailover {
        id: 7,
        at: "2026-01-02T03:04:03.678Z".parse().unwrap(),
        from: "server1".to_owned(),
        to: "server2".to_owned(),
        detection_ms,
        recovery_ms,
    };
    let begin = "     last failover 2s ago from server1 to server2";
    for (detection_ms, recovery_ms, end) in [
        (Some(209), Some(3), ", 209 ms after the last good answer, first answer 3 ms later\n"),
        (Some(209), None, ", 209 ms after the last good answer, no client answered since\n"),
        (None, Some(3), ", first answer 3 ms later\n"),
    ] {
        status.pools[0].last_failover = Some(failover(detection_ms, recovery_ms));
        let table = table(&status);
        assert!(table.contains(&format!("{begin}{end}")), "{table}");
    }
}

#[test]
fn only_a_pool_that_gives_flows_to_an_up_backend_is_good() {
    let mut status = two_backends();
    assert_eq!(status::verdict(&status.pools), Exit::Ok);
    for state in [PoolState::Switching, PoolState::Held, PoolState::AllDown] {
        status.pools[0].state = state;
        assert_eq!(status::verdict(&status.pools), Exit::Degraded, "{state}");
    }
    status.pools[0].state = PoolState::Serving;
    for health in [Health::Down, Health::Probation, Health::Unknown] {
        status.pools[0].backends[0].health = health;
        assert_eq!(status::verdict(&status.pools), Exit::Degraded, "{health}");
    }
    status.pools[0].backends[0].health = Health::Up;
    status.pools[0].active = None;
    assert_eq!(status::verdict(&status.pools), Exit::Degraded);
}

#[test]
fn an_unknown_pool_is_refused_with_those_that_exist() {
    let mut status = example::status();
    let failure = status::only("password", &mut status).unwrap_err();
    assert_eq!(failure.to_string(), "no pool is named \"password\": there is passwords");
    assert_eq!(failure.exit, Exit::Failed);
    assert_eq!(status.pools.len(), 1);
    status::only("passwords", &mut status).unwrap();
}

#[test]
fn stats_name_every_reason_with_its_meaning() {
    let meaning =
        |reason: &str| (reason == "too_big").then_some("larger than the way out takes, and not to be split");
    let expected = "\
as of 2026-01-02T03:04:05.678Z

services
  POOL       SERVICE  NEW FLOWS  PACKETS  BYTES
  passwords  web             10      100  10000

backends
  POOL       BACKEND  FLOWS  NEW FLOWS  PACKETS  BYTES  REFUSED  UNANSWERED  RESCUED  RESETS
  passwords  server1      3         10      100  10000        1           0        0       2

dropped packets
  fragment  0
  too_big   7  larger than the way out takes, and not to be split

answered packets
  no_flow  5

passed packets
  tagged  2
";
    assert_eq!(stats::table(&example::stats(), meaning, Palette::PLAIN), expected);
}

#[test]
fn watched_stats_tell_what_each_counter_comes_to_in_a_second() {
    let (before, mut now) = (example::stats(), example::stats());
    now.as_of = "2026-01-02T03:04:07.678Z".parse().unwrap();
    now.services[0].packets += 100;
    now.backends[0].new_flows += 3;
    now.drops.insert("too_big".to_owned(), 8);
    // The maps are others now.
    now.drops.insert("new".to_owned(), 1);
    now.services[0].bytes = 0;
    let text = stats::watched(&now, Some(&before), true, |_| None, Palette::PLAIN);
    let rows = [
        "  POOL       SERVICE  NEW FLOWS  /s  PACKETS    /s  BYTES  /s\n",
        "  passwords  web             10   0      200  50.0      0   -\n",
        "  fragment  0    0\n",
        "  too_big   8  0.5\n",
        "  new       1    -\n",
    ];
    assert!(rows.iter().all(|row| text.contains(row)), "{text}");
    let first = stats::watched(&now, None, false, |_| None, Palette::PLAIN);
    assert!(first.contains("no daemon is running") && first.contains("  too_big   8  -\n"), "{first}");
}

#[test]
fn flows_are_a_line_each_and_what_is_not_configured_any_more_is_a_dash() {
    let mut document = example::flows();
    let expected = "\
as of 2026-01-02T03:04:05.678Z: 2 flows

  CLIENT               SERVICE               BACKEND  STATE         AGE  IDLE  PACKETS    BYTES
  192.0.2.7:40000      passwords/web         server1  established  3m4s    1s      100  10.0 kB
  [2001:db8::7]:40001  -/[2001:db8::10]:443  -        closing      2h5m   12s        7    512 B
";
    assert_eq!(flows::table(&document, Some(3), Palette::PLAIN), expected);
    let limited = flows::table(&document, Some(2), Palette::PLAIN);
    assert!(limited.contains(": 2 flows (there may be more: --limit)\n"), "{limited}");
    document.flows.truncate(1);
    assert!(flows::table(&document, None, Palette::PLAIN).contains(": 1 flow\n"));
    document.flows.clear();
    assert_eq!(flows::table(&document, None, Palette::PLAIN), "as of 2026-01-02T03:04:05.678Z: 0 flows\n");
}

#[test]
fn events_are_a_line_each_with_time_and_age() {
    let mut document = example::events();
    let expected = "\
as of 2026-01-02T03:04:05.678Z: 2 events

  TIME                      AGE       EVENT       POOL/BACKEND       CHANGE              REASON        EVIDENCE
  2026-01-02T03:01:01.677Z  3m4s ago  health      passwords/server1  up -> down          web: refused  -
  2026-01-02T03:01:01.678Z  3m4s ago  transition  passwords          server1 -> server2  backend_down  web: refused
";
    assert_eq!(events::table(&document, 100, Palette::PLAIN), expected);
    assert!(
        events::table(&document, 2, Palette::PLAIN).contains(": 2 events (there may be more: --limit)\n")
    );
    document.events.truncate(1);
    document.events[0].reason = Some("\x1b[2J".to_owned());
    let text = events::table(&document, 100, Palette::PLAIN);
    assert!(text.contains(": 1 event\n") && text.contains("\\u{1b}[2J"), "{text}");
    document.events.clear();
    assert_eq!(events::table(&document, 100, Palette::PLAIN), "as of 2026-01-02T03:04:05.678Z: 0 events\n");
}

#[test]
fn a_traced_packet_is_a_line_with_its_way_and_its_verdict() {
    let line = |packet: &Traced| trace::line(packet, Palette::PLAIN);
    let syn = example::traced();
    let said = "2026-01-02T03:04:05.678Z wan0 192.0.2.7:40000 > 203.0.113.10:443 tcp syn seq 1000 60 B: forwarded \
                (passwords/web), server1, as 10.0.2.1:40000 > 10.0.2.11:10001\n";
    assert_eq!(line(&syn), said);
    let dropped = Traced {
        verdict: Verdict::Dropped,
        reason: Some("no_backend".to_owned()),
        became: None,
        backend: None,
        missed: 7,
        interface: Some("\x1b[2J".to_owned()),
        ..syn
    };
    let said = line(&dropped);
    assert!(said.starts_with("... 7 more that are not shown\n2026-01-02"), "{said}");
    assert!(said.ends_with("60 B: dropped: no_backend (passwords/web)\n"), "{said}");
    assert!(!said.contains('\x1b'), "{said:?}");
}

#[test]
fn why_is_told_in_sentences() {
    let mut document = example::why();
    let mut command = document.chain[1].clone();
    command.event = "command".to_owned();
    command.reason = Some("accepted".to_owned());
    command.evidence = Some("`failover passwords` by uid 0: done".to_owned());
    document.chain.push(command);
    let mut answered = document.chain[0].clone();
    answered.event = "answered".to_owned();
    answered.evidence = Some("first answer of server2 3 ms after the decision".to_owned());
    document.chain.insert(0, answered);
    let expected = "\
as of 2026-01-02T03:04:05.678Z: passwords is on server2

  2026-01-02T03:01:01.678Z  3m4s ago  clients were answered again: first answer of server2 3 ms after the decision
  2026-01-02T03:01:01.678Z  3m4s ago  new flows went from server1 to server2, reason backend_down: web: refused
  2026-01-02T03:01:01.677Z  3m4s ago  server1 was up and then down: web: refused
  2026-01-02T03:01:01.677Z  3m4s ago  the operator's command was accepted: `failover passwords` by uid 0: done
";
    assert_eq!(why::table(&document, Palette::PLAIN), expected);
    document.chain.clear();
    let text = why::table(&document, Palette::PLAIN);
    assert!(text.ends_with("the journal does not tell how that came\n"), "{text}");
}

#[test]
fn an_attachment_that_fell_back_to_generic_says_so() {
    let mut status = example::status();
    status.attachments[0].mode = Some(XdpMode::Generic);
    assert!(table(&status).contains("wan0  generic  program 12, link 3"));
}
