//! `DATABASE_URL=postgres://.. cargo run -p qudo-axum-example`, then
//! `curl -d '{"item":"tea","count":5}' -H 'content-type: application/json' localhost:3000/orders` and
//! `curl -N localhost:3000/orders/JOB/events`.

use qudo::Manager;
use qudo_axum_example::{asked_to_stop, migrate, pack, serve};
use sqlx::PgPool;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    env_logger::init();
    let url = std::env::var("DATABASE_URL")?;
    let manager = Manager::builder()
        .database(url.as_str())
        .ability::<pack>()
        .plugin(tokio::runtime::Handle::current())
        .build()?;
    let pool = PgPool::connect(&url).await?;
    migrate(&manager, &pool).await?;
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    serve(listener, manager, pool, asked_to_stop()).await
}
