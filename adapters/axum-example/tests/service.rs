//! The service as a browser and as an operator see it.

#![allow(missing_docs, reason = "a test is read, not called")]

use std::net::SocketAddr;
use std::time::Duration;

use qudo::Manager;
use qudo_axum_example::{migrate, pack, serve};
use qudo_test_servers::FreshDatabase;
use sqlx::PgPool;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_mins(1);

/// Sends an order; returns the id of its job.
async fn order(address: SocketAddr, count: u32) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let body = format!("{{\"item\":\"tea\",\"count\":{count}}}");
    let request = format!(
        "POST /orders HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answers");
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("has a body");
    let body: serde_json::Value = serde_json::from_str(body).expect("is JSON");
    body["job"].as_str().expect("names the job").to_owned()
}

/// The lines of what is told of a job, until the connection ends.
async fn events(address: SocketAddr, job: &str) -> Vec<String> {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let request =
        format!("GET /orders/{job}/events HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("is sent");
    let (mut lines, mut all) = (BufReader::new(stream).lines(), Vec::new());
    while let Ok(Some(line)) = lines.next_line().await {
        all.push(line);
    }
    all
}

#[test]
fn orders_are_packed_watched_and_ended_with_the_service() {
    let fresh = FreshDatabase::on("postgres", "axum").expect("always there");
    let runtime = tokio::runtime::Runtime::new().expect("starts");
    runtime.block_on(async {
        let manager = Manager::builder()
            .linked(false)
            .database(fresh.url())
            .ability::<pack>()
            .plugin(tokio::runtime::Handle::current())
            .build()
            .expect("valid");
        let pool = PgPool::connect(fresh.url()).await.expect("connects");
        migrate(&manager, &pool).await.expect("migrates");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        let (stop, asked) = oneshot::channel::<()>();
        let asked = async move { drop(asked.await) };
        let service = tokio::spawn(serve(listener, manager, pool.clone(), asked));

        let job = order(address, 3).await;
        let told = timeout(DEADLINE, events(address, &job)).await.expect("ends with the job");
        let has = |line: &str| told.iter().any(|told| told == line);
        for line in ["data: tea 1", "data: tea 2", "data: tea 3", "event: done", "data: 3"] {
            assert!(has(line), "{line}: {told:?}");
        }
        assert!(has("event: progress"), "{told:?}");
        // Also when it is over.
        let told = timeout(DEADLINE, events(address, &job)).await.expect("ends");
        assert!(told.iter().any(|told| told == "data: tea 2"), "{told:?}");

        // Whoever watches does not hold up the end, and what runs is ended first.
        let job = order(address, 50).await;
        let watching = tokio::spawn(async move { events(address, &job).await });
        timeout(DEADLINE, async {
            let begun = "SELECT COUNT(*) FROM qudo_lease";
            while sqlx::query_scalar::<_, i64>(begun).fetch_one(&pool).await.expect("counts") == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("it runs");
        stop.send(()).expect("it listens");
        timeout(DEADLINE, service).await.expect("ends").expect("no panic").expect("no error");
        timeout(DEADLINE, watching).await.expect("is let go").expect("no panic");
        let left = "SELECT COUNT(*) FROM qudo_lease";
        assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(&pool).await.expect("counts"), 0);
        let orders = "SELECT COUNT(*) FROM shop_order";
        assert_eq!(sqlx::query_scalar::<_, i64>(orders).fetch_one(&pool).await.expect("counts"), 2);
    });
}
