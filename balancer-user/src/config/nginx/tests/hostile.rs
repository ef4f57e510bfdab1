//! No bytes make it panic, hang or write what balancer itself refuses.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// Imports bytes; what comes of them is a configuration, whatever they are.
fn survives(bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nginx.conf");
    fs::write(&file, bytes).unwrap();
    match import(&file, &Settings::default()) {
        Ok(imported) => {
            if let Err(errors) = try_config(&imported.toml) {
                panic!("{errors}\nin:\n{}", imported.toml);
            }
            let odd = |c: char| c.is_control() && c != '\n';
            assert!(!imported.toml.contains(odd), "{:?}", imported.toml);
            assert!(!imported.remarks.iter().any(|remark| remark.to_string().contains(char::is_control)));
        }
        Err(error) => assert!(error.to_string().len() < 100_000),
    }
}

#[test]
fn large_and_deep_texts_end_soon() {
    let size = 1 << 20;
    let servers = |text: &str| format!("upstream u {{ {} }}", text.repeat(size / text.len() - 1));
    for (name, text) in [
        ("open", "a{".repeat(size / 2)),
        ("closed", "}".repeat(size)),
        ("ends", ";".repeat(size)),
        ("quotes", "'".repeat(size)),
        ("blanks", format!("{}a;b;", " ".repeat(size - 4))),
        ("lost braces", "upstream a { server 10.0.2.11:80;\n".repeat(2500)),
        ("servers", servers("server 10.0.2.11:80;")),
        ("directives", "a;".repeat(size / 2)),
        ("lua", format!("x_by_lua_block {{{}", "[[".repeat(size / 2 - 10))),
        (
            "server blocks",
            (0..8000)
                .map(|n| {
                    format!(
                        "server{{listen {};location /{{proxy_pass http://10.0.2.{}:{n};}}}}\n",
                        n + 1,
                        n % 250 + 1
                    )
                })
                .collect(),
        ),
        ("locations", format!("server{{{}}}", "location /a{proxy_pass http://b;}".repeat(20_000))),
    ] {
        let start = Instant::now();
        survives(text.as_bytes());
        let took = start.elapsed();
        assert!(took < Duration::from_secs(20), "{name} took {took:?}");
    }
}

#[test]
fn a_hostile_comment_reaches_nobody_raw() {
    let text =
        "upstream a { server 10.0.2.11:80; \"x\x1b[2J\r\u{202e}\" y; }\nserver { proxy_pass a; listen 80; }";
    let (imported, _) = imported(text, &Settings::default());
    assert!(imported.toml.contains("x\\u{1b}[2J\\r\\u{202e}"), "{}", imported.toml);
}

/// Pieces of nginx's, in any order.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        "(http|stream|events|upstream [ab]|server|location /[a-z]?|if \\(\\$x\\)) \\{\n",
        "listen (443|80|\\*:443|\\[::\\]:443|10\\.0\\.2\\.1[12]:443|8000-8003|127\\.0\\.0\\.1:1|unix:/x)( ssl)?( default_server)?;\n",
        "server (10\\.0\\.2\\.1[1-4]|\\[2001:db8::[12]\\]|10\\.0\\.2\\.11:80|127\\.0\\.0\\.1|unix:/x)(:443)?( backup| down| max_fails=[0-9]{1,5}| fail_timeout=[0-9]{1,3}[smhx]?){0,3};\n",
        "proxy_pass (https?://)?(a|b|10\\.0\\.2\\.11|\\$c|unix:/x)(:443)?(/x)?;\n",
        "(server_name x.example.org|return 301 https://x|proxy_ssl on|proxy_ssl_verify on|proxy_ssl_name x)?;\n",
        Just("}\n".to_owned()),
        Just("} ".to_owned()),
        "[ -~\n]{0,10}",
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survives(&bytes);
    }

    #[test]
    fn any_text_of_nginxs_signs_is_survived(text in "([a-z]{1,3}|[ \n\t;{}\"'#\\\\$]){0,80}") {
        survives(text.as_bytes());
    }

    #[test]
    fn whatever_is_imported_is_a_configuration(pieces in prop::collection::vec(piece(), 0..40)) {
        survives(pieces.concat().as_bytes());
    }

    #[test]
    fn two_upstreams_and_many_servers_are_a_configuration(
        one in prop::collection::vec(piece(), 0..8), two in prop::collection::vec(piece(), 0..8),
    ) {
        let text = format!(
            "upstream a {{ server 10.0.2.11:80;\n{} }} }} upstream b {{ server 10.0.2.12:80;\n{} }} }}\n\
             server {{ listen 443 ssl; location / {{ proxy_pass https://a; }} }}\n\
             server {{ listen 8443; location / {{ proxy_pass http://b; }} }}\n",
            one.concat(), two.concat(),
        );
        survives(text.as_bytes());
    }
}
