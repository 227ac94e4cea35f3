// A program that imports the relay. It is type-checked and never run.

import ExoRelay, { ExoError, type Handler, type Options, type Stored } from 'exorelay';
import { ExoRelay as Named } from 'exorelay';

const options: Options = { serviceName: 'todos', closeMsMax: 1_000 };
const relay: ExoRelay = new Named(options);
const list: Handler<undefined> = async () => [{ id: '1', title: 'x' }];
relay.registerHandlers({ 'todos.list': list });
await relay.listen(0);
const port: number | undefined = relay.healthPort;
console.log(port, relay.isOnline, relay.serviceName.length);

try {
  const titles = await relay.request<string[]>('todos.titles', { first: 10 }, { timeoutMs: 500 });
  console.log(titles.map((title) => title.length));
  await relay.sendAndConfirm('todos.created', { title: 'x' });
  const stored: Stored = await relay.publish('todos.created', { title: 'x' }, { id: 'x', timeoutMs: 500 });
  console.log(stored.stream.length, stored.seq.toFixed(), stored.duplicate);
  await relay.flush();
} catch (error) {
  if (error instanceof ExoError && error.reason === 'denied') console.log(error.rule?.length);
}
// @ts-expect-error: it is a promise
relay.request('todos.list').length;
await relay.close();
