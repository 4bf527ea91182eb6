#![doc = include_str!("../README.md")]

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{Stream, StreamExt, future, stream};
use qudo::{Job, JobId, JobResult, Manager, Ticket, Update};
use qudo_sqlx::EnqueueIn;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// An order, as it is sent and as the job has it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// What.
    pub item: String,
    /// How many of it.
    pub count: u32,
}

/// Packs an order, piece by piece.
///
/// # Errors
///
/// When what it tells cannot be stored; it is tried again then.
#[qudo::ability(max_retries = 3)]
pub async fn pack(job: &Job, order: Order) -> JobResult<u32> {
    for done in 1..=order.count {
        tokio::time::sleep(Duration::from_millis(20)).await;
        job.progress(done.into(), u64::from(order.count), &order.item);
        job.send_async(&format!("{} {done}", order.item)).await?;
    }
    Ok(order.count)
}

/// What the handlers share; cheap to clone.
#[derive(Debug, Clone)]
struct Shop {
    manager: Manager,
    pool: PgPool,
    /// Changes when the service is to stop, so that nobody holds it up by watching.
    stop: watch::Receiver<()>,
}

/// Answers with the text of any error.
fn failed(error: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

/// Stores the order and its job, together or not at all.
async fn order(
    State(shop): State<Shop>,
    Json(order): Json<Order>,
) -> Result<(StatusCode, Json<serde_json::Value>), (StatusCode, String)> {
    let mut tx = shop.pool.begin().await.map_err(failed)?;
    sqlx::query("INSERT INTO shop_order (item, amount) VALUES ($1, $2)")
        .bind(&order.item)
        .bind(i64::from(order.count))
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    let sent = shop.manager.enqueue_in(&mut *tx, pack::job(order)).await.map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    let job = sent.id().map(|id| id.to_string());
    Ok((StatusCode::ACCEPTED, Json(json!({ "job": job }))))
}

/// What the job tells, as server-sent events, and then its reply.
async fn events(
    State(shop): State<Shop>,
    Path(job): Path<JobId>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let ticket: Ticket<u32> = shop.manager.ticket(job).typed();
    let told = ticket.updates::<String>().into_stream().map(|update| match update {
        Ok(Update::Sent(line)) => Event::default().event("line").data(line.value),
        Ok(Update::Progress(progress)) => Event::default()
            .event("progress")
            .data(json!({ "done": progress.done, "total": progress.total }).to_string()),
        Ok(_) => Event::default().comment("of a later version"),
        Err(error) => Event::default().event("error").data(error.to_string()),
    });
    let end = stream::once(async move {
        match ticket.wait_async(Duration::from_secs(10)).await {
            Ok(packed) => Event::default().event("done").data(packed.to_string()),
            Err(error) => Event::default().event("error").data(error.to_string()),
        }
    });
    let mut asked = shop.stop.clone();
    let stopped = async move {
        // An error means that the service is gone.
        let _gone = asked.changed().await;
    };
    let all = told.chain(end).take_until(Box::pin(stopped)).map(Ok);
    Sse::new(all).keep_alive(KeepAlive::default())
}

/// Serves, and works, until `asked` is ready. Then requests under way are answered, jobs under way are ended, and it returns.
///
/// # Errors
///
/// When the manager cannot start, or the listener fails.
pub async fn serve(
    listener: TcpListener,
    manager: Manager,
    pool: PgPool,
    asked: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let working = manager.start()?;
    let (stops, stop) = watch::channel(());
    let app = Router::new()
        .route("/orders", post(order))
        .route("/orders/{job}/events", get(events))
        .with_state(Shop { manager, pool, stop });
    let asked = async move {
        asked.await;
        let _nobody_watches = stops.send(());
    };
    let served = axum::serve(listener, app).with_graceful_shutdown(asked).await;
    // It blocks until the last job has ended.
    tokio::task::spawn_blocking(|| working.stop()).await?;
    Ok(served?)
}

/// The tables of the shop and of qudo.
///
/// # Errors
///
/// When the database does not answer.
pub async fn migrate(
    manager: &Manager,
    pool: &PgPool,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let manager = manager.clone();
    tokio::task::spawn_blocking(move || manager.migrate()).await??;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS shop_order (item TEXT NOT NULL, amount BIGINT NOT NULL)",
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Ready when the process is asked to stop, by Ctrl-C or SIGTERM.
pub async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            let interrupt = Box::pin(tokio::signal::ctrl_c());
            let terminate = Box::pin(terminate.recv());
            future::select(interrupt, terminate).await;
        }
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}
