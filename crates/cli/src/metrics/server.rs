//! Answers Prometheus over HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use qudo::Manager;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::spawn_blocking;

use super::page::{Ask, page};

const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Whoever asks within this time of another is answered the same.
const FRESH: Duration = Duration::from_secs(1);

/// So many connections are open at a time; others wait.
const MAX_CONNECTIONS: usize = 64;

/// Whoever has not asked within this time of connecting is hung up on.
const PATIENCE: Duration = Duration::from_secs(10);

struct Server {
    manager: Manager,
    ask: Ask,
    /// The last answer. It is held while the databases are asked: they are asked by one at a time.
    last: Mutex<Option<(Instant, Bytes)>>,
}

/// Answers until the process ends.
///
/// # Errors
///
/// When it cannot listen there.
pub(super) fn serve(manager: Manager, ask: Ask, on: SocketAddr) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(on).await?;
        eprintln!("qudo: metrics are at http://{}/metrics", listener.local_addr()?);
        let server = Arc::new(Server { manager, ask, last: Mutex::default() });
        let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&free).acquire_owned().await else { return Ok(()) };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = Arc::clone(&server);
                    tokio::spawn(async move {
                        converse(server, stream).await;
                        drop(place);
                    });
                }
                // Of one connection, or of too many open files: that passes.
                Err(error) => {
                    log::warn!("a connection could not be taken: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}

async fn converse(server: Arc<Server>, stream: TcpStream) {
    let answer = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(answer(&server, &request).await) }
    });
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    if let Err(error) = connection.serve_connection(TokioIo::new(stream), answer).await {
        log::debug!("a connection ended: {error}");
    }
}

async fn answer(server: &Arc<Server>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let plain =
        |status, text: &'static str| response(status, TEXT, Bytes::from_static(text.as_bytes()));
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
        refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
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
    let kind = hyper::header::HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

impl Server {
    async fn page(self: &Arc<Self>) -> Option<Bytes> {
        let mut last = self.last.lock().await;
        if let Some((at, page)) = &*last
            && at.elapsed() < FRESH
        {
            return Some(page.clone());
        }
        let this = Arc::clone(self);
        // The manager blocks.
        let text = spawn_blocking(move || page(&this.manager, this.ask)).await;
        let page = Bytes::from(text.ok()?.ok()?);
        *last = Some((Instant::now(), page.clone()));
        Some(page)
    }
}
