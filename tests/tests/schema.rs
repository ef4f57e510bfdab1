//! `balancer schema`: it says of configurations what `check` says, and of answers what is printed.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use balancer_tests::{
    gateway::{PATIENCE, binary_under_test},
    lab::Topology,
    poll::poll_until,
    schema::{Schema, of_toml},
    site::{Options, PASSWORDS, POOL, Programs, Site, WEB},
};
use rustix::process::Signal;
use serde_json::{Map, Value, json};

/// With each table, and each key that a machine can do without.
const WHOLE: &str = r#"
[gateway]
interfaces = ["wan0", "lan0"]
xdp_mode = "auto"
max_flows = 262144
max_half_open = 65536
idle_timeout = "2h5m"
[http]
listen = "127.0.0.1:9464"
[[pool]]
name = "passwords"
forwarding = "snat"
failover = "auto"
failback = "auto"
failback_delay = "1m30s"
on_backend_down = "reset"
when_all_down = "last"
passive = "probe"
connect_retry = "instant"
connect_timeout = "300ms"
snat_addresses = []
snat_ports = "1024-32767,61000-65535"
drain_deadline = "10m"
start_timeout = "60s"
[pool.probe]
interval = "2s"
[[pool.service]]
name = "web"
listen = "203.0.113.10:443"
backend_port = 10001
[pool.service.probe]
kind = "https"
interval = "2s"
fast_interval = "500ms"
timeout = "1s"
rise = 1
server_name = "pw.example.org"
verify = true
path = "/"
expect_status = "200-399"
expect_body = ""
[[pool.backend]]
name = "server1"
address = "10.0.2.11"
max_fails = 1
fail_timeout = "10s"
fail_timeout_max = "10s"
backup = false
cold = false
disabled = false
"#;

#[test]
fn what_check_accepts_the_schema_accepts() -> Result<()> {
    let schema = configuration_schema()?;
    let first = include_str!("../src/demo/first.toml");
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let of_readme: Vec<&str> = blocks.filter(|text| text.starts_with("[gateway]\ninterfaces")).collect();
    ensure!(!of_readme.is_empty(), "the README has a whole configuration");
    for text in of_readme.into_iter().chain([first, WHOLE]) {
        ensure!(is_accepted(text)?, "check refuses:\n{text}");
        let wrong = schema.errors(&of_toml(text)?);
        ensure!(wrong.is_empty(), "{wrong:?}\nin:\n{text}");
    }
    Ok(())
}

#[test]
fn what_is_no_key_and_what_is_of_another_type_both_refuse() -> Result<()> {
    let (schema, whole) = (configuration_schema()?, of_toml(WHOLE)?);
    let mut spoilt = Vec::new();
    spoil(&whole, &mut Vec::new(), &mut spoilt);
    ensure!(spoilt.len() > 80, "{} spoilt values", spoilt.len());
    for (what, value) in spoilt {
        let mut document = whole.clone();
        put(&mut document, &what, value);
        let text = toml::to_string(&document)?;
        ensure!(!schema.is_valid(&document), "the schema accepts {what:?} in:\n{text}");
        ensure!(!is_accepted(&text)?, "check accepts {what:?} in:\n{text}");
    }
    Ok(())
}

#[test]
fn what_must_be_there_both_miss() -> Result<()> {
    let (schema, whole) = (configuration_schema()?, of_toml(WHOLE)?);
    let required = [
        "/gateway",
        "/gateway/interfaces",
        "/http/listen",
        "/pool",
        "/pool/0/name",
        "/pool/0/service",
        "/pool/0/service/0/name",
        "/pool/0/service/0/listen",
        "/pool/0/backend",
        "/pool/0/backend/0/name",
        "/pool/0/backend/0/address",
    ];
    for pointer in required {
        let (table, key) = pointer.rsplit_once('/').context("a key")?;
        let mut document = whole.clone();
        let found = document.pointer_mut(table).and_then(Value::as_object_mut).context("a table")?;
        found.remove(key).with_context(|| pointer.to_owned())?;
        ensure!(!schema.is_valid(&document), "the schema does not miss {pointer}");
        ensure!(!is_accepted(&toml::to_string(&document)?)?, "check does not miss {pointer}");
    }
    Ok(())
}

#[test]
fn what_check_finds_is_as_its_schema_says() -> Result<()> {
    let schema = Schema::closed(&schema_of(&["check"])?)?;
    let dnat = WHOLE.replace("\"snat\"", "\"dnat\"").replace("snat_addresses = []\n", "");
    let warned = WHOLE.replace("verify = true", "verify = false\nca_file = \"/ca.pem\"");
    let wrong = WHOLE.replace("max_flows", "max_flow").replace("rise = 1", "rise = 0");
    for (text, is_right, findings) in
        [(WHOLE, true, 0), (&dnat, true, 0), (&warned, true, 1), (&wrong, false, 2)]
    {
        let (accepted, printed) = checked(text, &["-o", "json"])?;
        let document: Value = serde_json::from_slice(&printed)?;
        let wrong = schema.errors(&document);
        ensure!(wrong.is_empty(), "{wrong:?} in {document}");
        let found = document["findings"].as_array().map(Vec::len);
        ensure!(accepted == is_right && found >= Some(findings), "{document}");
    }
    Ok(())
}

