//! The broker's side of the operators' interface: HTTP/1 over the admin socket, or over whatever connection with an
//! operator the floor above has made.
//!
//! Each route names its verb and goes through the [`Gate`]; none does anything before the gate lets it. Nothing here
//! knows TLS.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::fs::Mode;
use rustix::process::{geteuid, umask};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::console::USER_HEADER;
use crate::console::action::{Asked, Done, Gate, NotAllowed, Who};
use crate::console::alarms::{AlarmAnswer, AlarmVerb};
use crate::console::figures::Wanted;
use crate::console::metrics;
use crate::console::policy::{PolicyAnswer, PolicyVerb};
use crate::console::quarantine::{QuarantineAnswer, QuarantineVerb};
use crate::console::queue::{QueueAnswer, QueueVerb};
use crate::console::revoked::{RevokeAnswer, RevokeVerb};
use crate::console::status::Status;
use crate::limits::{
    ADMIN_CONNECTIONS_MAX, ADMIN_HEAD_MS_MAX, ADMIN_POLICY_BYTES_MAX, ADMIN_REQUEST_BYTES_MAX,
    ADMIN_TEXT_BYTES_MAX,
};
use crate::wire::printable;

/// What the interface gives access to.
#[derive(Clone)]
pub struct Access {
    /// Where every action passes.
    pub gate: Arc<Gate>,
    /// Takes a snapshot of the broker.
    pub status: StatusOrders,
    /// Carries out an order about the queues; `None` where there is no store.
    pub queue: Option<QueueOrders>,
    /// Carries out an order about what is revoked.
    pub revoke: RevokeOrders,
    /// Carries out an order about the policy.
    pub policy: PolicyOrders,
    /// Carries out an order about alarms, given by somebody.
    pub alarms: Arc<dyn Fn(AlarmVerb, String) -> AlarmAnswer + Send + Sync>,
    /// Carries out an order about what is held, given by somebody.
    pub quarantine: QuarantineOrders,
}

/// Takes snapshots of the broker.
pub type StatusOrders = Arc<dyn Fn(Wanted) -> Pin<Box<dyn Future<Output = Status> + Send>> + Send + Sync>;

/// Carries out orders about what is held, given by somebody.
pub type QuarantineOrders = Arc<
    dyn Fn(QuarantineVerb, String) -> Pin<Box<dyn Future<Output = QuarantineAnswer> + Send>> + Send + Sync,
>;

/// Carries out orders about the queues.
pub type QueueOrders =
    Arc<dyn Fn(QueueVerb) -> Pin<Box<dyn Future<Output = QueueAnswer> + Send>> + Send + Sync>;

/// Carries out orders about what is revoked, given by somebody.
pub type RevokeOrders =
    Arc<dyn Fn(RevokeVerb, String) -> Pin<Box<dyn Future<Output = RevokeAnswer> + Send>> + Send + Sync>;

/// Carries out orders about the policy, given by somebody.
pub type PolicyOrders =
    Arc<dyn Fn(PolicyVerb, String) -> Pin<Box<dyn Future<Output = PolicyAnswer> + Send>> + Send + Sync>;

/// The bound socket; removes its file when it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

/// Why the admin socket cannot be opened.
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

    /// Answers until the task is dropped. Only root and the broker's own user are heard, whatever has become of the
    /// file's mode.
    pub async fn serve(self, access: Access) {
        let _file = self.file;
        let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "the admin socket cannot accept; trying again in 100 ms");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            match local_user(&stream) {
                Ok(uid) => {
                    let answering = answer(stream, Who::Local { uid, says: None }, access.clone());
                    tokio::spawn(async move {
                        answering.await;
                        drop(place);
                    });
                }
                Err(reason) => tracing::warn!(reason, "operator refused at the admin socket"),
            }
        }
    }
}

/// The user at the other end, if they may speak.
fn local_user(stream: &UnixStream) -> Result<u32, String> {
    let peer = stream
        .peer_cred()
        .map_err(|error| format!("the system does not say who it is: {error}"))?;
    let own = geteuid().as_raw();
    match peer.uid() {
        uid if uid == own || uid == 0 => Ok(uid),
        uid => Err(format!(
            "uid {uid} is neither root nor the broker's own user (uid {own})"
        )),
    }
}

/// Answers the requests that come over one connection with somebody, until it ends.
pub async fn answer<IO>(io: IO, who: Who, access: Access)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let name = who.to_string();
    let service = TowerToHyperService::new(router(Caller { who, access }));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(ADMIN_HEAD_MS_MAX))
        .serve_connection(TokioIo::new(io), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(who = name, %error, "an operator's connection ended");
    }
}

