//! The admin socket: HTTP/1 over a Unix socket, and the client that the commands use.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Json;
use axum::routing::{get, post};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::net::{UnixListener, UnixStream};

use crate::console::queue::{QueueAnswer, QueueVerb};
use crate::console::status::Status;
use crate::limits::ADMIN_REQUEST_BYTES_MAX;

/// An answer larger than this is not one, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// What the socket gives access to.
#[derive(Clone)]
pub struct Access {
    /// Takes a snapshot of the broker.
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
    /// Carries out an order about the queues; `None` where there is no store.
    pub queue: Option<QueueOrders>,
}

/// Carries out orders about the queues.
pub type QueueOrders =
    Arc<dyn Fn(QueueVerb) -> Pin<Box<dyn Future<Output = QueueAnswer> + Send>> + Send + Sync>;

/// The bound socket; removes its file when it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

/// Why the admin socket cannot be opened, or a command cannot speak to it.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Another broker answers there.
    #[error(
        "{0}: another broker is running with this socket; stop it, or set another admin-socket (of `exocom dev`: another --dir)"
    )]
    InUse(PathBuf),
    /// A file is there that no broker has left.
    #[error("{0}: there is a file that is no socket; move it away, or set another admin-socket")]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("{path}: cannot open the admin socket: {error}")]
    Bind {
        /// The socket's path.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Nobody listens.
    #[error(
        "{path}: no broker answers there: {error}; is it running? `exocom serve` and `exocom dev` make this socket"
    )]
    Connect {
        /// The socket's path.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Something else listens.
    #[error("{path}: what answers there is not this version of ExoCom: {reason}")]
    Answer {
        /// The socket's path.
        path: PathBuf,
        /// What was wrong with the answer.
        reason: String,
    },
}

impl AdminSocket {
    /// Binds the socket, for its own user alone. A file left by a broker that was killed is replaced.
    pub fn bind(path: &Path) -> Result<Self, AdminError> {
        let failed = |error| AdminError::Bind {
            path: path.to_owned(),
            error,
        };
        if let Ok(metadata) = path.symlink_metadata() {
            if !metadata.file_type().is_socket() {
                return Err(AdminError::NotASocket(path.to_owned()));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(AdminError::InUse(path.to_owned()));
            }
            std::fs::remove_file(path).map_err(failed)?;
        }
        // Nobody else may open it, not even between its making and the line that says so.
        let usual = umask(Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(path).map_err(failed);
        umask(usual);
        let listener = listener?;
        let file = SocketFile(path.to_owned());
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener, file })
    }

    /// Answers until the task is dropped.
    pub async fn serve(self, access: Access) -> io::Result<()> {
        let _file = self.file;
        let status = async |State(access): State<Access>| Json((access.status)());
        let queue = async |State(access): State<Access>, Json(verb): Json<QueueVerb>| {
            Json(match &access.queue {
                Some(carry_out) => carry_out(verb).await,
                None => QueueAnswer::refused(
                    "this broker has no store; add [store] with folder = \"store\" to its configuration",
                ),
            })
        };
        let router = Router::new()
            .route("/v1/status", get(status))
            .route("/v1/queue", post(queue))
            .layer(DefaultBodyLimit::max(ADMIN_REQUEST_BYTES_MAX))
            .with_state(access);
        axum::serve(self.listener, router).await
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "the admin socket's file was gone already");
        }
    }
}

/// Asks a running broker for its status.
pub async fn status(socket: &Path) -> Result<Status, AdminError> {
    let request = hyper::Request::get("/v1/status").body(Full::default());
    ask(socket, request).await
}

/// Gives a running broker an order about its queues.
pub async fn queue(socket: &Path, verb: &QueueVerb) -> Result<QueueAnswer, AdminError> {
    let body = serde_json::to_vec(verb).expect("a verb is plain data");
    let request = hyper::Request::post("/v1/queue")
        .header("content-type", "application/json")
        .body(Full::from(body));
    ask(socket, request).await
}

async fn ask<T: serde::de::DeserializeOwned>(
    socket: &Path,
    request: Result<hyper::Request<Full<Bytes>>, hyper::http::Error>,
) -> Result<T, AdminError> {
    let answer = |reason: String| AdminError::Answer {
        path: socket.to_owned(),
        reason,
    };
    let mut request = request.expect("a fixed request is well formed");
    request
        .headers_mut()
        .insert("host", hyper::header::HeaderValue::from_static("exocom"));
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| AdminError::Connect {
            path: socket.to_owned(),
            error,
        })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| answer(error.to_string()))?;
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| answer(error.to_string()))?;
        if !response.status().is_success() {
            return Err(answer(format!("status {}", response.status())));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let bytes = body.map_err(|error| answer(error.to_string()))?.to_bytes();
        serde_json::from_slice(&bytes).map_err(|error| answer(error.to_string()))
    };
    tokio::select! {
        result = exchange => result,
        ended = connection => Err(answer(ended.err().map_or("closed early".to_owned(), |error| error.to_string()))),
    }
}
