//! A small configuration that tests of several rooms start from. Who needs one that is like no other has it beside his tests.

/// One pool, one service, two backends.
pub(crate) const TWO_BACKENDS: &str = r#"
[gateway]
interfaces = ["wan0", "lan0"]
[[pool]]
name = "passwords"
[[pool.service]]
name = "web"
listen = "203.0.113.10:443"
backend_port = 10001
[pool.probe]
kind = "tcp"
[[pool.backend]]
name = "server1"
address = "10.0.2.11"
[[pool.backend]]
name = "server2"
address = "10.0.2.12"
"#;

/// The same after these replacements.
pub(crate) fn replaced(replaced: &[(&str, &str)]) -> String {
    replaced.iter().fold(TWO_BACKENDS.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    })
}