/// Who asks, and what for.
#[derive(Clone)]
struct Caller {
    who: Who,
    access: Access,
}

impl Caller {
    /// Through the gate, as an HTTP answer.
    async fn action<T>(
        &self,
        headers: &HeaderMap,
        asked: Asked,
        work: impl Future<Output = Done<T>>,
    ) -> Result<Json<T>, NotAllowed> {
        let who = self.named(headers);
        self.access.gate.action(&who, &asked, work).await.map(Json)
    }

    /// Who asks, with what a local user calls themselves.
    fn named(&self, headers: &HeaderMap) -> Who {
        let mut who = self.who.clone();
        if let Who::Local { says, .. } = &mut who {
            *says = headers
                .get(USER_HEADER)
                .filter(|user| !user.is_empty())
                .map(|user| printable(user.as_bytes(), ADMIN_TEXT_BYTES_MAX));
        }
        who
    }
}

impl IntoResponse for NotAllowed {
    fn into_response(self) -> Response {
        (StatusCode::FORBIDDEN, Json(self)).into_response()
    }
}

fn router(caller: Caller) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/metrics", get(metrics))
        .route("/v1/queue", post(queue))
        .route("/v1/revoked", post(revoked))
        .route(
            "/v1/policy",
            post(policy).layer(DefaultBodyLimit::max(ADMIN_POLICY_BYTES_MAX)),
        )
        .route("/v1/alarms", post(alarms))
        .route("/v1/quarantine", post(quarantine))
        .layer(DefaultBodyLimit::max(ADMIN_REQUEST_BYTES_MAX))
        .with_state(caller)
}

async fn status(
    State(caller): State<Caller>,
    headers: HeaderMap,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Status>, NotAllowed> {
    let work = async {
        Done {
            answer: (caller.access.status)(wanted).await,
            outcome: Ok("shown".to_owned()),
        }
    };
    caller.action(&headers, Asked::look("status"), work).await
}

async fn metrics(State(caller): State<Caller>, headers: HeaderMap) -> Result<Response, NotAllowed> {
    let who = caller.named(&headers);
    let work = async {
        Done {
            answer: (caller.access.status)(metrics::wanted()).await,
            outcome: Ok("shown".to_owned()),
        }
    };
    let status = caller
        .access
        .gate
        .action(&who, &Asked::look("metrics"), work)
        .await?;
    Ok(([metrics::CONTENT_TYPE], metrics::to_text(status)).into_response())
}

async fn queue(
    State(caller): State<Caller>,
    headers: HeaderMap,
    Json(verb): Json<QueueVerb>,
) -> Result<Json<QueueAnswer>, NotAllowed> {
    let asked = verb.asked();
    let work = async {
        let answer = match &caller.access.queue {
            Some(carry_out) => carry_out(verb).await,
            None => QueueAnswer::refused(
                "this broker has no store; add [store] with folder = \"store\" to its configuration",
            ),
        };
        Done::of(answer)
    };
    caller.action(&headers, asked, work).await
}

async fn revoked(
    State(caller): State<Caller>,
    headers: HeaderMap,
    Json(verb): Json<RevokeVerb>,
) -> Result<Json<RevokeAnswer>, NotAllowed> {
    let asked = verb.asked();
    let work = async {
        let answer = (caller.access.revoke)(verb, caller.named(&headers).name()).await;
        Done::of(answer)
    };
    caller.action(&headers, asked, work).await
}

async fn policy(
    State(caller): State<Caller>,
    headers: HeaderMap,
    Json(verb): Json<PolicyVerb>,
) -> Result<Json<PolicyAnswer>, NotAllowed> {
    let asked = verb.asked();
    let work = async {
        let answer = (caller.access.policy)(verb, caller.named(&headers).name()).await;
        Done::of(answer)
    };
    caller.action(&headers, asked, work).await
}

async fn alarms(
    State(caller): State<Caller>,
    headers: HeaderMap,
    Json(verb): Json<AlarmVerb>,
) -> Result<Json<AlarmAnswer>, NotAllowed> {
    let asked = verb.asked();
    let work = async {
        let answer = (caller.access.alarms)(verb, caller.named(&headers).name());
        Done::of(answer)
    };
    caller.action(&headers, asked, work).await
}

async fn quarantine(
    State(caller): State<Caller>,
    headers: HeaderMap,
    Json(verb): Json<QuarantineVerb>,
) -> Result<Json<QuarantineAnswer>, NotAllowed> {
    let asked = verb.asked();
    let work = async {
        let answer = (caller.access.quarantine)(verb, caller.named(&headers).name()).await;
        Done::of(answer)
    };
    caller.action(&headers, asked, work).await
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "the admin socket's file was gone already");
        }
    }
}
