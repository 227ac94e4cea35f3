'use strict';

// The service that keeps the todos, in memory. Knows nothing of who shows them: it answers `todos.list` and
// `todos.create`, and tells of each new todo with `todos.created`.

const ExoRelay = require('exorelay');

const TODOS_MAX = 1_000;
const TITLE_CHARACTERS_MAX = 200;

const todos = [];
/** Todos by the number of the message that asked for them. */
const done = new Map();
const exoRelay = new ExoRelay();

exoRelay.registerHandlers({
  'todos.list': async () => todos,

  'todos.create': (payload, { reply, fail, send, id, attempt }) => {
    // ExoCom delivers a message again when it could not hear that it was done. Then the todo is there already.
    if (attempt > 1 && done.has(id)) return reply(done.get(id));
    const title = typeof payload?.title === 'string' ? payload.title.trim() : '';
    if (title === '') return fail('a todo needs a title', 422);
    if ([...title].length > TITLE_CHARACTERS_MAX) {
      return fail(`a title has at most ${TITLE_CHARACTERS_MAX} characters`, 422);
    }
    if (/\p{Cc}/u.test(title)) return fail('a title is one line of plain text', 422);
    if (todos.length >= TODOS_MAX) return fail(`there are ${TODOS_MAX} todos already; do some first`, 409);
    const todo = { id: todos.length + 1, title };
    todos.push(todo);
    done.set(id, todo);
    reply(todo);
    send('todos.created', todo);
  },
});

exoRelay.on('error', (error) => console.error(error.message));
exoRelay.on('online', () => console.log('Todo service online'));
exoRelay.listen(process.env.EXORELAY_PORT);

process.once('SIGINT', () => exoRelay.close());
process.once('SIGTERM', () => exoRelay.close());
