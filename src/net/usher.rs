//! Lets handshakes take turns with everything else on their thread: a step of one handshake, then whoever else is
//! ready, then a step of the next.
//!
//! A step costs as much as hundreds of messages, and strangers can ask for thousands at once. Nothing here limits how
//! many there are or how long they take; it only sees to it that those with a session need not wait for them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use tokio::sync::Notify;

/// See the module's documentation. One for each thread.
#[derive(Default)]
pub(super) struct Usher {
    line: RefCell<VecDeque<Waiting>>,
    came: Notify,
}

/// A handshake that could take a step.
struct Waiting {
    may_step: Rc<Cell<bool>>,
    waker: Waker,
}

impl Usher {
    /// Lets in one after the other, for ever.
    pub(super) async fn work(&self) {
        loop {
            let next = self.line.borrow_mut().pop_front();
            match next {
                Some(Waiting { may_step, waker }) => {
                    may_step.set(true);
                    waker.wake();
                    // Until all others who are ready, and all who have become it since, have had their turn.
                    tokio::task::yield_now().await;
                }
                None => self.came.notified().await,
            }
        }
    }

    /// Does what a handshake does, each step when its turn has come.
    pub(super) async fn lead<F: Future>(&self, handshake: F) -> F::Output {
        let mut handshake = pin!(handshake);
        let mut in_line: Option<Rc<Cell<bool>>> = None;
        poll_fn(|context| match &in_line {
            Some(may_step) if may_step.get() => {
                in_line = None;
                handshake.as_mut().poll(context)
            }
            Some(_) => Poll::Pending,
            None => {
                let may_step = Rc::new(Cell::new(false));
                self.line.borrow_mut().push_back(Waiting {
                    may_step: Rc::clone(&may_step),
                    waker: context.waker().clone(),
                });
                self.came.notify_one();
                in_line = Some(may_step);
                Poll::Pending
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    #[test]
    fn others_have_their_turn_between_any_two_steps() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let told = Rc::new(RefCell::new(Vec::new()));
        let usher = Rc::new(Usher::default());
        LocalSet::new().block_on(&runtime, async {
            let working = Rc::clone(&usher);
            tokio::task::spawn_local(async move { working.work().await });
            let handshakes: Vec<_> = (0..100)
                .map(|_| {
                    let (usher, told) = (Rc::clone(&usher), Rc::clone(&told));
                    tokio::task::spawn_local(async move {
                        let steps = async {
                            for _ in 0..3 {
                                told.borrow_mut().push("handshake");
                                tokio::task::yield_now().await;
                            }
                        };
                        usher.lead(steps).await;
                    })
                })
                .collect();
            let message = Rc::clone(&told);
            let messages = tokio::task::spawn_local(async move {
                loop {
                    message.borrow_mut().push("message");
                    tokio::task::yield_now().await;
                }
            });
            for handshake in handshakes {
                handshake.await.unwrap();
            }
            messages.abort();
        });
        let told = told.borrow();
        assert_eq!(told.iter().filter(|told| **told == "handshake").count(), 300);
        let mut without = told.split(|told| *told == "message").map(<[_]>::len);
        assert!(without.all(|handshakes| handshakes <= 2), "{told:?}");
    }
}
