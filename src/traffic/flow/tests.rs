//! Flows on made-up connections: what is counted, what outlives a connection, and what is kept apart.

use super::*;

#[test]
fn counts_outlive_their_connection() {
    let registry = FlowRegistry::default();
    let (web, todos): (Arc<str>, Arc<str>) = ("web".into(), "todos".into());
    let first = registry.open_book(&web, 1);
    let second = registry.open_book(&web, 2);
    for book in [&first, &second] {
        let counters = book.counters("todos.list", Some(&todos));
        counters.count_delivered(100);
        counters.count_response(7);
        book.counters("todos.list", Some(&todos)).count_delivered(1);
    }
    second.counters("todos.purge", None).count_denied();
    registry.close_book(&second);
    let totals = registry.totals();
    assert_eq!(totals.len(), 2);
    let sums: Vec<_> = totals
        .values()
        .map(|t| (t.messages, t.bytes, t.denied, t.responses))
        .collect();
    assert_eq!(sums, [(4, 202, 0, 2), (0, 0, 1, 0)]);
    registry.close_book(&first);
    assert_eq!(registry.totals(), totals);
}

#[test]
fn flows_of_a_connection_are_bounded_and_still_counted() {
    let registry = FlowRegistry::default();
    let book = registry.open_book(&"web".into(), 1);
    for index in 0..FLOWS_PER_CONNECTION_MAX + 500 {
        book.counters(&format!("name.{index}"), None).count_no_receiver();
    }
    let totals = registry.totals();
    assert_eq!(totals.len(), FLOWS_PER_CONNECTION_MAX + 1);
    let sum: u64 = totals.values().map(|t| t.no_receiver).sum();
    assert_eq!(sum, FLOWS_PER_CONNECTION_MAX as u64 + 500);
}

#[test]
fn denied_names_that_a_client_makes_up_are_counted_and_not_kept_apart() {
    let registry = FlowRegistry::default();
    let (web, todos): (Arc<str>, Arc<str>) = ("web".into(), "todos".into());
    for round in 0..200 {
        let book = registry.open_book(&web, 1);
        for index in 0..500 {
            book.denied_counters(&format!("made-up.{round}.{index}"))
                .count_denied();
        }
        let own = book.flows.lock().by_key.len();
        assert_eq!(own, DENIED_FLOWS_PER_CONNECTION_MAX + 1);
        registry.close_book(&book);
    }
    let totals = registry.totals();
    assert!(totals.len() <= FLOWS_KEPT_PER_SENDER_MAX + 1, "{}", totals.len());
    assert_eq!(totals.values().map(|t| t.denied).sum::<u64>(), 200 * 500);
    // Another sender's are still kept apart.
    let book = registry.open_book(&todos, 1);
    book.counters("todos.created", Some(&web)).count_delivered(1);
    registry.close_book(&book);
    let key = FlowKey {
        sender: todos,
        message: "todos.created".into(),
        receiver: Some(web),
    };
    assert_eq!(registry.totals().get(&key).map(|t| t.messages), Some(1));
}

#[test]
fn flows_of_a_sender_are_bounded_over_all_its_connections() {
    let registry = FlowRegistry::default();
    let books: Vec<_> = (0..=FLOWS_PER_SENDER_MAX / FLOWS_PER_CONNECTION_MAX)
        .map(|_| registry.open_book(&"web".into(), 1))
        .collect();
    for (number, book) in books.iter().enumerate() {
        for index in 0..FLOWS_PER_CONNECTION_MAX {
            book.counters(&format!("name.{number}.{index}"), None)
                .count_no_receiver();
        }
    }
    assert_eq!(registry.totals().len(), FLOWS_PER_SENDER_MAX + 1);
    for book in &books {
        registry.close_book(book);
    }
    let book = registry.open_book(&"web".into(), 1);
    book.counters("name", None).count_no_receiver();
    assert_eq!(book.of_sender.load(Relaxed), 1, "what has ended counts no more");
}

