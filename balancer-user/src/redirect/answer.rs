//! What a request of plain HTTP is answered. Pure.
//!
//! The new URL begins with a host out of the configuration and ends with the request's own path, which is checked: nothing
//! that a client sends can make it lead elsewhere, or be more than one line. GET and HEAD are answered 301, as links and
//! bookmarks are to change; what carries something 308, as 301 would make a GET of it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};

/// The longest path with its query, in bytes, as elsewhere on the web.
const MAX_PATH_BYTES: usize = 8000;
const HTTPS_PORT: u16 = 443;

/// Where clients are sent: a service's https URL, by one of its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// As they stand in a URL; at least one.
    hosts: Vec<String>,
    port: u16,
}

impl Target {
    /// Of a service that listens there, with these names; without any, its address is the one.
    #[must_use]
    pub fn new(hosts: &[String], listen: SocketAddr) -> Self {
        let mut hosts: Vec<String> = hosts.iter().map(|host| in_url(host)).collect();
        if hosts.is_empty() {
            hosts.push(in_url(&listen.ip().to_string()));
        }
        Self { hosts, port: listen.port() }
    }

    /// The host to go on to, for who came by this one.
    fn host(&self, came_by: Option<&str>) -> &str {
        let same = |host: &&String| came_by.is_some_and(|came_by| host.eq_ignore_ascii_case(came_by));
        self.hosts.iter().find(same).unwrap_or(&self.hosts[0])
    }
}

fn in_url(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) => format!("[{v6}]"),
        _ => host.to_ascii_lowercase(),
    }
}

/// Status and new URL, or the status of a refusal.
pub(super) fn answer(head: &Parts, target: &Target) -> Result<(StatusCode, String), StatusCode> {
    let host = host(head)?;
    let status = match head.method {
        Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
        Method::CONNECT | Method::TRACE => return Err(StatusCode::METHOD_NOT_ALLOWED),
        _ => StatusCode::PERMANENT_REDIRECT,
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    if path.len() > MAX_PATH_BYTES {
        return Err(StatusCode::URI_TOO_LONG);
    }
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let host = target.host(host.as_deref());
    let port = if target.port == HTTPS_PORT { String::new() } else { format!(":{}", target.port) };
    Ok((status, format!("https://{host}{port}{path}")))
}

/// The host that the client came by; none: a client of HTTP/1.0, which may not say.
fn host(head: &Parts) -> Result<Option<String>, StatusCode> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() {
        return Err(StatusCode::BAD_REQUEST);
    }
    let written = match (head.uri.authority(), host) {
        // As RFC 9112 (3.2.2) has it, and then Host doesn't matter.
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host.to_str().map_err(|_| StatusCode::BAD_REQUEST)?,
        (None, None) if head.version == Version::HTTP_10 => return Ok(None),
        (None, None) => return Err(StatusCode::BAD_REQUEST),
    };
    name(written).map(Some).ok_or(StatusCode::BAD_REQUEST)
}

/// `host`, `host:80` or `[v6]:80` without the port.
fn name(written: &str) -> Option<String> {
    let (name, port) = match written.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (written, ""),
    };
    let is_name = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    let in_brackets = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let in_brackets = in_brackets.map(|inner| inner.parse::<Ipv6Addr>().ok());
    let name = match in_brackets {
        Some(v6) => format!("[{}]", v6?),
        None => Some(name).filter(|name| is_name(name))?.trim_end_matches('.').to_owned(),
    };
    port.bytes().all(|byte| byte.is_ascii_digit()).then_some(name)
}

#[cfg(test)]
mod tests {
    use hyper::Request;
    use proptest::prelude::*;

    use super::*;

    const LISTEN: &str = "203.0.113.10:443";

    fn target(hosts: &[&str], listen: &str) -> Target {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        Target::new(&hosts, listen.parse().unwrap())
    }

    fn head(method: &str, uri: &str, hosts: &[&str]) -> Parts {
        let request = Request::builder().method(method).uri(uri);
        let request = hosts.iter().fold(request, |request, host| request.header(HOST, *host));
        request.body(()).unwrap().into_parts().0
    }

