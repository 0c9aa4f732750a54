//! The hub as a route of an axum application.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

use super::upgrade::Upgrade;
use super::{WebReader, WebWriter};
use crate::asked::{self, Refused};
use crate::hub::Hub;
use crate::listener::Entered;
use crate::transport::{Close, FrameReader, FrameWriter};

/// Whose pages may connect. A page of anybody's could otherwise call with the cookies of whoever looks at it. What is not a browser says no
/// origin, and passes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Origins {
    /// Pages of the host that they connect to. The peer lets in everybody unless told otherwise.
    #[default]
    Same,
    /// Of these origins: `https://example.org`.
    Listed(Vec<String>),
    /// Of all.
    Any,
}

impl Origins {
    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        let Ok(origin) = origin.to_str() else { return false };
        match self {
            Origins::Any => true,
            Origins::Listed(listed) => listed.iter().any(|listed| listed.eq_ignore_ascii_case(origin)),
            Origins::Same => {
                let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
                let of = origin.split_once("://").map(|(_, host)| host);
                host.zip(of).is_some_and(|(host, of)| host.eq_ignore_ascii_case(of))
            }
        }
    }
}

/// A router with the hub at `/rpc/ws`, for pages of the same host. It can be merged into any other.
///
/// Whoever listens should set `TCP_NODELAY`, or answers wait for the other end's acknowledgements now and then: a [`Listener`](crate::Listener) does,
/// `axum::serve` does by `ListenerExt::tap_io`.
pub fn router(hub: Hub) -> Router {
    router_for(hub, Origins::default())
}

/// As [`router`], for other pages.
pub fn router_for(hub: Hub, origins: Origins) -> Router {
    let door = Door { hub, origins, backend: false };
    Router::new().route("/rpc/ws", any(connect)).with_state(door)
}

/// A router with the hub at `/backend/rpc/ws`, for other servers: they may call [backend services](crate::HubBuilder::backend_service). Pages never
/// may. It is for an application that listens where nobody else can connect; nothing of it is in [`router`].
pub fn backend_router(hub: Hub) -> Router {
    let door = Door { hub, origins: Origins::Listed(Vec::new()), backend: true };
    Router::new().route("/backend/rpc/ws", any(connect)).with_state(door)
}

/// What is known of whoever connects by a route.
#[derive(Clone)]
struct Door {
    hub: Hub,
    origins: Origins,
    backend: bool,
}

async fn connect(
    State(Door { hub, origins, backend }): State<Door>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
    mut request: Parts,
) -> Response {
    if !origins.admits(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let entered = request.extensions.remove().or_else(|| {
        let from = request.extensions.get().map(|ConnectInfo::<SocketAddr>(from)| *from);
        hub.seat(from.map(|from| from.ip())).map(|seat| Entered::alone(seat, from))
    });
    let Some(entered) = entered else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let admitted = async {
        let mut visitor = asked::visitor(query.as_deref().unwrap_or_default())?;
        (visitor.backend, visitor.address, visitor.request) = (backend, entered.from, Some(Box::new(request)));
        hub.admit(&mut visitor).await.map(|()| visitor).map_err(Refused::Turned)
    };
    let visitor = match admitted.await {
        Ok(visitor) => visitor,
        Err(Refused::Unreadable) => return StatusCode::BAD_REQUEST.into_response(),
        Err(Refused::Turned(refusal)) => return (refusal.status(), refusal.reason().to_owned()).into_response(),
        // A browser does not see why a connection is refused, so it is made first.
        Err(refusal @ Refused::Format(_)) => {
            return upgrade.then(async move |reader, writer| {
                let _seat = entered;
                refuse(reader, writer, &refusal).await;
            });
        }
    };
    upgrade.then(async move |reader, writer| entered.serve(&hub, visitor, reader, writer).await)
}

async fn refuse(mut reader: WebReader, mut writer: WebWriter, refusal: &Refused) {
    let (code, reason) = refusal.close();
    let close = async {
        writer.close(Close { code, reason: &reason }).await;
        // What was sent meanwhile is read: a socket that is closed with something unread may take the code with it.
        while let Ok(Some(_)) = reader.read().await {}
    };
    // The client has not heard it in time, or has gone.
    let _ = tokio::time::timeout(FAREWELL, close).await;
}

/// How long a client may take to hear that it is refused.
const FAREWELL: Duration = Duration::from_secs(1);
