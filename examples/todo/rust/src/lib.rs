//! The todo application: a web server that shows todos, and the service that keeps them. They know each other only
//! by the names of their messages; who may send which is in `policies/todo.toml`.
//!
//! Each is a program of its own (`todo-web`, `todo-todos`), which reads the environment as every ExoRelay does.
//! `exocom demo` runs both.

pub mod program;
pub mod todos;
pub mod web;

use serde::{Deserialize, Serialize};

/// A todo, as `todos.list` and `todos.create` answer it and `todos.created` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Todo {
    /// Its number, counted from 1.
    pub id: u64,
    /// What is to be done, in one line.
    pub title: String,
}

/// What `todos.create` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTodo {
    /// What is to be done, in one line.
    pub title: String,
}
