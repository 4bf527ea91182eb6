//! Answers Prometheus over HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use qudo::Manager;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::page::{Ask, page};

const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// A scrape within this time of the last answer gets that answer.
const FRESH: Duration = Duration::from_secs(1);

/// The greatest number of connections that are open at a time; others wait.
const MAX_CONNECTIONS: usize = 64;

/// A connection on which no request has come after this time is closed, and so is one that takes this much longer than the
/// databases to read the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_secs(1);

struct Server {
    manager: Manager,
    ask: Ask,
    /// The last answer. It is locked while the databases are asked, so that one scrape at a time asks them.
    last: Arc<Mutex<Last>>,
}

#[derive(Default)]
struct Last {
    page: Option<(Instant, Bytes)>,
    /// The warnings of the last answer: the log has each once.
    troubles: Vec<(String, String)>,
}

/// Answers scrapes until SIGTERM or SIGINT.
///
/// # Errors
///
/// When it cannot listen there.
pub(super) fn serve(manager: Manager, ask: Ask, on: SocketAddr) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let listener = TcpListener::bind(on).await?;
        eprintln!("qudo: metrics are at http://{}/metrics", listener.local_addr()?);
        // The first process of a container is ended by no signal that it does not handle.
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        let server = Arc::new(Server { manager, ask, last: Arc::default() });
        tokio::select! {
            () = take_connections(&listener, &server) => Ok(()),
            _ = terminated.recv() => Ok(()),
            _ = interrupted.recv() => Ok(()),
        }
    });
    // A database that is asked at this moment is not waited for.
    runtime.shutdown_background();
    ended
}

async fn take_connections(listener: &TcpListener, server: &Arc<Server>) {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(place) = Arc::clone(&free).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let server = Arc::clone(server);
                tokio::spawn(async move {
                    converse(server, stream).await;
                    drop(place);
                });
            }
            // The connection was reset, or too many files are open: both pass.
            Err(error) => {
                log::warn!("connections cannot be taken: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// One request and its answer. Scrapes come seldom, so a connection is not kept open between them.
async fn converse(server: Arc<Server>, stream: TcpStream) {
    let longest = server.ask.limit + PATIENCE * 2;
    let answer = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(answer(&server, &request).await) }
    });
    let mut connection = http1::Builder::new();
    connection.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let connection = connection.serve_connection(TokioIo::new(stream), answer);
    match timeout(longest, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!("a connection ended: {error}"),
        Err(_) => log::debug!("a connection took too long"),
    }
}

async fn answer(server: &Server, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let plain =
        |status, text: &'static str| response(status, TEXT, Bytes::from_static(text.as_bytes()));
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => match server.page().await {
            Some(page) => response(StatusCode::OK, METRICS, page),
            None => plain(StatusCode::INTERNAL_SERVER_ERROR, "the numbers cannot be told\n"),
        },
        "/healthz" => plain(StatusCode::OK, "this server answers\n"),
        _ => plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n"),
    }
}

fn response(status: StatusCode, kind: &'static str, text: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

impl Server {
    /// Runs on a task of its own: when a scrape hangs up, the look goes on, and the next scrape gets its answer.
    async fn page(&self) -> Option<Bytes> {
        let (last, manager, ask) = (Arc::clone(&self.last), self.manager.clone(), self.ask);
        let look = tokio::spawn(async move {
            let mut last = last.lock_owned().await;
            if let Some((at, page)) = &last.page
                && at.elapsed() < FRESH
            {
                return Some(page.clone());
            }
            // The manager blocks.
            let made = match spawn_blocking(move || page(&manager, ask)).await {
                Ok(Ok(made)) => made,
                Ok(Err(error)) => return told(&error),
                Err(error) => return told(&error),
            };
            for (database, trouble) in &made.troubles {
                if !last.troubles.iter().any(|(one, said)| one == database && said == trouble) {
                    log::warn!("database {database:?}: {trouble}");
                }
            }
            let page = Bytes::from(made.text);
            *last = Last { page: Some((Instant::now(), page.clone())), troubles: made.troubles };
            Some(page)
        });
        look.await.ok().flatten()
    }
}

fn told(error: &dyn std::error::Error) -> Option<Bytes> {
    log::error!("the numbers cannot be told: {error}");
    None
}