#[test]
fn every_count_is_taken_once_whatever_becomes_of_its_connection() {
    let registry = FlowRegistry::default();
    registry.record();
    let (web, todos): (Arc<str>, Arc<str>) = ("web".into(), "todos".into());
    let mut books: Vec<_> = (1..=3).map(|number| registry.open_book(&web, number)).collect();
    let mut taken = NewlySent::default();
    let mut sent = 0;
    for round in 1..=50_u64 {
        for book in &books {
            for _ in 0..round {
                book.counters("todos.list", Some(&todos)).count_delivered(10);
                sent += 1;
            }
            book.denied_counters("todos.purge").count_denied();
        }
        if round % 7 == 0 {
            registry.close_book(&books.remove(0));
            books.push(registry.open_book(&web, round * 10));
        }
        if round % 3 == 0 {
            let new = registry.take_new();
            assert!(new.len() <= 2);
            for more in new.values() {
                taken.sent.add(&more.sent);
                assert!(0 < more.first && more.first <= more.last && more.last <= 490);
            }
        }
    }
    books.iter().for_each(|book| registry.close_book(book));
    registry
        .take_new()
        .values()
        .for_each(|more| taken.sent.add(&more.sent));
    assert_eq!(
        (taken.sent.messages, taken.sent.bytes, taken.sent.denied),
        (sent, sent * 10, 150)
    );
    assert!(registry.take_new().is_empty());
}

#[test]
fn response_times_are_kept_when_their_connection_has_ended_and_in_bounds() {
    let registry = FlowRegistry::default();
    let todos: Arc<str> = "todos".into();
    let gathered = || {
        let (mut all, mut flows) = (ResponseTimes::default(), BTreeMap::new());
        registry.response_times(&mut |key, times| {
            all.add(times);
            *flows.entry(key.clone()).or_insert(0) += times.count();
        });
        (all.count(), flows)
    };
    let book = registry.open_book(&"web".into(), 1);
    let count = |book: &FlowBook, message: &str| {
        book.counters(message, Some(&todos)).count_response(1_000);
    };
    (0..3).for_each(|_| count(&book, "list"));
    book.counters("created", Some(&todos)).count_delivered(1);
    assert_eq!(gathered().0, 3);
    registry.close_book(&book);
    let (all, flows) = gathered();
    assert_eq!((all, flows.len()), (3, 1), "a flow without answers has no times");
    for number in 0..RESPONSE_TIMES_KEPT_MAX + 100 {
        let book = registry.open_book(&"web".into(), 1);
        count(&book, &format!("name.{number}"));
        count(&book, "list");
        registry.close_book(&book);
    }
    let (all, flows) = gathered();
    assert_eq!(
        all as usize,
        3 + 2 * (RESPONSE_TIMES_KEPT_MAX + 100),
        "none is lost"
    );
    assert_eq!(flows.len(), RESPONSE_TIMES_KEPT_MAX + 1);
    let others = flows
        .iter()
        .find(|(key, _)| &*key.sender == ">")
        .expect("the others");
    assert_eq!(others.0.receiver, Some(todos.clone()));
}

/// Connections come and go while changes are read: every count comes once, under the number that was given to its flow.
#[test]
fn changes_come_once_each_and_what_was_before_stays_known() {
    let registry = FlowRegistry::default();
    let (web, todos): (Arc<str>, Arc<str>) = ("web".into(), "todos".into());
    let mut books: Vec<_> = (1..=3).map(|number| registry.open_book(&web, number)).collect();
    let mut read = FlowTotals::default();
    let (mut sent, mut unnamed) = (0, 0);
    for round in 1..=50_u64 {
        let before = registry.totals();
        let known_before = || {
            let (at_us, mut totals) = registry.totals_before();
            totals.retain(|_, totals| *totals != FlowTotals::default());
            (at_us, totals)
        };
        let mut flows = 0;
        registry.read_changes(round, |number, more, key| {
            flows += 1;
            unnamed += usize::from(number.is_none());
            number.get_or_insert_with(|| {
                assert_eq!((&*key().sender, &*key().message), ("web", "todos.list"));
                FlowNumber::MIN
            });
            read.add(more);
        });
        assert_eq!(known_before(), (round, before.clone()));
        let key = |_: &FlowTotals| panic!("nothing has changed");
        registry.read_changes(round, |_, more, _| key(more));
        for book in &books {
            for _ in 0..round {
                let counters = book.counters("todos.list", Some(&todos));
                counters.count_delivered(10);
                counters.count_response(5);
                sent += 1;
            }
        }
        if round % 7 == 0 {
            registry.close_book(&books.remove(0));
            books.push(registry.open_book(&web, round * 10));
        }
        assert!(flows <= 4, "three connections, and what one had left behind");
        assert_eq!(known_before(), (round, before), "until it is read");
    }
    books.iter().for_each(|book| registry.close_book(book));
    registry.read_changes(51, |_, more, _| read.add(more));
    assert_eq!(
        (read.messages, read.bytes, read.response_us_sum),
        (sent, sent * 10, sent * 5)
    );
    assert!(unnamed < 50, "a flow of a connection keeps its number");
}
