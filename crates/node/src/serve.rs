//! Metrics over HTTP: `GET /metrics` in the text format of Prometheus, and nothing else.
//!
//! Whoever reaches the address reads everything, so it should be one that only the operator's machines reach. A connection
//! costs a file of the process; requests have no body that anybody reads.

use anyhow::{Context as _, Result};
use axum::{Router, http::header, routing::get};
use commonware_runtime::{Handle, Metrics as _, Spawner as _, Supervisor as _, tokio::Context};
use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

/// How long a validator may take to answer [`fetch`].
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes the address, so that a process that cannot have it ends before it starts anything.
///
/// # Errors
/// If something else has it.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot serve metrics on {address}; is another process there?"))?;
    listener.set_nonblocking(true).context("cannot serve metrics")?;
    Ok(listener)
}

/// Serves what the runtime has registered until the process ends.
pub fn start(context: &Context, listener: TcpListener) -> Handle<()> {
    context.child("metrics").spawn(move |context| async move {
        let context = Arc::new(context);
        let text = move || {
            let context = context.clone();
            async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], context.encode()) }
        };
        let router = Router::new().route("/metrics", get(text));
        let served = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => axum::serve(listener, router).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::error!(%error, "metrics are not served any more; the validator goes on");
        }
    })
}

/// What a validator serves at this address, for programs that watch it.
///
/// # Errors
/// If nobody answers in time, or not with metrics.
pub fn fetch(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // The oldest version: the other side closes the connection after its answer.
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, text)) if head.split(' ').nth(1) == Some("200") => Ok(text.to_owned()),
        _ => Err(io::Error::other(format!("{address} does not serve metrics"))),
    }
}

/// The value of a metric in what [`fetch`] returns: `name` with its labels, as it stands there.
pub fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
