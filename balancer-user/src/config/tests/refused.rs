//! Each mistake has one error, at its place, without echoes.

use super::*;

/// Each case: the line of BASE, what is written in its place, and words of the error.
fn assert_each(cases: &[(&str, &str, &str)]) {
    for (line, by, words) in cases {
        assert_refused(&replaced(line, by), words);
    }
}

/// The same, with lines written behind one line of BASE.
fn assert_each_behind(line: &str, cases: &[(&str, &str)]) {
    for (lines, words) in cases {
        assert_refused(&behind(line, lines), words);
    }
}

#[test]
fn an_unknown_key_is_an_error_that_suggests_the_right_one() {
    assert_each_behind(INTERFACES, &[("«max_flow = 1", "did you mean `max_flows`?")]);
    assert_each_behind(POOL, &[("«fail_back = \"auto\"", "did you mean `failback`?")]);
    assert_each_behind(PROBE, &[("«intervall = \"1s\"", "did you mean `interval`?")]);
    assert_each_behind(SERVICE, &[("«backend-port = 1", "did you mean `backend_port`?")]);
    assert_each_behind(BACKEND, &[("«max_fail = 1", "did you mean `max_fails`?")]);
    assert_each_behind(ADDRESS, &[("[[«pools]]", "did you mean `pool`?")]);
    assert_each_behind(BACKEND, &[("«zzz = 1", "the keys here are: name, address, max_fails")]);
}

#[test]
fn a_wrong_type_is_an_error_that_shows_the_right_one() {
    assert_each(&[
        (INTERFACES, "interfaces = «\"wan0\"", "must be an array of strings, not a string"),
        (INTERFACES, "interfaces = [«1, \"wan0\"]", "must be a string, not a whole number"),
        (LISTEN, "listen = «443", "must be a string, not a whole number"),
        (ADDRESS, "address = «10.0", "must be a string, not a number with a fraction"),
    ]);
    assert_each_behind(
        BACKEND,
        &[
            ("max_fails = «\"1\"", "must be a number, not a string"),
            ("backup = «\"yes\"", "write backup = true or backup = false"),
            ("disabled = «1", "must be true or false"),
        ],
    );
}

#[test]
fn a_table_with_the_wrong_brackets_is_an_error_that_shows_the_right_ones() {
    assert_refused(&BASE.replace("[gateway]", "«[[gateway]]"), "write [gateway]");
    let second = SECOND_POOL.replace("[[pool.service]]", "«[pool.service]");
    assert_refused(&format!("{BASE}{second}"), "write [[pool.service]], with two brackets");
    assert_refused("pool = [«3]\n[gateway]\ninterfaces = [\"wan0\"]", "write [[pool]], with two brackets");
}

#[test]
fn what_is_not_toml_is_an_error_with_its_place() {
    assert_each(&[
        (LISTEN, "listen = 203.0«.113.10:443", "is not TOML"),
        (SERVICE, "name = \"web\"\n«name = \"web2\"", "the key `name` stands twice"),
        (BACKEND, "name = \"server1«", "is not TOML"),
    ]);
}

#[test]
fn what_is_missing_is_an_error_with_an_example() {
    let without = |line: &str, section: &str| replaced(line, "").replace(section, &format!("«{section}"));
    for (text, words) in [
        (without(INTERFACES, "[gateway]"), "write for example interfaces = "),
        (without(POOL, "[[pool]]"), "pool.name: is missing"),
        (without(SERVICE, "[[pool.service]]"), "pool.service.name: is missing"),
        (without(LISTEN, "[[pool.service]]"), "write for example listen = \"203.0.113.10:443\""),
        (without(BACKEND, "[[pool.backend]]"), "pool.backend.name: is missing"),
        (without(ADDRESS, "[[pool.backend]]"), "pool.backend.address: is missing"),
        (format!("«{}", &BASE[BASE.find("[[pool]]").unwrap()..]), "gateway: is missing"),
        ("«[gateway]\ninterfaces = [\"wan0\"]".to_owned(), "there is no pool"),
        ("«pool = []\n[gateway]\ninterfaces = [\"wan0\"]".to_owned(), "there is no pool"),
    ] {
        assert_refused(&text, words);
    }
    assert_eq!(refused("").count(), 2, "neither gateway nor pool");
}

