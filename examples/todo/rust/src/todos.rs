//! The service that keeps the todos, in memory. Knows nothing of who shows them: it answers `todos.list` and
//! `todos.create`, and tells of each new todo with `todos.created`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exorelay::{Error, ExoRelay, Failure, Message};

use crate::{NewTodo, Todo};

/// Todos that are kept: all of them fit into one answer.
pub const TODOS_MAX: usize = 1_000;

/// The characters of a title: a line, not a text.
pub const TITLE_CHARACTERS_MAX: usize = 200;

/// Begins to answer. Goes on until the relay is shut down.
///
/// # Errors
/// As [`ExoRelay::handle`].
pub async fn serve(relay: &ExoRelay) -> Result<(), Error> {
    let todos = Todos::default();
    let listed = todos.clone();
    relay
        .handle("todos.list", move |_, ()| {
            let all = listed.all();
            async move { Ok(all) }
        })
        .await?;
    relay
        .handle("todos.create", move |message: Message, new: NewTodo| {
            let added = todos.add_once(&message, &new);
            async move {
                let todo = added?;
                // The todo is there, whether anybody hears of it or not.
                if let Err(error) = message.send("todos.created", &todo).await {
                    tracing::warn!(%error, "nobody was told of a new todo");
                }
                Ok(todo)
            }
        })
        .await
}

/// The todos. Clones are the same ones.
#[derive(Debug, Clone, Default)]
struct Todos(Arc<Mutex<Vec<Kept>>>);

#[derive(Debug)]
struct Kept {
    todo: Todo,
    /// The number of the message that asked for it.
    message: Option<u64>,
}

impl Todos {
    fn all(&self) -> Vec<Todo> {
        self.lock().iter().map(|kept| kept.todo.clone()).collect()
    }

    /// ExoCom delivers a message again when it could not hear that it was done. Then the todo is there already.
    fn add_once(&self, message: &Message, new: &NewTodo) -> Result<Todo, Failure> {
        let is_first = message.attempt() == 1;
        let done = self.find(message.id()).filter(|_| !is_first);
        done.map_or_else(|| self.add(message.id(), new), Ok)
    }

    fn find(&self, message: Option<u64>) -> Option<Todo> {
        let todos = self.lock();
        let done = todos
            .iter()
            .find(|kept| message.is_some() && kept.message == message)?;
        Some(done.todo.clone())
    }

    fn add(&self, message: Option<u64>, new: &NewTodo) -> Result<Todo, Failure> {
        let title = new.title.trim();
        if title.is_empty() {
            return Err(Failure::new(422, "a todo needs a title"));
        }
        if title.chars().count() > TITLE_CHARACTERS_MAX {
            return Err(Failure::new(
                422,
                format!("a title has at most {TITLE_CHARACTERS_MAX} characters"),
            ));
        }
        if title.chars().any(char::is_control) {
            return Err(Failure::new(422, "a title is one line of plain text"));
        }
        let mut todos = self.lock();
        if todos.len() >= TODOS_MAX {
            return Err(Failure::new(
                409,
                format!("there are {TODOS_MAX} todos already; do some first"),
            ));
        }
        let todo = Todo {
            id: todos.len() as u64 + 1,
            title: title.to_owned(),
        };
        todos.push(Kept {
            todo: todo.clone(),
            message,
        });
        Ok(todo)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        // Nothing panics between two states of the list.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_and_what_is_not() {
        let todos = Todos::default();
        let check = |title: &str, expected: Result<&str, u16>| {
            let new = NewTodo {
                title: title.to_owned(),
            };
            let added = todos.add(None, &new).map(|todo| todo.title);
            assert_eq!(added.as_deref().map_err(Failure::code), expected, "{title:?}");
        };
        check("  buy milk ", Ok("buy milk"));
        check("", Err(422));
        check(" \t ", Err(422));
        check("two\nlines", Err(422));
        let longest = "ä".repeat(TITLE_CHARACTERS_MAX);
        check(&longest, Ok(&longest));
        check(&format!("{longest}x"), Err(422));
        let ids: Vec<u64> = todos.all().iter().map(|todo| todo.id).collect();
        assert_eq!(ids, [1, 2]);
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let todos = Todos::default();
        let new = NewTodo {
            title: "again".to_owned(),
        };
        for _ in 0..TODOS_MAX {
            todos.add(None, &new).unwrap();
        }
        assert_eq!(todos.add(None, &new).unwrap_err().code(), 409);
    }

    #[test]
    fn a_todo_is_found_by_its_message() {
        let todos = Todos::default();
        let new = NewTodo {
            title: "once".to_owned(),
        };
        let added = todos.add(Some(7), &new).unwrap();
        todos.add(None, &new).unwrap();
        assert_eq!(todos.find(Some(7)).map(|todo| todo.id), Some(added.id));
        assert!(todos.find(Some(8)).is_none());
        assert!(todos.find(None).is_none());
    }
}
