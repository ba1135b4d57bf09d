//! What every answer says to the browser, and which requests are meant for us.
//!
//! `Referrer-Policy` is `same-origin` and not `no-referrer`: under the latter a browser writes `Origin: null` into our own forms, so
//! that they could not be told from another site's. No address of ours reaches another site either way.

use std::{fmt, str::FromStr};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use crate::loopback::is_sent_to;

/// Styles, scripts, pictures and forms are our own; nobody frames a page; nothing is inline.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The headers of every answer.
pub(super) const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
];

/// Where people find the pages: `https://register.example.jp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: &'static str,
    host: String,
}

/// The text is no origin.
#[derive(Debug, thiserror::Error)]
#[error("an origin is https:// and a host, without a path, such as https://register.example.jp")]
pub struct NotAnOrigin;

impl FromStr for Origin {
    type Err = NotAnOrigin;

    /// Cookies of a session do not travel in the clear: there is no origin but an `https` one.
    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        let host = text.strip_prefix("https://").ok_or(NotAnOrigin)?;
        let uri: Uri = text.parse().map_err(|_| NotAnOrigin)?;
        let bare = uri.authority().is_some_and(|authority| authority.as_str() == host && !host.contains('@'));
        if bare { Ok(Self { scheme: "https", host: host.to_ascii_lowercase() }) } else { Err(NotAnOrigin) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)
    }
}

/// The names by which a site is asked.
pub(super) struct Names {
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Names {
    /// The listener's `own` names, and the one that a reverse proxy passes on.
    pub(super) fn new(own: &[String], origin: Option<&Origin>) -> Self {
        let mut names =
            Self { hosts: own.to_vec(), origins: own.iter().map(|host| format!("http://{host}")).collect() };
        if let Some(origin) = origin {
            names.hosts.push(origin.host.clone());
            names.origins.push(origin.to_string());
        }
        names
    }

    /// Whether a request was sent to us, and, where it changes something, by a page of ours.
    pub(super) fn are_meant(&self, method: &Method, headers: &HeaderMap, uri: &Uri) -> bool {
        let sites: Vec<&HeaderValue> = headers.get_all("sec-fetch-site").iter().collect();
        let ours = sites.iter().all(|site| *site == "same-origin");
        let reads = [Method::GET, Method::HEAD].contains(method);
        is_sent_to(headers, uri, &self.hosts, &self.origins) && (reads || ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_https_and_a_host() {
        for (text, expect) in [
            ("https://register.example.jp", true),
            ("https://register.example.jp:8443", true),
            ("http://register.example.jp", false),
            ("https://register.example.jp/", false),
            ("https://register.example.jp/x", false),
            ("https://you@register.example.jp", false),
            ("https://", false),
            ("register.example.jp", false),
        ] {
            assert_eq!(text.parse::<Origin>().is_ok(), expect, "{text}");
        }
    }

    #[test]
    fn a_form_is_taken_from_our_own_pages_alone() {
        let origin: Origin = "https://register.example.jp".parse().unwrap();
        let names = Names::new(&["127.0.0.1:8818".into()], Some(&origin));
        let (own, public) = (("host", "127.0.0.1:8818"), ("host", "register.example.jp"));
        for (method, headers, expect) in [
            (Method::GET, &[own][..], true),
            (Method::GET, &[public], true),
            (Method::GET, &[public, ("sec-fetch-site", "cross-site")], true),
            (Method::GET, &[("host", "rebound.example")], false),
            (Method::POST, &[public], true),
            (Method::POST, &[public, ("origin", "https://register.example.jp")], true),
            (Method::POST, &[own, ("origin", "http://127.0.0.1:8818"), ("sec-fetch-site", "same-origin")], true),
            (Method::POST, &[public, ("origin", "http://register.example.jp")], false),
            (Method::POST, &[public, ("origin", "https://other.example")], false),
            (Method::POST, &[public, ("origin", "null")], false),
            (Method::POST, &[public, ("sec-fetch-site", "cross-site")], false),
            (Method::POST, &[public, ("sec-fetch-site", "same-site")], false),
            (Method::POST, &[public, ("sec-fetch-site", "none")], false),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(names.are_meant(&method, &map, &Uri::from_static("/login")), expect, "{method} {headers:?}");
        }
    }
}