#[test]
fn an_empty_pool_is_an_error() {
    let empty = |from: &str, to: Option<&str>| {
        let start = BASE.find(from).unwrap();
        let end = to.map_or(BASE.len(), |to| BASE.find(to).unwrap());
        format!("{}{}", &BASE[..start], &BASE[end..]).replace("[[pool]]", "«[[pool]]")
    };
    let text = empty("[[pool.service]]", Some("[[pool.backend]]"));
    assert_refused(&text.replace("[pool.probe]", "").replace(PROBE, ""), "the pool has no service");
    assert_refused(&empty("[[pool.backend]]", None), "the pool has no backend");
    let text = behind(BACKEND, "disabled = true").replace("[[pool]]", "«[[pool]]");
    assert_refused(&text, "all backends of the pool are disabled");
}

#[test]
fn a_gateway_is_bounded() {
    assert_each(&[
        (INTERFACES, "interfaces = «[]", "names no interface"),
        (INTERFACES, "interfaces = [\"wan0\", «\"wan0\"]", "`wan0` stands here already on line 2"),
        (INTERFACES, "interfaces = [«\"wan0/1\"]", "can't be the name of an interface"),
    ]);
    assert_each_behind(
        INTERFACES,
        &[
            ("xdp_mode = «\"drv\"", "write \"auto\" or \"native\" or \"generic\""),
            ("max_flows = «0", "from 1 to 16777216"),
            ("max_flows = «16777217", "`16777217` is out of range"),
            ("max_half_open = «-1", "`-1` is out of range"),
            ("max_half_open = «99999999999999999999", "out of range"),
            ("idle_timeout = «\"100ms\"", "write at least \"1s\""),
        ],
    );
    let interfaces: Vec<String> = (0..17).map(|n| format!("\"eth{n}\"")).collect();
    let text = replaced(INTERFACES, &format!("interfaces = «[{}]", interfaces.join(", ")));
    assert_refused(&text, "write at most 16");
}

#[test]
fn a_duration_needs_a_unit_and_a_sensible_length() {
    assert_each_behind(
        BACKEND,
        &[
            ("fail_timeout = «10", "write \"10s\" for seconds"),
            ("fail_timeout = «\"10\"", "write \"10s\" for seconds"),
            ("fail_timeout = «\"0s\"", "write at least \"10ms\""),
            ("fail_timeout = «\"\"", "a duration is empty"),
            ("fail_timeout = «\"-1s\"", "can't have a sign"),
            ("fail_timeout = «\"30s1m\"", "write the larger unit first"),
            ("fail_timeout = «\"1s1s\"", "stands twice"),
            ("fail_timeout = «\"99999999999999999999s\"", "can't be longer than 365d"),
            ("fail_timeout = \"20s\"\nfail_timeout_max = «\"10s\"", "write at least \"20s\""),
        ],
    );
    assert_each_behind(
        PROBE,
        &[
            ("interval = «\"9ms\"", "write at least \"10ms\""),
            ("timeout = «\"0s\"", "write at least \"1ms\""),
            ("interval = \"1s\"\nfast_interval = «\"2s\"", "longer than `interval`, which is \"1s\""),
            ("interval = «\"1\"\nfast_interval = \"5s\"", "needs a unit"),
        ],
    );
    assert_each_behind(POOL, &[("failback_delay = «\"5s\"", "write failback = \"auto\"")]);
}

#[test]
fn what_clients_attempts_say_must_be_something_that_can_be_done() {
    assert_each(&[
        (PASSIVE, "passive = «true", "must be a string"),
        (PASSIVE, "passive = «\"counts\"", "did you mean `count`?"),
        (RETRY, "connect_retry = «1", "must be a string"),
        (RETRY, "connect_retry = «\"retry\"", "did you mean `retransmit`?"),
        (PASSIVE, "connect_timeout = «\"0s\"", "is too short"),
        (PASSIVE, "connect_timeout = «\"10001ms\"", "longer than a handshake is kept"),
    ]);
    // A wrong value says nothing about the others.
    assert_each(&[(PASSIVE, "connect_timeout = \"1s\"\npassive = «\"of\"", "did you mean `off`?")]);
}

#[test]
fn counts_are_bounded() {
    assert_each_behind(
        BACKEND,
        &[("max_fails = «1001", "from 0 to 1000"), ("max_fails = «-1", "out of range")],
    );
    assert_each_behind(PROBE, &[("rise = «0", "from 1 to 100"), ("rise = «101", "from 1 to 100")]);
    let many = |section: &str, count: usize, line: fn(usize) -> String| {
        let extra: String = (0..count)
            .map(|n| format!("{}{section}\n{}\n", if n + 1 == count { "«" } else { "" }, line(n)))
            .collect();
        format!("{BASE}{extra}")
    };
    let service = |n: usize| format!("name = \"s{n}\"\nlisten = \"203.0.113.10:{}\"", 1000 + n);
    let backend = |n: usize| format!("name = \"b{n}\"\naddress = \"10.0.3.{n}\"").replace(".0\"", ".100\"");
    assert_refused(&many("[[pool.service]]", 16, service), "17 are too many");
    assert_refused(&many("[[pool.backend]]", 16, backend), "17 are too many");
}

