//! The interface of `oxen-xend-api` over HTTP.

use crate::daemon::Daemon;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use oxen_xend_api::{Code, Create, Error, Operation, Task, document, route};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::time::timeout;

/// The longest request, in bytes.
const BODY_LIMIT: usize = 1 << 20;
/// The longest that a request for a task's news may wait, in seconds.
const MAX_WAIT_S: u64 = 60;
/// Lines of the log that are shown when nobody says how many.
const LOG_LINES: usize = 500;

type Shared = State<Arc<Daemon>>;

/// Serves requests until `stop` is ready.
///
/// # Errors
///
/// When the socket fails.
pub async fn serve(daemon: Arc<Daemon>, listener: UnixListener, stop: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
    axum::serve(listener, router(daemon)).with_graceful_shutdown(stop).await
}

fn router(daemon: Arc<Daemon>) -> Router {
    let which = route::domain("{which}").replace("%7B", "{").replace("%7D", "}");
    Router::new()
        .route(route::VERSION, get(|State(daemon): Shared| async move { Json(daemon.version()) }))
        .route(route::SCHEMA, get(|| async { Json(document()) }))
        .route(route::HOST, get(|State(daemon): Shared| read(move || daemon.host())))
        .route(route::LOG, get(log))
        .route(route::METRICS, get(|State(daemon): Shared| text(move || Ok(daemon.metrics()))))
        .route(route::TASKS, get(|State(daemon): Shared| async move { Json(daemon.tasks.all()) }))
        .route(&format!("{}/{{id}}", route::TASKS), get(task))
        .route(route::DOMAINS, get(|State(daemon): Shared| read(move || daemon.domains())).post(create))
        .route(route::HALTED, get(|State(daemon): Shared| read(move || Ok::<_, Error>(daemon.halted_domains()))))
        .route(&which, get(|State(daemon): Shared, Path(which): Path<String>| read(move || daemon.domain(&which))))
        .route(&format!("{which}/vcpus"), get(|State(daemon): Shared, Path(which): Path<String>| read(move || daemon.vcpus(&which))))
        .route(&format!("{which}/blocks"), get(|State(daemon): Shared, Path(which): Path<String>| read(move || daemon.blocks(&which))))
        .route(&format!("{which}/networks"), get(|State(daemon): Shared, Path(which): Path<String>| read(move || daemon.networks(&which))))
        .route(&format!("{which}/operations"), axum::routing::post(operate))
        .fallback(|| async { failure(&Error::new(Code::BadRequest, "there is no such resource")) })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(daemon)
}

async fn create(State(daemon): Shared, Query(patience): Query<Patience>, body: String) -> Response {
    let create: Create = match parse(&body) {
        Ok(create) => create,
        Err(error) => return failure(&error),
    };
    begin(&daemon, patience, |daemon| daemon.create(create)).await
}

async fn operate(State(daemon): Shared, Path(which): Path<String>, Query(patience): Query<Patience>, body: String) -> Response {
    let operation: Operation = match parse(&body) {
        Ok(operation) => operation,
        Err(error) => return failure(&error),
    };
    begin(&daemon, patience, move |daemon| daemon.operate(&which, operation)).await
}

/// How long whoever begins a task waits for its end, in seconds.
#[derive(Deserialize)]
struct Patience {
    wait: Option<u64>,
}

/// Begins a task, and shows it as it is at its end or when patience does.
async fn begin(daemon: &Arc<Daemon>, patience: Patience, work: impl FnOnce(&Arc<Daemon>) -> Result<Task, Error> + Send + 'static) -> Response {
    let begun = {
        let daemon = Arc::clone(daemon);
        blocking(move || work(&daemon)).await
    };
    match begun {
        Ok(task) => show(daemon, task.id, patience.wait, Task::ended).await,
        Err(error) => failure(&error),
    }
}

#[derive(Deserialize)]
struct Lines {
    lines: Option<usize>,
}

async fn log(State(daemon): Shared, Query(query): Query<Lines>) -> Response {
    text(move || daemon.log(query.lines.unwrap_or(LOG_LINES))).await
}

#[derive(Deserialize)]
struct News {
    after: Option<u64>,
    wait: Option<u64>,
}

/// A task: at once, or as soon as there is news of it.
async fn task(State(daemon): Shared, Path(id): Path<u64>, Query(news): Query<News>) -> Response {
    show(&daemon, id, news.wait, |task| news.after.is_none_or(|after| task.revision > after)).await
}

/// Shows a task as soon as it is as wanted, or as it is when `wait` seconds are over.
async fn show(daemon: &Daemon, id: u64, wait: Option<u64>, wanted: impl Fn(&Task) -> bool) -> Response {
    let mut changes = daemon.tasks.watch();
    let get = || daemon.tasks.get(id);
    let wait = Duration::from_secs(wait.unwrap_or(0).min(MAX_WAIT_S));
    let wait_for_news = async {
        while let Some(task) = get() {
            if wanted(&task) || changes.changed().await.is_err() {
                break;
            }
        }
    };
    let _ = timeout(wait, wait_for_news).await;
    match get() {
        Some(task) => Json(task).into_response(),
        None => failure(&Error::new(Code::NoSuchTask, format!("there is no task {id}"))),
    }
}

fn parse<T: DeserializeOwned>(body: &str) -> Result<T, Error> {
    serde_json::from_str(body).map_err(|error| Error::new(Code::BadRequest, format!("the request is not understood: {error}")))
}

/// Does blocking work on another thread and answers with its result.
async fn read<T: Serialize + Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Response {
    match blocking(work).await {
        Ok(value) => Json(value).into_response(),
        Err(error) => failure(&error),
    }
}

/// As [`read`], for plain text.
async fn text(work: impl FnOnce() -> Result<String, Error> + Send + 'static) -> Response {
    match blocking(work).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => failure(&error),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::new(Code::Internal, format!("the request broke off: {error}"))))
}

fn failure(error: &Error) -> Response {
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(error)).into_response()
}
