//! The files beside the pages: the style sheet (with values of the Digital Agency's design system), htmx, and the icon.
//!
//! Each is served under the hash of its bytes, so that a browser keeps it for ever and a new version is another address.

use std::sync::LazyLock;

use axum::{
    Router,
    extract::Path,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::Fault;
use crate::digest::Digest;

/// One file: its name, its type, its bytes.
struct Asset(&'static str, &'static str, &'static [u8]);

static ASSETS: [Asset; 3] = [
    Asset("style.css", "text/css; charset=utf-8", include_bytes!("../../assets/style.css")),
    Asset("htmx.min.js", "text/javascript; charset=utf-8", include_bytes!("../../assets/htmx.min.js")),
    Asset("icon.svg", "image/svg+xml", include_bytes!("../../assets/icon.svg")),
];

/// The address of each file, with its hash.
static ADDRESSES: LazyLock<Vec<(&'static str, String)>> = LazyLock::new(|| {
    let address = |asset: &Asset| format!("/assets/{}?v={}", asset.0, Digest::of(asset.2).short());
    ASSETS.iter().map(|asset| (asset.0, address(asset))).collect()
});

/// Where a page finds the file `name`; a name that is none leads to the page that says so.
pub fn address(name: &str) -> &'static str {
    ADDRESSES.iter().find(|(known, _)| *known == name).map_or("/assets/", |(_, address)| address)
}

/// The routes of the files, which anybody may read.
pub(super) fn routes() -> Router {
    Router::new().route("/assets/{name}", get(asset))
}

async fn asset(Path(name): Path<String>) -> Result<Response, Fault> {
    let Asset(_, kind, bytes) = ASSETS.iter().find(|asset| asset.0 == name).ok_or_else(Fault::not_found)?;
    let kept = HeaderValue::from_static("public, max-age=31536000, immutable");
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(kind)), (header::CACHE_CONTROL, kept)];
    Ok((headers, *bytes).into_response())
}
