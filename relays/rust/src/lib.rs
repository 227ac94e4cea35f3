//! The ExoRelay for Rust: sends and receives messages through [ExoCom], a broker that proves who is talking.
//!
//! ```no_run
//! # async fn run() -> Result<(), exorelay::Error> {
//! let relay = exorelay::ExoRelay::connect().await?;
//! relay.send("todos.created", &"buy milk").await?;
//! # Ok(()) }
//! ```
//!
//! `connect` reads `EXOCOM_HOST`, `EXOCOM_PORT`, `EXOCOM_CA`, `EXOCOM_CERT`, `EXOCOM_KEY` and `SERVICE_NAME`:
//! see [`Options::from_env`]. The certificate is the service's identity; there is nothing else to log in with.
//!
//! # Commands and events
//!
//! An **event** tells every service that receives it; [`send`](ExoRelay::send) does not wait. A **command** asks
//! one instance of the service that receives it; [`request`](ExoRelay::request) gives its answer. Payloads are
//! JSON, typed with serde. A service receives with [`handle`](ExoRelay::handle), and what its handler returns is
//! the answer:
//!
//! ```no_run
//! use exorelay::{ExoRelay, Failure, Message};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Todo {
//!     title: String,
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! // The todo service.
//! let todos = ExoRelay::connect().await?;
//! todos
//!     .handle("todos.create", |message: Message, todo: Todo| async move {
//!         if todo.title.is_empty() {
//!             return Err(Failure::bad_request("a todo needs a title"));
//!         }
//!         // An event of the same activity: it carries the trace of the command on.
//!         message.send("todos.created", &todo).await?;
//!         Ok(todo)
//!     })
//!     .await?;
//!
//! // The web server.
//! let web = ExoRelay::connect().await?;
//! let todo = Todo { title: "buy milk".to_owned() };
//! match web.request::<Todo>("todos.create", &todo).await {
//!     Ok(created) => println!("created {}", created.title),
//!     Err(exorelay::Error::NoReceiver { .. }) => println!("the todo service is away"),
//!     Err(error) => println!("{error}"),
//! }
//!
//! // On SIGTERM: finish what has come, then close.
//! todos.shutdown().await?;
//! # Ok(()) }
//! ```
//!
//! # Messages that must not get lost
//!
//! Those whose policy says `delivery = "at-least-once"` are **tracked**: ExoCom keeps them on disk until each
//! receiving service has acknowledged them. [`publish`](ExoRelay::publish) returns when an event is on disk. A
//! message is acknowledged when its handler returns, and delivered again, to another instance where there is one,
//! when the handler fails ([`Failure`] says what a failure means), or its instance dies. So a handler can get a
//! message twice: [`Message::id`] is the same then, and [`Message::attempt`] is not 1.
//!
//! # What it takes care of
//!
//! - **Who sent it**: [`Message::sender`] is the sender's certificate, verified by ExoCom, not a claim.
//! - **Why not**: a request that cannot succeed fails at once, with the reason and the line of policy
//!   ([`Error::Denied`]), not by a timeout.
//! - **Overload**: a handler works on a bounded number of messages at a time, lets a bounded number wait, and
//!   refuses further requests at once.
//! - **Connections**: it connects again for ever, with pauses that grow, and moves to renewed certificates
//!   when their files change. Nothing is queued meanwhile: a message that cannot be sent in time is [`Error::Offline`] and is not sent later.
//! - **History**: with [`Options::keep_checkpoint`] it notices when the broker's audit log was rewritten.
//! - **The end**: [`ExoRelay::shutdown`] finishes the messages that have come.
//!
//! What happens while nobody calls is logged with `tracing`, told to [`Options::on_event`], and seen in
//! [`ExoRelay::status`].
//!
//! [ExoCom]: https://github.com/Originate/exocom

mod backoff;
mod checkpoint;
mod error;
mod event;
mod handlers;
pub mod limits;
mod link;
mod message;
mod name;
mod options;
mod relay;
mod renew;
mod requests;

pub use bytes::Bytes;

pub use error::{Error, Failure};
pub use event::{Event, Status};
pub use message::{Answer, Message, Outgoing, Stored};
pub use name::NameError;
pub use options::Options;
pub use relay::ExoRelay;
