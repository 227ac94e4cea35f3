//! The web server that shows and creates todos. Keeps none: whatever it shows or changes is asked of the todo
//! service, through ExoCom. Its page runs no script and takes no form from another site.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{DefaultBodyLimit, Form, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Router, serve as serve_http};
use exorelay::{Error, ExoRelay, Message};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::todos::TITLE_CHARACTERS_MAX;
use crate::{NewTodo, Todo};

/// The body of a form, in bytes: a title of four-byte characters, each written as `%xx%xx%xx%xx`, and its name.
const BODY_BYTES_MAX: usize = 4 << 10;

/// How long a person waits for the todo service.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// How long open pages are waited for at the end.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Serves the page until `stop`, and then what has been asked.
///
/// # Errors
/// The listener's, and the relay's where it is shut down.
pub async fn serve(
    relay: &ExoRelay,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let heard = Heard::default();
    let created = heard.clone();
    relay
        .handle("todos.created", move |message: Message, todo: Todo| {
            created.note(message.sender(), &todo);
            async { Ok(()) }
        })
        .await
        .map_err(io::Error::other)?;
    let web = Web {
        relay: relay.clone(),
        heard,
    };
    let app = Router::new()
        .route("/", get(show))
        .route("/todos", post(create))
        .route("/style.css", get(style))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(guard))
        .with_state(web);
    let stopping = Arc::new(Notify::new());
    let stopped = Arc::clone(&stopping);
    let serving = serve_http(listener, app).with_graceful_shutdown(async move {
        stop.await;
        stopping.notify_one();
    });
    tokio::select! {
        served = serving => served,
        // A browser may hold a connection open on which it asks nothing.
        () = async { stopped.notified().await; sleep(END_WITHIN).await } => Ok(()),
    }
}

#[derive(Clone)]
struct Web {
    relay: ExoRelay,
    heard: Heard,
}

/// What the web server has heard: the events that it receives. Clones are the same.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Option<LastCreated>>>);

/// The last event, as the page tells it.
#[derive(Clone)]
struct LastCreated {
    count: u64,
    title: String,
    sender: String,
}

impl Heard {
    fn note(&self, sender: &str, todo: &Todo) {
        let mut last = self.lock();
        *last = Some(LastCreated {
            count: last.as_ref().map_or(0, |last| last.count) + 1,
            title: todo.title.clone(),
            sender: sender.to_owned(),
        });
    }