    fn said(method: &str, uri: &str, hosts: &[&str], target: &Target) -> String {
        match answer(&head(method, uri, hosts), target) {
            Ok((status, location)) => format!("{} {location}", status.as_u16()),
            Err(status) => status.as_u16().to_string(),
        }
    }

    #[test]
    fn path_and_query_are_kept_and_the_port_only_where_it_is_not_443() {
        let usual = target(&["pw.example.org"], LISTEN);
        let other = target(&["pw.example.org"], "203.0.113.10:8443");
        for (uri, kept) in
            [("/", "/"), ("/a/b?c=d&e=%20", "/a/b?c=d&e=%20"), ("//evil.example/x", "//evil.example/x")]
        {
            let host = &["pw.example.org"];
            assert_eq!(said("GET", uri, host, &usual), format!("301 https://pw.example.org{kept}"));
            assert_eq!(said("GET", uri, host, &other), format!("301 https://pw.example.org:8443{kept}"));
        }
    }

    #[test]
    fn only_hosts_of_the_configuration_are_led_to() {
        let both = target(&["pw.example.org", "Old.Example.org", "2001:db8::10"], LISTEN);
        for (came_by, led_to) in [
            ("pw.example.org", "pw.example.org"),
            ("OLD.example.org:80", "old.example.org"),
            ("old.example.org.", "old.example.org"),
            ("[2001:db8:0::10]:80", "[2001:db8::10]"),
            ("evil.example", "pw.example.org"),
            ("203.0.113.10", "pw.example.org"),
        ] {
            assert_eq!(said("GET", "/x", &[came_by], &both), format!("301 https://{led_to}/x"), "{came_by}");
        }
        let absolute = said("GET", "http://old.example.org/x", &["evil.example"], &both);
        assert_eq!(absolute, "301 https://old.example.org/x");
        assert_eq!(said("GET", "/", &["x"], &target(&[], LISTEN)), "301 https://203.0.113.10/");
        assert_eq!(
            said("GET", "/", &["x"], &target(&[], "[2001:db8::10]:443")),
            "301 https://[2001:db8::10]/"
        );
    }

    #[test]
    fn what_carries_something_is_repeated_as_it_is() {
        let target = target(&["a"], LISTEN);
        for (method, status) in [
            ("GET", "301 "),
            ("HEAD", "301 "),
            ("POST", "308 "),
            ("PUT", "308 "),
            ("OPTIONS", "308 "),
            ("X", "308 "),
        ] {
            assert_eq!(said(method, "/", &["a"], &target), format!("{status}https://a/"));
        }
        assert_eq!(said("TRACE", "/", &["a"], &target), "405");
        assert_eq!(said("CONNECT", "a:443", &["a"], &target), "405");
    }

    #[test]
    fn what_is_no_request_of_this_kind_is_refused() {
        let target = target(&["a"], LISTEN);
        for hosts in
            [&[][..], &["a", "a"], &["a b"], &["a/b"], &["a@b"], &["[::1"], &["a:8x"], &[""], &[":80"]]
        {
            assert_eq!(said("GET", "/", hosts, &target), "400", "{hosts:?}");
        }
        assert_eq!(said("OPTIONS", "*", &["a"], &target), "400");
        assert_eq!(said("GET", &format!("/{}", "x".repeat(MAX_PATH_BYTES)), &["a"], &target), "414");
        let mut old = head("GET", "/", &[]);
        old.version = Version::HTTP_10;
        assert!(answer(&old, &target).is_ok());
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_leads_elsewhere_or_breaks_the_line(
            path in "[ -~]{0,40}", host in "[ -~]{0,20}", method in prop::sample::select(vec!["GET", "POST"])
        ) {
            let uri = format!("/{path}");
            let request = Request::builder().method(method).uri(uri).header(HOST, host);
            let Ok(request) = request.body(()) else { return Ok(()) };
            let (head, ()) = request.into_parts();
            if let Ok((_, location)) = answer(&head, &target(&["pw.example.org"], LISTEN)) {
                prop_assert!(location.starts_with("https://pw.example.org/"), "{location}");
                prop_assert!(location.bytes().all(|byte| byte.is_ascii_graphic()), "{location}");
            }
        }
    }
}