#[test]
fn a_name_is_short_plain_and_unique() {
    assert_each(&[
        (POOL, "name = «\"pass words\"", "a name can't contain ` `"),
        (SERVICE, "name = «\"\"", "a name is empty"),
        (BACKEND, "name = «\"-x\"", "a name can't start with `-`"),
    ]);
    assert_each_behind(
        ADDRESS,
        &[
            (
                "[[pool.backend]]\nname = «\"server1\"\naddress = \"10.0.2.12\"",
                "already a backend of this pool, on line 18",
            ),
            (
                "[[pool.service]]\nname = «\"web\"\nlisten = \"203.0.113.10:444\"",
                "already a service of this pool, on line 14",
            ),
        ],
    );
    let second = SECOND_POOL.replace("name = \"mail\"", "name = «\"passwords\"");
    assert_refused(&format!("{BASE}{second}"), "already a pool, on line 5");
}

#[test]
fn a_listening_address_stands_once_in_all_pools() {
    let twice = "[[pool.service]]\nname = \"web2\"\nlisten = «\"203.0.113.10:443\"";
    assert_refused(&behind(ADDRESS, twice), "already a listening address, on line 15");
    let second = SECOND_POOL.replace("\"203.0.113.11:25\"", "«\"203.0.113.10:443\"");
    assert_refused(&format!("{BASE}{second}"), "already a listening address, on line 15");
}

#[test]
fn a_service_listens_where_clients_can_reach_it() {
    assert_each(&[
        (LISTEN, "listen = «\"203.0.113.10\"", "has no port"),
        (LISTEN, "listen = «\"203.0.113.10:0\"", "`0` is not a port"),
        (LISTEN, "listen = «\"203.0.113.10:65536\"", "`65536` is not a port"),
        (LISTEN, "listen = «\"web.example.org:443\"", "a name can't be listened on"),
        (LISTEN, "listen = «\"0.0.0.0:443\"", "the unspecified address"),
        (LISTEN, "listen = «\"127.0.0.1:443\"", "a loopback address"),
        (LISTEN, "listen = «\"224.0.0.1:443\"", "a multicast address"),
        (LISTEN, "listen = «\"255.255.255.255:443\"", "the broadcast address"),
        (LISTEN, "listen = «\"[::ffff:203.0.113.10]:443\"", "write \"203.0.113.10:443\""),
    ]);
    assert_each_behind(
        LISTEN,
        &[("backend_port = «0", "from 1 to 65535"), ("backend_port = «65536", "from 1 to 65535")],
    );
}

#[test]
fn a_backend_is_another_machine() {
    assert_each(&[
        (ADDRESS, "address = «\"203.0.113.10\"", "the address that clients connect to, on line 15"),
        (ADDRESS, "address = «\"10.0.2.11:443\"", "the port is the service's `backend_port`"),
        (ADDRESS, "address = «\"10.0.2.256\"", "is neither an IP address nor a host name"),
        (ADDRESS, "address = «\"0.0.0.0\"", "the unspecified address"),
        (ADDRESS, "address = «\"127.0.0.1\"", "a loopback address"),
        (ADDRESS, "address = «\"239.0.0.1\"", "a multicast address"),
        (ADDRESS, "address = «\"255.255.255.255\"", "the broadcast address"),
        (ADDRESS, "address = «\"::ffff:10.0.2.11\"", "write \"10.0.2.11\""),
    ]);
    let twice = "[[pool.backend]]\nname = \"server2\"\naddress = «\"10.0.2.11\"";
    assert_refused(&behind(ADDRESS, twice), "already a backend's address in this pool, on line 19");
    let circle = SECOND_POOL.replace("\"10.0.2.11\"", "«\"203.0.113.10\"");
    assert_refused(&format!("{BASE}{circle}"), "on line 15");
}

