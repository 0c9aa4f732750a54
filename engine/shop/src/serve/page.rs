//! The page at `/`: four files in the binary. It needs nothing from anywhere else, and no script or style in it may come from elsewhere.

use axum::Router;
use axum::http::{HeaderName, header};
use axum::routing::get;

const HTML: &str = include_str!("../page/index.html");
const STYLE: &str = include_str!("../page/page.css");
const SCRIPT: &str = include_str!("../page/page.js");
const RPC: &str = include_str!("../page/rpc.js");

/// What a browser may do with each file.
const SAFETY: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // Another build of the server may have another page.
    (header::CACHE_CONTROL, "no-cache"),
];

pub(super) fn router() -> Router {
    let file = |kind: &'static str, text: &'static str| get(async move || (SAFETY, [(header::CONTENT_TYPE, kind)], text));
    Router::new()
        .route("/", file("text/html; charset=utf-8", HTML))
        .route("/page.css", file("text/css; charset=utf-8", STYLE))
        .route("/page.js", file("text/javascript; charset=utf-8", SCRIPT))
        .route("/rpc.js", file("text/javascript; charset=utf-8", RPC))
}
