//! The program itself: exit codes, stdout and stderr, with and without somebody who answers or reads.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use balancer_user::control::protocol::Status;
use balancer_user::control::server::{NotReloaded, Request, serve};
use balancer_user::control::socket::ControlSocket;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

const STATUS: &str = r#"{ "schema": "balancer.status/1", "as_of": "2026-01-02T03:04:05.678Z", "daemon": null,
  "attachments": [], "drops": {}, "degraded": [], "pending": [], "pools": [ {
    "name": "passwords", "active": null, "state": "all_down", "since": "2026-01-02T03:01:01.678Z",
    "reason": "initial", "failback": "manual", "services": [], "backends": [], "transition": null, "last_failover": null } ] }"#;

fn balancer(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).env("BALANCER_SOCKET", socket).env_remove("NO_COLOR");
    command
}

fn run(socket: &Path, arguments: &[&str]) -> Output {
    balancer(socket, arguments).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn assert_exit(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "stderr: {}", text(&output.stderr));
}

/// The program.
const BINARY: &str = env!("CARGO_BIN_EXE_balancer");

#[test]
fn the_daemon_keeps_no_descriptor_that_it_was_handed() {
    // It reads its configuration from a stdin that doesn't end.
    let mut daemon = Command::new("/bin/sh")
        .args(["-c", "exec 9<\"$0\"; exec \"$0\" run --config -", BINARY])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let process = Path::new("/proc").join(daemon.id().to_string());
    let began = Instant::now();
    let is_closed = loop {
        let leads_to_it =
            |link: &str| process.join(link).read_link().is_ok_and(|file| file == Path::new(BINARY));
        let is_closed = leads_to_it("exe") && !leads_to_it("fd/9");
        if is_closed || began.elapsed() > Duration::from_secs(10) {
            break is_closed;
        }
        std::thread::yield_now();
    };
    let ended = daemon.try_wait().expect("its state");
    daemon.kill().expect("its end");
    daemon.wait().expect("its end");
    assert!(is_closed && ended.is_none(), "still open, or it has ended: {ended:?}");
}

/// Runs `act` beside a daemon that has one pool and refuses every command.
fn beside_a_daemon(act: impl FnOnce(&Path)) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("control.sock");
    let (stop, stopped) = oneshot::channel::<()>();
    let place = path.clone();
    let daemon = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (_socket, listener) = ControlSocket::bind(&place).expect("the socket");
            let (requests, inbox) = mpsc::channel(1);
            tokio::spawn(answer(inbox));
            serve(listener, requests, async { stopped.await.unwrap_or_default() }).await;
        });
    });
    while std::os::unix::net::UnixStream::connect(&path).is_err() {
        assert!(!daemon.is_finished(), "the daemon ended");
        std::thread::yield_now();
    }
    act(&path);
    drop(stop);
    daemon.join().expect("the daemon ends well");
}

async fn answer(mut inbox: mpsc::Receiver<Request>) {
    while let Some(request) = inbox.recv().await {
        match request {
            Request::Status(reply) => {
                let status: Status = serde_json::from_str(STATUS).expect("a status document");
                drop(reply.send(status));
            }
            Request::Stats(reply) => drop(reply),
            Request::Picture(reply) => drop(reply),
            Request::Flows(_, reply) => drop(reply.send(Err("there is no pool".to_owned()))),
            Request::Events(_, reply) => drop(reply.send(Err("there is no pool".to_owned()))),
            Request::Why(_, reply) => drop(reply.send(Err("there is no pool".to_owned()))),
            Request::Reload(_, _, reply) => {
                drop(
                    reply
                        .send(Err(NotReloaded::Invalid("f.toml:1:1: one\nf.toml:2:1: two\u{1b}".to_owned()))),
                );
            }
            Request::Trace(_, reply) => drop(reply.send(Err("there is no service".to_owned()))),
            Request::Command(_, _, reply) => drop(reply.send(Err("no backend is eligible".to_owned()))),
        }
    }
}

#[test]
fn an_invalid_configuration_exits_3_with_every_error_on_a_line_of_its_own() {
    beside_a_daemon(|socket| {
        let output = run(socket, &["reload"]);
        assert_exit(&output, 3);
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
        assert_eq!(text(&output.stderr), "balancer: f.toml:1:1: one\nf.toml:2:1: two\\u{1b}\n");
    });
}

#[test]
fn without_a_daemon_the_exit_code_is_4_and_the_remedy_is_on_stderr() {
    let nowhere = Path::new("/nonexistent/control.sock");
    let verbs: [&[&str]; 10] = [
        &["status"],
        &["stats"],
        &["flows"],
        &["events", "--state-dir", "/nonexistent"],
        &["events", "--follow"],
        &["trace"],
        &["why", "p", "--state-dir", "/nonexistent"],
        &["failover", "p"],
        &["failback", "p"],
        &["reload"],
    ];
    for arguments in verbs {
        let output = run(nowhere, arguments);
        assert_exit(&output, 4);
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
        let said = text(&output.stderr);
        assert!(said.starts_with("balancer: no daemon answers at /nonexistent/control.sock"), "{said}");
    }
}