#[test]
fn every_answer_is_as_its_schema_says_and_nothing_else() -> Result<()> {
    let programs = Programs::under_test(env!("CARGO_BIN_EXE_lab-host"))?;
    let mut site = Site::start("schema", &Topology::two_armed(), Options::default(), &programs)?;
    let _held = site.hold(PASSWORDS, WEB)?;
    let words = site.gateway.words(&["events", "--follow", "-o", "json"]);
    let mut following = site.lab().gateway().spawn(&words)?;
    let cases: [(&str, &[&str], &[i32]); 13] = [
        ("outcome", &["failover", POOL], &[0]),
        ("outcome", &["drain", POOL, "server1", "--deadline", "1h"], &[0]),
        ("status", &["status"], &[0]),
        ("outcome", &["ready", POOL, "server1"], &[0]),
        ("outcome", &["failback", POOL], &[0]),
        ("reload", &["reload"], &[0]),
        ("status", &["status", POOL], &[0]),
        ("flows", &["flows"], &[0]),
        ("stats", &["stats"], &[0]),
        ("events", &["events"], &[0]),
        ("why", &["why", POOL], &[0]),
        ("doctor", &["doctor"], &[0, 1]),
        ("check", &["check"], &[0]),
    ];
    for (document, verb, codes) in cases {
        let said = site.gateway.verb(&[verb, &["-o", "json"]].concat())?;
        ensure!(said.code.is_some_and(|code| codes.contains(&code)), "{said:?}");
        let wrong = Schema::closed(&schema_of(&[document])?)?.errors(&said.json()?);
        ensure!(wrong.is_empty(), "{document}: {wrong:?} in {said:?}");
    }
    let event = Schema::closed(&schema_of(&["event"])?)?;
    poll_until(PATIENCE, "events to be followed", || {
        let lines = following.stdout();
        if lines.contains("\"transition\"") && lines.ends_with('\n') { Ok(()) } else { Err(lines) }
    })?;
    for line in following.stdout().lines() {
        let wrong = event.errors(&serde_json::from_str(line)?);
        ensure!(wrong.is_empty(), "{wrong:?} in {line}");
    }
    following.signal(Signal::INT)?;

    site.gateway.kill();
    for document in ["status", "flows", "stats", "events"] {
        let said = site.gateway.verb(&[document, "-o", "json"])?.expect(0)?.json()?;
        let wrong = Schema::new(&schema_of(&[document])?)?.errors(&said);
        ensure!(wrong.is_empty(), "{document} without a daemon: {wrong:?} in {said}");
    }
    Ok(())
}

fn configuration_schema() -> Result<Schema> {
    Schema::new(&schema_of(&[])?)
}

/// What `balancer schema` prints with these words.
fn schema_of(words: &[&str]) -> Result<Value> {
    let said = Command::new(binary_under_test()?).arg("schema").args(words).output()?;
    ensure!(said.status.success(), "{said:?}");
    Ok(serde_json::from_slice(&said.stdout)?)
}

/// By `check`, on any machine: whether it is right, and what is printed.
fn checked(text: &str, flags: &[&str]) -> Result<(bool, Vec<u8>)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("balancer.toml");
    fs::write(&file, text)?;
    let said = Command::new(binary_under_test()?)
        .args(["check", "--no-resolve", "--config"])
        .args([&file, Path::new("--pin-dir"), &folder.path().join("pins")])
        .args(flags)
        .output()?;
    let code = said.status.code();
    ensure!(matches!(code, Some(0 | 3)), "{said:?}");
    Ok((code == Some(0), said.stdout))
}

fn is_accepted(text: &str) -> Result<bool> {
    Ok(checked(text, &[])?.0)
}

/// A place in a document, and what is to stand there.
type Spoilt = (Vec<String>, Value);

/// Each value as one of another type, and one more key in each table.
fn spoil(value: &Value, path: &mut Vec<String>, into: &mut Vec<Spoilt>) {
    let mut at = |path: &[String], value: Value| into.push((path.to_vec(), value));
    match value {
        Value::Object(table) => {
            let unknown = [path.as_slice(), &["unknown".to_owned()]].concat();
            at(&unknown, json!("x"));
            if !path.is_empty() {
                at(path, json!("x"));
            }
            for (key, value) in table {
                path.push(key.clone());
                spoil(value, path, into);
                path.pop();
            }
        }
        Value::Array(values) => {
            at(path, json!(7));
            at(path, json!([7]));
            for (index, value) in values.iter().enumerate().filter(|(_, value)| value.is_object()) {
                path.push(index.to_string());
                spoil(value, path, into);
                path.pop();
            }
        }
        Value::String(_) => {
            at(path, json!(7));
            at(path, json!(["x"]));
        }
        _ => {
            at(path, json!("x"));
            at(path, Value::Object(Map::new()));
        }
    }
}

fn put(document: &mut Value, path: &[String], new: Value) {
    let mut place = document;
    for key in path {
        place = match place {
            Value::Array(values) => &mut values[key.parse::<usize>().unwrap_or_default()],
            other => &mut other[key.as_str()],
        };
    }
    *place = new;
}
