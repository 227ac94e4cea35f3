//! The commands' side of the operators' interface: one request and its answer, over a connection that is there
//! already.

use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::http::{HeaderValue, Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::console::USER_HEADER;
use crate::console::action::NotAllowed;
use crate::limits::ADMIN_ANSWER_MS_MAX;

/// An answer larger than this is not one, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The operator may not.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// Something else answers, or another version.
    #[error("what answers there is not this version of ExoCom: {0}")]
    Answer(String),
    /// The connection broke.
    #[error("the broker closed the connection: {0}")]
    Closed(String),
    /// Nothing comes.
    #[error("the broker does not answer within {} s", ADMIN_ANSWER_MS_MAX / 1000)]
    Silent,
}

/// Asks for something to look at.
pub async fn get<T: DeserializeOwned>(
    io: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    user: &str,
) -> Result<T, AskError> {
    ask(io, Method::GET, path, user, Vec::new()).await
}

/// Gives an order.
pub async fn post<T: DeserializeOwned>(
    io: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    user: &str,
    order: &impl Serialize,
) -> Result<T, AskError> {
    let body = serde_json::to_vec(order).expect("an order is plain data");
    ask(io, Method::POST, path, user, body).await
}

async fn ask<T: DeserializeOwned>(
    io: impl AsyncRead + AsyncWrite + Unpin,
    method: Method,
    path: &str,
    user: &str,
    body: Vec<u8>,
) -> Result<T, AskError> {
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "exocom")
        .header("content-type", "application/json")
        .header(
            USER_HEADER,
            HeaderValue::from_bytes(user.as_bytes()).unwrap_or(HeaderValue::from_static("?")),
        )
        .body(Full::<Bytes>::from(body))
        .expect("a fixed request is well formed");
    let closed = |error: hyper::Error| AskError::Closed(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .map_err(closed)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(closed)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let bytes = body
            .map_err(|error| AskError::Closed(error.to_string()))?
            .to_bytes();
        let unreadable = |error: serde_json::Error| AskError::Answer(error.to_string());
        match status {
            StatusCode::FORBIDDEN => Err(serde_json::from_slice::<NotAllowed>(&bytes)
                .map_err(unreadable)?
                .into()),
            status if status.is_success() => serde_json::from_slice(&bytes).map_err(unreadable),
            status => Err(AskError::Answer(format!("status {status}"))),
        }
    };
    let whole = async {
        tokio::pin!(exchange);
        tokio::select! {
            result = &mut exchange => result,
            // The answer may have come whole before the connection closed.
            _ = connection => exchange.await,
        }
    };
    tokio::time::timeout(Duration::from_millis(ADMIN_ANSWER_MS_MAX), whole)
        .await
        .unwrap_or(Err(AskError::Silent))
}