#[test]
fn a_wrong_command_line_exits_2_and_help_and_version_0() {
    let nowhere = Path::new("/nonexistent/control.sock");
    assert_exit(&run(nowhere, &["stauts"]), 2);
    assert_exit(&run(nowhere, &[]), 2);
    let help = run(nowhere, &["--help"]);
    assert_exit(&help, 0);
    assert!(text(&help.stdout).contains("Usage: balancer"), "{}", text(&help.stdout));
    let version = run(nowhere, &["--version"]);
    assert_exit(&version, 0);
    assert!(
        text(&version.stdout).starts_with("balancer 0.1.0 (layout v9, object "),
        "{}",
        text(&version.stdout)
    );
}

#[test]
fn data_is_on_stdout_without_colour_and_json_is_the_document() {
    beside_a_daemon(|socket| {
        let table = run(socket, &["status"]);
        assert_exit(&table, 0);
        let said = text(&table.stdout);
        assert!(said.contains("passwords  all_down on no backend"), "{said}");
        assert!(!said.contains('\x1b') && table.stderr.is_empty(), "{said}");

        let json = run(socket, &["-o", "json", "status", "passwords"]);
        assert_exit(&json, 0);
        let found: Value = serde_json::from_slice(&json.stdout).expect("JSON");
        assert_eq!(found, serde_json::from_str::<Value>(STATUS).expect("JSON"));
    });
}

#[test]
fn a_degraded_pool_exits_6_only_when_asked_for() {
    beside_a_daemon(|socket| {
        assert_exit(&run(socket, &["status"]), 0);
        assert_exit(&run(socket, &["status", "--exit-code"]), 6);
        let unknown = run(socket, &["status", "mail", "--exit-code"]);
        assert_exit(&unknown, 1);
        assert_eq!(text(&unknown.stderr), "balancer: no pool is named \"mail\": there is passwords\n");
    });
}

#[test]
fn a_refusal_exits_1_with_the_reason_on_stderr() {
    beside_a_daemon(|socket| {
        let output = run(socket, &["failover", "passwords"]);
        assert_exit(&output, 1);
        assert_eq!(text(&output.stderr), "balancer: refused: no backend is eligible\n");
        assert!(output.stdout.is_empty());
    });
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    beside_a_daemon(|socket| {
        for arguments in [&["status"][..], &["status", "-o", "json"], &["--help"], &["--version"]] {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            drop(reader);
            let output = balancer(socket, arguments)
                .stdout(writer)
                .stderr(Stdio::piped())
                .output()
                .expect("the program starts");
            assert_exit(&output, 0);
            assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
        }
    });
}

#[test]
fn a_full_disk_is_a_failure() {
    beside_a_daemon(|socket| {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let output = balancer(socket, &["status"])
            .stdout(full)
            .stderr(Stdio::piped())
            .output()
            .expect("the program starts");
        assert_exit(&output, 1);
        assert!(text(&output.stderr).contains("cannot write to stdout"), "{}", text(&output.stderr));
    });
}