#[test]
fn one_pool_has_one_family() {
    let errors = refused(&replaced(ADDRESS, "address = \"2001:db8::11\"")).to_string();
    assert!(errors.contains("2001:db8::11 is IPv6, but 203.0.113.10 on line 15 is IPv4"), "{errors}");
    let second = "[[pool.service]]\nname = \"v6\"\nlisten = «\"[2001:db8::10]:443\"";
    assert_refused(&behind(ADDRESS, second), "2001:db8::10 is IPv6, but 203.0.113.10 on line 15 is IPv4");
    assert_refused(
        &behind(POOL, "snat_addresses = [«\"2001:db8::1\"]"),
        "2001:db8::1 is IPv6, but 203.0.113.10 on line 16 is IPv4",
    );
}

#[test]
fn source_addresses_are_this_gateways() {
    assert_each_behind(
        POOL,
        &[
            ("snat_addresses = [«\"10.0.2\"]", "is not an IP address"),
            ("snat_addresses = [«\"10.0.2.1:1024\"]", "the ports are those of `snat_ports`"),
            ("snat_addresses = [«\"127.0.0.1\"]", "a loopback address"),
            ("snat_addresses = [«\"224.0.0.1\"]", "a multicast address"),
            ("snat_addresses = [\"10.0.2.1\", «\"10.0.2.1\"]", "already a source address of this pool"),
            ("snat_addresses = [«\"10.0.2.11\"]", "10.0.2.11 is a backend's address, on line 20"),
            ("snat_addresses = «\"10.0.2.1\"", "must be an array of strings"),
            ("forwarding = «\"nat\"", "write \"snat\" or \"dnat\""),
            (
                "forwarding = \"dnat\"\nsnat_addresses = «[\"10.0.2.1\"]",
                "backends see the clients' addresses",
            ),
        ],
    );
    let many: Vec<String> = (1..=17).map(|last| format!("\"10.0.3.{last}\"")).collect();
    let text = behind(POOL, &format!("snat_addresses = «[{}]", many.join(", ")));
    assert_refused(&text, "17 are too many");
    let other = SECOND_POOL.replace("[pool.probe]", "snat_addresses = [«\"10.0.2.11\"]\n[pool.probe]");
    assert_refused(&format!("{BASE}{other}"), "10.0.2.11 is a backend's address, on line 19");
}

#[test]
fn a_probe_key_must_mean_something_to_its_kind() {
    assert_each(&[
        (PROBE, "kind = \"tcp\"\n«server_name = \"x\"", "write kind = \"tls\" or \"https\" or \"http\""),
        (PROBE, "kind = \"none\"\n«verify = false", "means nothing to a probe of the kind \"none\""),
        (PROBE, "kind = \"tcp\"\n«ca_file = \"/ca.pem\"", "means nothing to a probe of the kind \"tcp\""),
        (PROBE, "kind = \"tcp\"\n«run = [\"/x\"]", "write kind = \"exec\""),
        (PROBE, "kind = «\"tlss\"\nrun = [\"/x\"]", "did you mean `tls`?"),
    ]);
    assert_each_behind(
        PROBE,
        &[
            ("«path = \"/\"", "means nothing to a probe of the kind \"tls\""),
            ("«expect_status = \"200\"", "write kind = \"https\" or \"http\""),
            ("«expect_body = \"ok\"", "write kind = \"https\" or \"http\""),
        ],
    );
    let own = "[pool.service.probe]\nkind = \"tcp\"\n«server_name = \"x\"";
    assert_refused(
        &replaced(PROBE, "").replace(LISTEN, &format!("{LISTEN}\n{own}")),
        "pool.service.probe.server_name",
    );
}

#[test]
fn a_command_line_names_a_program() {
    assert_each(&[
        (PROBE, "kind = «\"exec\"", "pool.probe.run: is missing"),
        (PROBE, "kind = \"exec\"\nrun = «[]", "names no program"),
        (PROBE, "kind = \"exec\"\nrun = [«\"check\"]", "is not an absolute path"),
        (PROBE, "kind = \"exec\"\nrun = «\"/check\"", "must be an array of strings"),
        (PROBE, "kind = \"exec\"\nrun = [\"/check\", «\"a\\u0000\"]", "can't contain a NUL"),
        (INTERFACES, "interfaces = [\"wan0\"]\nnotify = [«\"n\"]", "is not an absolute path"),
        (INTERFACES, "interfaces = [\"wan0\"]\nnotify = «[]", "names no program"),
    ]);
}

