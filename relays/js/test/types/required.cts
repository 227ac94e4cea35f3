// A program that requires the relay, as the tutorial does. It is type-checked and never run.

import ExoRelay = require('exorelay');
import { ExoError } from 'exorelay';

interface Todo {
  id: string;
  title: string;
}

const relay = new ExoRelay({ serviceName: process.env['SERVICE_NAME'], exocomPort: process.env['EXOCOM_PORT'] });
const same: ExoRelay = new ExoRelay.ExoRelay({ exocomPort: 4222, concurrency: 8 });
relay.listen(process.env['EXORELAY_PORT']);
void same.listen();

relay.on('error', (error) => {
  const [reason, rule, policy, name]: (string | undefined)[] = [
    error.reason,
    error.rule,
    error.policy,
    error.messageName,
  ];
  console.log(reason, rule, policy, name, error instanceof ExoError, error.code?.toFixed());
});
relay.once('online', () => {});
relay.on('offline', (cause) => console.log(cause?.message));
// @ts-expect-error: there is no such event
relay.on('onlin', () => {});

relay.send('todos.list', (todos) => console.log(todos.length));
relay.send<Todo[]>('todos.list', (todos, { sender }) => console.log(todos[0]?.title, sender?.length));
relay.send('todos.create', { title: 'x' }, (todo: Todo) => console.log(todo.id));
relay.send('todos.created', { title: 'x' });
relay.send('todos.created');
// @ts-expect-error: a name is a text
relay.send(1);
// @ts-expect-error: there is no such option
new ExoRelay({ port: 1 });

relay
  .registerHandler<Todo>('todos.create', async ({ title }, { reply, fail, never, send, sender, id, attempt }) => {
    if (!title) return fail('no title', 422);
    if (attempt > 3) return never(`again: ${id?.toFixed()}`);
    send('todos.created', { title, by: sender });
    return reply({ title });
  })
  .registerHandlers({ 'todos.list': (_, { reply }) => reply([]) }, { concurrency: 1 });