const NGINX: &str = "upstream pw { server 10.0.2.11:10001; server 10.0.2.12:10001 backup; }
server { listen 443 ssl; ssl_certificate pw.crt; location / { proxy_pass https://pw; } }
";

/// Imports `nginx` with `flags`; the file is removed again.
fn import(nginx: &str, flags: &[&str]) -> Output {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("pw.conf");
    std::fs::write(&file, nginx).expect("the file");
    balancer(Path::new("/nonexistent"), &["import", "nginx"])
        .arg(&file)
        .args(flags)
        .output()
        .expect("the program starts")
}

#[test]
fn what_is_imported_from_nginx_passes_check() {
    let lost_a_brace = NGINX.replace("backup; }", "backup;");
    let flags = ["--interface", "wan0", "--interface", "lan0", "--vip", "198.51.100.7", "--separate"];
    for (nginx, flags) in [(NGINX, &[][..]), (NGINX, &flags), (&lost_a_brace, &[])] {
        let imported = import(nginx, flags);
        assert_exit(&imported, 0);
        let said = text(&imported.stderr);
        assert!(said.contains("1 pool, 1 service, 2 backends"), "{said}");
        assert_eq!(said.contains("lost its closing brace"), nginx == lost_a_brace, "{said}");

        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("balancer.toml");
        std::fs::write(&file, &imported.stdout).expect("the file");
        let check = balancer(Path::new("/nonexistent"), &["check", "--no-resolve", "--config"])
            .arg(&file)
            .output()
            .expect("the program starts");
        assert_exit(&check, 0);
    }
}

#[test]
fn what_cannot_be_imported_exits_1_2_or_3_and_says_why() {
    let cases: [(Output, i32, &str); 6] = [
        (run(Path::new("/nonexistent"), &["import", "nginx", "/nonexistent"]), 1, "can't read /nonexistent"),
        (import("events {}", &[]), 3, "nothing to import"),
        (import("\x7fELF \"\x1b[2J", &[]), 3, "not a configuration of nginx"),
        (import(NGINX, &["--vip", "127.0.0.1"]), 2, "--vip: 127.0.0.1 is a loopback address"),
        (import(NGINX, &["--interface", "a b"]), 2, "--interface:"),
        (import(NGINX, &["--vip", "x"]), 2, "invalid value 'x'"),
    ];
    for (output, code, words) in cases {
        assert_exit(&output, code);
        let said = text(&output.stderr);
        assert!(said.contains(words) && !said.contains('\x1b'), "{said}");
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    }
}

/// Room for errors in lines 3 and 6; `check` warns of line 12.
const CHECKED: &str = "\
[gateway]
interfaces = [\"wan0\"]
#gateway
[[pool]]
name = \"passwords\"
#pool
[[pool.service]]
name = \"web\"
listen = \"203.0.113.10:443\"
[pool.probe]
verify = false
ca_file = \"/ca.pem\"
[[pool.backend]]
name = \"server1\"
address = \"10.0.2.11\"
";

/// By `check` of this text on any machine.
fn checked(text: &str, flags: &[&str]) -> Output {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("balancer.toml");
    std::fs::write(&file, text).expect("the file");
    let mut check = balancer(Path::new("/nonexistent"), &["check", "--no-resolve", "--config"]);
    let check = check.arg(&file).args([Path::new("--pin-dir"), &directory.path().join("pins")]);
    check.args(flags).output().expect("the program starts")
}

fn json(output: &Output) -> Value {
    assert_eq!(text(&output.stderr), "", "all is in the document");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn what_is_wrong_with_a_configuration_is_also_told_in_json_all_at_once_with_its_places() {
    let wrong = CHECKED.replace("#gateway", "  max_flow = 1").replace("#pool", "failover = \"x\"");
    let (words, document) = (checked(&wrong, &[]), checked(&wrong, &["-o", "json"]));
    assert_exit(&words, 3);
    assert_exit(&document, 3);
    let document = json(&document);
    assert_eq!((&document["schema"], &document["valid"]), (&"balancer.check/1".into(), &false.into()));
    assert_eq!((&document["more"], &document["pools"]), (&0.into(), &serde_json::json!([])));
    let findings = document["findings"].as_array().expect("findings");
    let places: Vec<_> = findings.iter().map(|one| (one["line"].as_u64(), one["column"].as_u64())).collect();
    assert_eq!(places, [(Some(3), Some(3)), (Some(6), Some(12))], "{document}");
    assert_eq!((&findings[1]["key"], &findings[1]["severity"]), (&"pool.failover".into(), &"error".into()));
    for one in findings {
        for key in ["message", "help"] {
            let part = one[key].as_str().expect("a text");
            assert!(text(&words.stderr).contains(part), "{part}");
        }
        assert!(one["file"].as_str().is_some_and(|file| file.ends_with("/balancer.toml")), "{one}");
    }
}

#[test]
fn what_a_configuration_comes_to_is_told_in_json_with_its_warnings() {
    let document = checked(CHECKED, &["-o", "json"]);
    assert_exit(&document, 0);
    let document = json(&document);
    let findings = document["findings"].as_array().expect("findings");
    // Others are about this machine, which may be any.
    let warning = findings.iter().find(|one| one["line"] == 12).expect("a warning");
    assert_eq!((&warning["column"], &warning["severity"]), (&11.into(), &"warning".into()), "{warning}");
    assert_eq!((&warning["key"], &warning["help"]), (&Value::Null, &Value::Null), "{warning}");
    let pool = &document["pools"][0];
    assert_eq!(
        (&pool["name"], &pool["services"], &pool["backends"]),
        (&"passwords".into(), &1.into(), &1.into())
    );
    assert!(pool["ports"].as_u64().is_some_and(|ports| ports > 0) && pool["source_addresses"] == 1, "{pool}");
    let words = checked(CHECKED, &[]);
    assert_exit(&words, 0);
    assert!(text(&words.stderr).contains(":12: warning: "), "{}", text(&words.stderr));
}

#[test]
fn a_configuration_that_cannot_be_read_has_no_place_in_json() {
    let output = run(Path::new("/nonexistent"), &["check", "-o", "json", "--config", "/nonexistent"]);
    assert_exit(&output, 3);
    let document = json(&output);
    let finding = &document["findings"][0];
    assert_eq!(
        (&finding["line"], &finding["column"], &finding["key"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(finding["file"], "/nonexistent");
}

#[test]
fn an_explanation_is_in_words_only() {
    for words in [&["check", "--explain", "-o", "json"][..], &["-o", "json", "check", "--explain"]] {
        let output = run(Path::new("/nonexistent"), words);
        assert_exit(&output, 2);
        assert!(text(&output.stderr).contains("leave out one of --explain and -o json"), "{output:?}");
    }
    assert_exit(&checked(CHECKED, &["--explain", "-o", "table"]), 0);
}