#[test]
fn a_verified_certificate_needs_a_name_and_a_ca() {
    let text = replaced(PROBE, "").replace("[pool.probe]", "«[pool.probe]");
    assert_refused(&text, "or verify = false, or kind = \"tcp\"");
    let text =
        replaced(PROBE, "").replace("[pool.probe]", "").replace("[[pool.service]]", "«[[pool.service]]");
    assert_refused(&text, "pool.service.probe.server_name: is missing");
    assert_each(&[
        (PROBE, "server_name = «\"https://x\"", "neither a host name nor an IP address"),
        (PROBE, "server_name = «\"\"", "neither a host name nor an IP address"),
        (PROBE, "server_name = \"x\"\nca_file = «\"ca.pem\"", "is not an absolute path"),
    ]);
}

#[test]
fn a_question_must_be_one_that_can_be_asked() {
    let asks = replaced(PROBE, "kind = \"http\"\n?");
    for (key, words) in [
        ("path = «\"health\"", "is not the path of a URL"),
        ("path = «\"\"", "start with `/`"),
        ("path = «\"/a b\"", "is not the path of a URL"),
        ("path = «\"/a\\r\\nX: y\"", "is not the path of a URL"),
        ("path = «\"/ä\"", "as %XX"),
        ("path = «\"/<x>\"", "as %XX"),
        ("path = «\"/a#b\"", "leave out `#`"),
        ("path = «\"http://x/\"", "start with `/`"),
        ("expect_status = «\"\"", "holds no range"),
        ("expect_status = «\"20-30\"", "`20-30` is out of bounds"),
        ("expect_status = «\"2xx\"", "is not a range"),
        ("expect_status = «200", "must be a string"),
        ("expect_body = «1", "must be a string"),
    ] {
        assert_refused(&asks.replace('?', key), words);
    }
    let https = replaced(PROBE, "kind = \"https\"").replace("[pool.probe]", "«[pool.probe]");
    assert_refused(&https, "server_name: is missing");
    assert_refused(
        &replaced(PROBE, "kind = \"http\"\n«ca_file = \"/ca.pem\""),
        "means nothing to a probe of the kind \"http\"",
    );
}

#[test]
fn snat_ports_are_ranges_above_0() {
    assert_each_behind(
        POOL,
        &[
            ("snat_ports = «\"0-100\"", "`0-100` is out of bounds"),
            ("snat_ports = «\"2000-1000\"", "write \"1000-2000\""),
            ("snat_ports = «\"1000-65536\"", "is not a range"),
            ("snat_ports = «\"\"", "holds no range"),
            ("snat_ports = «1024", "must be a string"),
        ],
    );
}

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_the_text() {
    let text = replaced(INTERFACES, "interfaces = []")
        .replace(LISTEN, "listen = \"203.0.113.10:0\"")
        .replace(ADDRESS, "address = \"10.0.2.11\"\nmax_fail = 2");
    let errors = refused(&text);
    let places: Vec<_> = errors.errors().iter().filter_map(|error| error.position()).collect();
    assert_eq!(places, [(2, 14), (15, 10), (20, 1)], "{errors}");
}

#[test]
fn a_wrong_key_of_a_service_is_not_replaced_by_the_pools() {
    let own = "[pool.service.probe]\nkind = «\"tpc\"\npath = \"/\"";
    assert_refused(&behind(LISTEN, own), "unknown value `tpc`");
}

#[test]
fn a_redirect_is_an_address_of_its_own() {
    let http = |listen: &str| format!("{INTERFACES}\n[http]\nlisten = \"{listen}\"");
    assert_each_behind(
        SERVICE,
        &[
            ("redirect_http = «\"203.0.113.10\"", "has no port"),
            ("redirect_http = «\"127.0.0.1:80\"", "a loopback address"),
            ("redirect_http = «\"203.0.113.10:443\"", "is already a listening address"),
            ("redirect_hosts = «[\"a.example\"]", "means nothing without `redirect_http`"),
            (
                "redirect_http = \"203.0.113.10:80\"\nredirect_hosts = [«\"a b\"]",
                "neither a host name nor an IP address",
            ),
        ],
    );
    let redirect = behind(SERVICE, "redirect_http = «\"203.0.113.10:80\"");
    for listen in ["203.0.113.10:80", "0.0.0.0:80", "[::]:80"] {
        assert_refused(&redirect.replace(INTERFACES, &http(listen)), "is where [http] listens");
    }
    for listen in ["203.0.113.11:80", "0.0.0.0:81"] {
        accepted(&redirect.replace(INTERFACES, &http(listen)).replace('«', ""));
    }
    let service = replaced(LISTEN, "listen = «\"203.0.113.10:443\"");
    assert_refused(&service.replace(INTERFACES, &http("203.0.113.10:443")), "is where [http] listens");
}
