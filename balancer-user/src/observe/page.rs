//! The dashboard's page, in one piece: what it looks like, what it does, and the first picture. Browsers run and load nothing
//! else for it.

use std::fmt::Write as _;

use bytes::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

use super::board::Shot;
use super::picture;

/// Its places to be filled stand in `{{` and `}}`.
const PAGE: &str = include_str!("page.html");

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The page for one who looks, and what it may do by its `Content-Security-Policy`.
pub(super) fn page(shot: &Shot) -> (Bytes, String) {
    let nonce = nonce();
    let about = picture::inert(&picture::about());
    let [first, news] =
        [shot.state(), shot.news()].map(|json| picture::inert(&String::from_utf8_lossy(&json)));
    let mut page = String::with_capacity(PAGE.len() + about.len() + first.len() + news.len() + 256);
    let mut pieces = PAGE.split("{{");
    page.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (place, rest) = piece.split_once("}}").unwrap_or(("", piece));
        page.push_str(match place {
            "nonce" => &nonce,
            "about" => &about,
            "state" => &first,
            "news" => &news,
            _ => "",
        });
        page.push_str(rest);
    }
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    );
    (page.into(), policy)
}

/// For answers of any kind: they are for nobody's cache, frame or guess of their type.
pub(super) fn harden(headers: &mut HeaderMap) {
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (RESOURCE_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(CONTENT_SECURITY_POLICY) {
        let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
        headers.insert(CONTENT_SECURITY_POLICY, nothing);
    }
}

/// Nobody who has something of his own shown on the page knows it beforehand.
fn nonce() -> String {
    let mut bytes = [0u8; 16];
    // Fails only before the machine has any randomness, which is long before there is a network.
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_loads_nothing_from_elsewhere() {
        assert!(PAGE.len() < 150_000, "{} bytes", PAGE.len());
        for word in [
            "http://",
            "https://",
            "src=",
            "url(",
            "@import",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            " style=\"",
            " onclick=",
        ] {
            // The namespace of drawings is a name, not an address.
            let elsewhere = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains(word), "{word} stands in the page");
        }
        let places: Vec<_> =
            PAGE.split("{{").skip(1).filter_map(|piece| Some(piece.split_once("}}")?.0)).collect();
        assert_eq!(places, ["nonce", "about", "state", "news", "nonce"]);
    }

    #[test]
    fn no_nonce_comes_twice() {
        let (one, other) = (nonce(), nonce());
        assert!(one.len() == 32 && one != other, "{one} {other}");
    }
}
