//! From which pages a browser's request may come. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::Uri;
use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};

/// Whether no name leads here but `localhost`. An attacker makes a name of his own stand for this
/// address (DNS rebinding): for a browser, his page and this API are one site then, and the name is
/// all that tells them apart. What sends no `Host` at all is no browser.
pub(super) fn has_no_foreign_name(headers: &HeaderMap, uri: &Uri) -> bool {
    let given = headers.get_all(HOST).into_iter().map(HeaderValue::as_bytes);
    let whole = uri.authority().map(|authority| authority.as_str().as_bytes());
    given.chain(whole).all(is_no_name)
}

fn is_no_name(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((ip, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = port.strip_prefix(':').or_else(|| port.is_empty().then_some(""));
        return ip.parse::<Ipv6Addr>().is_ok() && port.is_some_and(is_port);
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    is_port(port) && (name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok())
}

/// Whether a command comes from this page, or from no page at all (curl). Browsers say where a
/// request comes from; another site's page must not pause the proxy.
pub(super) fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    if let Some(site) = headers.get("sec-fetch-site").map(text) {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(ORIGIN).map(text) else { return true };
    let host = headers.get(HOST).map(text).unwrap_or_default();
    origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(&host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, value.parse().expect("a header's value"));
        }
        headers
    }

    #[test]
    fn names_are_told_from_addresses() {
        for host in
            ["localhost", "LOCALHOST:7011", "127.0.0.1", "10.0.0.9:7011", "[::1]", "[fe80::1]:7011"]
        {
            assert!(is_no_name(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:7011",
            "localhost.evil.example",
            "127.0.0.1.evil.example:7011",
            "127.0.0.1:7011.evil.example",
            "0x7f.1",
            "2130706433",
            "127.1",
            "::1",
            "[::1",
            "[::1].evil.example",
            "[evil]",
            "localhost:7011@evil.example",
            "user@localhost",
        ] {
            assert!(!is_no_name(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn every_name_of_a_request_counts() {
        let uri = |text: &str| text.parse::<Uri>().expect("a URI");
        let has_none = |list: &[_], at: &str| has_no_foreign_name(&headers(list), &uri(at));
        assert!(has_none(&[], "/"), "HTTP/1.0");
        assert!(has_none(&[("host", "localhost")], "/"));
        assert!(has_none(&[("host", "localhost")], "http://127.0.0.1:7011/"));
        assert!(!has_none(&[("host", "localhost")], "http://evil.example/"));
        assert!(!has_none(&[("host", "localhost"), ("host", "evil.example")], "/"));
    }

    #[test]
    fn other_sites_pages_are_told_apart() {
        for (list, same) in [
            (&[("host", "proxy:7011")][..], true),
            (&[("host", "proxy:7011"), ("origin", "http://proxy:7011")], true),
            (&[("host", "proxy:7011"), ("origin", "https://Proxy:7011")], true),
            (&[("host", "proxy:7011"), ("origin", "http://evil.example")], false),
            (&[("host", "proxy:7011"), ("origin", "null")], false),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
        ] {
            assert_eq!(is_same_origin(&headers(list)), same, "{list:?}");
        }
    }
}
