//! HTTP for this machine alone: a listener on loopback, with a bound on everything.
//!
//! Promises: no address but one of loopback is listened on; so many connections are open at once, each for so long, so that a
//! system that opens connections and says nothing takes no more than that from the others; [`is_meant`] tells a request that was
//! sent to this machine's own name from one that another site's page sent.
//!
//! Deliberately absent: routes, TLS, and who the caller is.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, HeaderValue, Uri, header},
    serve::Listener,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinHandle,
    time::{Sleep, sleep, timeout},
};

/// How many connections there are at once.
const MAX_CONNECTIONS: usize = 64;
/// How long one connection may be used; a client opens another.
const MAX_AGE: Duration = Duration::from_secs(120);
/// How long to wait when the system has no connection to give.
const AGAIN: Duration = Duration::from_millis(100);
/// How long open requests may take after a stop.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// A running server.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

/// Serves `routes` of the listener at `address`, which is of loopback, until it is stopped. The routes are told the address
/// with its real port.
///
/// # Errors
/// When the address is another one, or is taken.
pub async fn serve(address: SocketAddr, routes: impl FnOnce(SocketAddr) -> Router) -> io::Result<Running> {
    if !address.ip().is_loopback() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is for this machine only"));
    }
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel();
    let server = axum::serve(Bounded::new(listener), routes(address)).with_graceful_shutdown(async {
        // It is dropped or sent: both mean the end.
        let _ = stopped.await;
    });
    Ok(Running { address, stop, task: tokio::spawn(server.into_future()) })
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets open requests end, for a while, and stops.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let mut task = self.task;
        if timeout(LAST_REQUESTS, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// The names under which the listener at `address` is asked.
pub fn own_names(address: SocketAddr) -> [String; 2] {
    [address.to_string(), format!("localhost:{}", address.port())]
}

/// Whether a request was sent to one of `hosts`, and not by another site's page. A page that had its own name resolved to
/// loopback still sends that name.
pub fn is_meant(headers: &HeaderMap, uri: &Uri, hosts: &[String]) -> bool {
    let origins: Vec<String> = hosts.iter().map(|host| format!("http://{host}")).collect();
    is_sent_to(headers, uri, hosts, &origins)
}

/// Whether a request was sent to one of `hosts`, and not by a page of a site that is none of `origins`.
pub fn is_sent_to(headers: &HeaderMap, uri: &Uri, hosts: &[String], origins: &[String]) -> bool {
    let among = |list: &[String], one: &str| list.iter().any(|known| known.eq_ignore_ascii_case(one));
    let known = |host: &str| among(hosts, host);
    let mut named = headers.get_all(header::HOST).iter();
    let one = named.next().and_then(|host| host.to_str().ok()).is_some_and(known) && named.next().is_none();
    let origin = |origin: &HeaderValue| origin.to_str().is_ok_and(|origin| among(origins, origin));
    one && uri.authority().is_none_or(|to| known(to.as_str())) && headers.get_all(header::ORIGIN).iter().all(origin)
}

/// A listener that accepts so many connections; also of those that listen more widely.
pub struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Bounded {
    /// The connections of `listener`.
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    return (Connection { stream, age: Box::pin(sleep(MAX_AGE)), _place: place }, from);
                }
                Err(_) => sleep(AGAIN).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that holds one of the places until it ends.
pub struct Connection {
    stream: TcpStream,
    age: Pin<Box<Sleep>>,
    /// The semaphore is never closed, so there is one.
    _place: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.age.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.age.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_to_this_machines_own_name_is_meant() {
        let hosts = ["127.0.0.1:8816".to_string(), "localhost:8816".to_string()];
        for (uri, headers, expect) in [
            ("/v1", &[("host", "127.0.0.1:8816")][..], true),
            ("/v1", &[("host", "LOCALHOST:8816")], true),
            ("/v1", &[], false),
            ("/v1", &[("host", "127.0.0.1")], false),
            ("/v1", &[("host", "127.0.0.1:80")], false),
            ("/v1", &[("host", "rebound.example:8816")], false),
            ("/v1", &[("host", "127.0.0.1:8816"), ("host", "rebound.example")], false),
            ("http://rebound.example:8816/v1", &[("host", "127.0.0.1:8816")], false),
            ("http://127.0.0.1:8816/v1", &[("host", "127.0.0.1:8816")], true),
            ("/v1", &[("host", "localhost:8816"), ("origin", "http://localhost:8816")], true),
            ("/v1", &[("host", "localhost:8816"), ("origin", "http://page.example")], false),
            ("/v1", &[("host", "localhost:8816"), ("origin", "null")], false),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(is_meant(&map, &Uri::from_static(uri), &hosts), expect, "{uri} {headers:?}");
        }
    }
}