    fn last(&self) -> Option<LastCreated> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<LastCreated>> {
        // Nothing panics between two states of it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The page. Its template escapes whatever it shows.
#[derive(Template)]
#[template(path = "page.html")]
struct Page {
    todos: Vec<Todo>,
    problem: Option<Problem>,
    /// What was typed and not taken.
    title: String,
    heard: Option<LastCreated>,
    title_characters_max: usize,
}

/// What a person reads when something did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    status: StatusCode,
    what: String,
    /// What a developer or operator wants to know.
    detail: String,
}

impl Web {
    fn page(&self, todos: Vec<Todo>, problem: Option<Problem>, title: String) -> Response {
        let status = problem.as_ref().map_or(StatusCode::OK, |problem| problem.status);
        let page = Page {
            todos,
            problem,
            title,
            heard: self.heard.last(),
            title_characters_max: TITLE_CHARACTERS_MAX,
        };
        match page.render() {
            Ok(html) => (status, Html(html)).into_response(),
            Err(error) => {
                tracing::error!(%error, "the page cannot be written");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }

    async fn list(&self) -> Result<Vec<Todo>, Problem> {
        let list = self.relay.message("todos.list").within(ANSWER_WITHIN);
        list.request().await.map_err(|error| problem(&error))
    }

    async fn create(&self, new: &NewTodo) -> Result<Todo, Problem> {
        let create = self.relay.message("todos.create").json(new).within(ANSWER_WITHIN);
        create.request().await.map_err(|error| match error {
            // The policy makes it at-least-once: what ExoCom has, it keeps.
            Error::Expired { .. } => Problem {
                status: StatusCode::GATEWAY_TIMEOUT,
                what:
                    "The todo service is away or slow. ExoCom keeps your todo, and delivers it when it can."
                        .to_owned(),
                detail: error.to_string(),
            },
            error => problem(&error),
        })
    }
}

async fn show(State(web): State<Web>) -> Response {
    match web.list().await {
        Ok(todos) => web.page(todos, None, String::new()),
        Err(problem) => web.page(Vec::new(), Some(problem), String::new()),
    }
}

async fn create(State(web): State<Web>, form: Result<Form<NewTodo>, FormRejection>) -> Response {
    let (refused, title) = match form {
        Ok(Form(new)) => match web.create(&new).await {
            Ok(_) => return Redirect::to("/").into_response(),
            Err(problem) => (problem, new.title),
        },
        Err(rejection) => (unreadable(&rejection), String::new()),
    };
    // The list is worth showing too; where it cannot be, one problem is enough.
    let todos = web.list().await.unwrap_or_default();
    web.page(todos, Some(refused), title)
}

async fn style() -> impl IntoResponse {
    let kind = HeaderValue::from_static("text/css; charset=utf-8");
    (
        [(header::CONTENT_TYPE, kind)],
        include_str!("../templates/style.css"),
    )
}

/// What a person is told. A fault of their own is told as the todo service says it.
fn problem(error: &Error) -> Problem {
    let (status, what) = match error {
        Error::Failed { code, message, .. } if *code < 500 => (
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("That was not taken: {message}."),
        ),
        Error::Denied { rule, .. } => (
            StatusCode::FORBIDDEN,
            format!("ExoCom does not let the web server do that ({rule})."),
        ),
        Error::NoReceiver { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Nobody answers: the todo service is away. Try again in a moment.".to_owned(),
        ),
        Error::ReceiverLost { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The todo service was lost before it answered. Look whether it was done, and try again."
                .to_owned(),
        ),
        Error::Overloaded { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The todo service has too much to do. Try again in a moment.".to_owned(),
        ),
        Error::Expired { .. } | Error::TimedOut { .. } => (
            StatusCode::GATEWAY_TIMEOUT,
            "The todo service takes too long. Look whether it was done, and try again.".to_owned(),
        ),
        Error::Offline { .. } | Error::ConnectionLost { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The web server has lost ExoCom, and connects again. Try again in a moment.".to_owned(),
        ),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "That did not work.".to_owned()),
    };
    // The relay tells of denials by itself.
    if status.is_server_error() {
        tracing::warn!(%error, "a request of the page failed");
    }
    Problem {
        status,
        what,
        detail: error.to_string(),
    }
}

fn unreadable(rejection: &FormRejection) -> Problem {
    Problem {
        status: rejection.status(),
        what: "That was not taken: the form cannot be read, or is too long.".to_owned(),
        detail: rejection.body_text(),
    }
}

/// Lets no other site send forms, and lets the page do nothing but show itself, whatever a title says.
async fn guard(request: Request, next: Next) -> Response {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response = if changes && !is_from_here(request.headers()) {
        (StatusCode::FORBIDDEN, "Forms are taken from this page only.\n").into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; \
             base-uri 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a browser says that the form is of this page. Programs that are no browsers say nothing.
fn is_from_here(headers: &HeaderMap) -> bool {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let site = headers.get(SITE).map(HeaderValue::as_bytes);
    matches!(site, None | Some(b"same-origin" | b"none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_shown_and_never_run() {
        let page = Page {
            todos: vec![Todo {
                id: 1,
                title: "<script>alert('1')</script> & \"more\"".to_owned(),
            }],
            problem: Some(Problem {
                status: StatusCode::OK,
                what: "<em>".to_owned(),
                detail: "<i>".to_owned(),
            }),
            title: "\"><img>".to_owned(),
            heard: Some(LastCreated {
                count: 2,
                title: "<u>".to_owned(),
                sender: "<s>".to_owned(),
            }),
            title_characters_max: 200,
        };
        let html = page.render().unwrap();
        for raw in ["<script", "<em>", "<i>", "<img", "<u>", "<s>", "alert('"] {
            assert!(!html.contains(raw), "{raw} in {html}");
        }
        assert!(html.contains("&#38; &#34;more&#34;"), "{html}");
    }

    #[test]
    fn every_reason_has_its_words() {
        let name = || "todos.list".to_owned();
        let check = |error: Error, status: u16, words: &str| {
            let problem = problem(&error);
            assert_eq!(problem.status.as_u16(), status, "{problem:?}");
            assert!(problem.what.contains(words), "{problem:?}");
        };
        let denied = Error::Denied {
            name: name(),
            rule: "no grant".to_owned(),
            policy: "ab".to_owned(),
        };
        check(denied, 403, "no grant");
        check(Error::NoReceiver { name: name() }, 503, "Nobody answers");
        check(Error::ReceiverLost { name: name() }, 503, "was lost");
        check(Error::Expired { name: name() }, 504, "too long");
        check(Error::ConnectionLost { name: name() }, 503, "lost ExoCom");
        let failed = |code| Error::Failed {
            name: name(),
            code,
            message: "a todo needs a title".to_owned(),
        };
        check(failed(422), 422, "a todo needs a title.");
        check(failed(500), 500, "did not work");
    }

    #[test]
    fn forms_of_other_sites_are_known_by_their_headers() {
        let check = |site: Option<&'static str>, expected: bool| {
            let mut headers = HeaderMap::new();
            if let Some(site) = site {
                headers.insert("sec-fetch-site", HeaderValue::from_static(site));
            }
            assert_eq!(is_from_here(&headers), expected, "{site:?}");
        };
        check(None, true);
        check(Some("same-origin"), true);
        check(Some("none"), true);
        check(Some("same-site"), false);
        check(Some("cross-site"), false);
    }
}
