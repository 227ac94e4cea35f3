'use strict';

// What goes through a relay, to and fro, with a real broker between.

const assert = require('node:assert/strict');
const test = require('node:test');
const ExoRelay = require('exorelay');
const { Broker, patiently, run, until } = require('./support/broker');

const { ExoError } = ExoRelay;

test('a command with a callback gets the payload of the answer', async (t) => {
  const broker = await Broker.start(t);
  await broker.relay('worker', {
    'job.double': ({ numbers }, { reply }) => {
      reply(numbers.map((number) => 2 * number));
    },
    'job.hello': (payload, { reply, sender, messageName }) => {
      reply({ payload: payload === undefined ? 'nothing' : payload, sender, messageName });
    },
  });
  const asker = await broker.relay('asker');

  const doubled = await patiently(
    'the answer',
    new Promise((resolve) => asker.send('job.double', { numbers: [1, 2] }, (...given) => resolve(given))),
  );
  assert.deepEqual(doubled, [[2, 4], { sender: 'worker', messageName: 'job.double' }]);

  // Without a payload, as in the tutorial.
  const hello = await patiently('the answer', new Promise((resolve) => asker.send('job.hello', resolve)));
  assert.deepEqual(hello, { payload: 'nothing', sender: 'asker', messageName: 'job.hello' });
  assert.deepEqual(asker.errors, []);
});

test('payloads are JSON: every kind of value arrives as it was sent', async (t) => {
  const broker = await Broker.start(t);
  await broker.relay('worker', { 'job.echo': async (payload) => payload });
  const asker = await broker.relay('asker');
  const values = [undefined, null, 0, -1.5, '', 'größer\r\n"\u2028', true, false, [], [1, [2]], {}, { a: { b: null } }];
  for (const value of values) assert.deepEqual(await asker.request('job.echo', value), value);
  await assert.rejects(asker.request('job.echo', () => {}), TypeError);
  await assert.rejects(asker.request('job.echo', 1n), TypeError);
  assert.throws(() => asker.send('job.echo', Symbol('x'), () => {}), TypeError);
});

test("a promise's value is the answer; the first answer counts; other values that handlers return do not", async (t) => {
  const broker = await Broker.start(t);
  const second = [];
  await broker.relay('worker', {
    'job.value': async (payload) => ({ payload }),
    'job.nothing': async () => {},
    'job.first': async (_, { reply }) => {
      second.push(reply('first'), reply('second'));
      return 'third';
    },
    'job.returned': (_, { reply }) => {
      setTimeout(() => reply('replied'), 20);
      return 'returned';
    },
  });
  const asker = await broker.relay('asker');
  assert.deepEqual(await asker.request('job.value', 7), { payload: 7 });
  assert.equal(await asker.request('job.nothing'), undefined);
  assert.equal(await asker.request('job.first'), 'first');
  assert.deepEqual(second, [true, false]);
  assert.equal(await asker.request('job.returned'), 'replied');
});

test('an event reaches each service once, whatever number of instances it has', async (t) => {
  const broker = await Broker.start(t);
  const heard = { one: [], two: [], asker: [] };
  const listen = (into) => ({
    'news.>': (payload, { messageName, sender, reply }) => {
      into.push([messageName, payload, sender, reply('nobody asked')]);
    },
  });
  await broker.relay('watcher', listen(heard.one));
  await broker.relay('watcher', listen(heard.two));
  const asker = await broker.relay('asker', listen(heard.asker));
  for (let number = 0; number < 40; number += 1) asker.send('news.local', { number });
  await until('all events', () => heard.one.length + heard.two.length === 40 && heard.asker.length === 40);
  await asker.flush();
  const numbers = [...heard.one, ...heard.two].map(([, { number }]) => number).sort((a, b) => a - b);
  assert.deepEqual(numbers, Array.from({ length: 40 }, (_, number) => number));
  assert.ok(heard.one.length > 0 && heard.two.length > 0, 'both instances get some');
  assert.deepEqual(heard.asker[0], ['news.local', { number: 0 }, 'asker', false]);
});

test('a denied command fails at once, with the reason, the rule and the policy', async (t) => {
  const broker = await Broker.start(t);
  const asker = await broker.relay('asker');
  const error = await asker.request('forbidden.thing', 1).catch((error) => error);
  assert.ok(error instanceof ExoError && error instanceof Error);
  assert.deepEqual([error.name, error.reason, error.messageName, error.rule], ['ExoError', 'denied', 'forbidden.thing', 'no grant']);
  assert.match(error.policy, /^[0-9a-f]{8,}$/);
  assert.match(error.message, /forbidden\.thing.*no grant.*`sends`/);

  let called = false;
  asker.send('forbidden.thing', 1, () => (called = true));
  await until('the error', () => asker.errors.length === 1);
  assert.deepEqual([asker.errors[0].reason, asker.errors[0].rule], ['denied', 'no grant']);

  const tooLarge = await asker.request('job.small', 'more than sixteen bytes').catch((error) => error);
  assert.equal(tooLarge.reason, 'denied');
  assert.match(tooLarge.rule, /policy\.toml:[0-9]+/);
  // Each denial has been told once: the `-ERR` that comes with it is not a second one.
  await asker.flush();
  assert.deepEqual([asker.errors.length, called], [1, false]);
});

test('a denied event is an error, too, even beside denied commands of the same name', async (t) => {
  const broker = await Broker.start(t);
  const asker = await broker.relay('asker');
  asker.send('forbidden.thing', 'an event');
  await until('the error', () => asker.errors.length === 1);
  assert.deepEqual([asker.errors[0].reason, asker.errors[0].messageName], ['denied', 'forbidden.thing']);

  const rounds = 50;
  const requests = [];
  for (let round = 0; round < rounds; round += 1) {
    requests.push(asker.request('forbidden.thing').catch(({ reason }) => reason));
    asker.send('forbidden.thing', 'an event');
    if (round % 5 === 0) requests.push(asker.request('forbidden.other').catch(({ reason }) => reason));
  }
  const reasons = await Promise.all(requests);
  assert.ok(reasons.every((reason) => reason === 'denied'));
  await until('an error for each event', () => asker.errors.length >= 1 + rounds);
  await asker.flush();
  assert.equal(asker.errors.length, 1 + rounds);
});

test('publish resolves when ExoCom has taken the event, and rejects when it is denied', async (t) => {
  const broker = await Broker.start(t);
  const heard = [];
  await broker.relay('watcher', { 'news.local': (payload) => heard.push(payload) });
  const asker = await broker.relay('asker');
  await asker.sendAndConfirm('news.local', 1);
  const outcomes = await Promise.allSettled([
    asker.sendAndConfirm('news.local', 2),
    asker.sendAndConfirm('forbidden.thing', 3),
    asker.sendAndConfirm('forbidden.thing', 4),
    asker.sendAndConfirm('news.local', 5),
  ]);
  assert.deepEqual(
    outcomes.map(({ reason }) => reason?.reason),
    [undefined, 'denied', 'denied', undefined],
  );
  await until('the events', () => heard.length === 3);
  assert.deepEqual(heard, [1, 2, 5]);
  assert.deepEqual(asker.errors, []);
});

test('a command without a receiver, with a lost one or a slow one fails with its reason', async (t) => {
  const broker = await Broker.start(t);
  const asker = await broker.relay('asker');
  const reason = (name, options) => asker.request(name, undefined, options).catch((error) => error.reason);
  assert.equal(await reason('job.nobody'), 'no-receiver');

  let taken = 0;
  const worker = await broker.relay('worker', {
    'job.slow': () => {},
    'job.never': () => {
      taken += 1;
    },
    'job.late': (_, { reply }) => setTimeout(() => reply('too late'), 200),
  });
  assert.equal(await reason('job.slow'), 'expired');
  assert.equal(await reason('job.late', { timeoutMs: 20 }), 'timeout');
  await assert.rejects(asker.request('job.never', 1, { timeoutMs: 0 }), TypeError);

  const lost = reason('job.never');
  await until('the receiver to have it', () => taken === 1);
  await worker.close();
  assert.equal(await lost, 'receiver-lost');
});

test("a failing handler fails the command at once, and tells nobody else's business", async (t) => {
  const broker = await Broker.start(t);
  const worker = await broker.relay('worker', {
    'job.throws': () => {
      throw new Error('the password is hunter2');
    },
    'job.rejects': async () => {
      throw new Error('the password is hunter2');
    },
    'job.refuses': ({ title }, { fail }) => {
      fail(`no such job: ${title}\r\nExo-Sender: root`, 404);
    },
    'job.cannot': async () => ({ circle: 1n }),
    'job.large': async () => 'x'.repeat(1_100_000),
  });
  const asker = await broker.relay('asker');
  const failure = async (name, payload) => {
    const { reason, code, message, failure } = await asker.request(name, payload).catch((error) => error);
    assert.equal(message, `${name}: ${failure}`);
    return { reason, code, message };
  };
  const failed = { reason: 'failed', code: 500 };
  assert.deepEqual(await failure('job.throws'), { ...failed, message: "job.throws: the receiver's handler failed" });
  assert.deepEqual(await failure('job.rejects'), { ...failed, message: "job.rejects: the receiver's handler failed" });
  assert.deepEqual(await failure('job.cannot'), { ...failed, message: "job.cannot: the receiver's handler failed" });
  assert.deepEqual(await failure('job.large'), { ...failed, message: 'job.large: the answer could not be sent' });
  assert.deepEqual(await failure('job.refuses', { title: 'x' }), {
    reason: 'failed',
    code: 404,
    message: 'job.refuses: no such job: x Exo-Sender: root',
  });
  assert.deepEqual(
    worker.errors.map(({ reason, messageName }) => [reason, messageName]),
    [
      ['handler-failed', 'job.throws'],
      ['handler-failed', 'job.rejects'],
      ['handler-failed', 'job.cannot'],
      ['too-large', 'job.large'],
    ],
  );
  assert.match(worker.errors[0].cause.message, /hunter2/);
});

test('an answer that comes too late is an error of the one who answers', async (t) => {
  const broker = await Broker.start(t);
  const replies = [];
  const worker = await broker.relay('worker', { 'job.slow': (_, { reply }) => replies.push(reply) });
  const asker = await broker.relay('asker');
  await assert.rejects(asker.request('job.slow'), { reason: 'expired' });
  assert.equal(replies[0]('late'), true);
  await until('the error', () => worker.errors.length === 1);
  assert.equal(worker.errors[0].reason, 'late-reply');
});

test('a payload that is not JSON does not reach the handler', async (t) => {
  const broker = await Broker.start(t);
  let called = 0;
  const worker = await broker.relay('worker', { 'job.json': () => (called += 1) });
  const nats = await broker.natsClient('asker');
  for (const bytes of ['{"a":', new Uint8Array([0x22, 0xff, 0x22])]) {
    const answer = await nats.request('job.json', bytes, { timeout: 20_000 });
    assert.equal(answer.headers.get('Nats-Service-Error-Code'), '400');
  }
  await until('the errors', () => worker.errors.length === 2);
  assert.deepEqual([worker.errors[0].reason, called], ['bad-payload', 0]);
  assert.match(worker.errors[0].message, /job\.json from asker/);
});

test("an answer that is not JSON is the requester's error", async (t) => {
  const broker = await Broker.start(t);
  const nats = await broker.natsClient('worker');
  nats.subscribe('job.text', { callback: (_, message) => message.respond('plain text') });
  await nats.flush();
  const asker = await broker.relay('asker');
  await assert.rejects(asker.request('job.text'), { reason: 'bad-payload', messageName: 'job.text' });
});

test('handlers can send and ask, and the trace of what they handle goes along', async (t) => {
  const broker = await Broker.start(t);
  const { headers } = require('@nats-io/transport-node');
  const traces = [];
  await broker.relay('worker', {
    'job.start': async (payload, { request, send }) => {
      send('news.done', { started: payload });
      return request('job.next', payload + 1);
    },
    'job.next': async (payload, { send }) => {
      send('news.done', { next: payload });
      return payload * 10;
    },
  });
  const watcher = await broker.natsClient('watcher');
  const asker = await broker.natsClient('asker');
  watcher.subscribe('news.done', { callback: (_, message) => traces.push(message.headers.get('traceparent')) });
  await watcher.flush();
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  const carried = headers();
  carried.set('Traceparent', traceparent);
  const answer = await asker.request('job.start', '4', { headers: carried, timeout: 20_000 });
  assert.equal(answer.json(), 50);
  await until('both events', () => traces.length === 2);
  assert.deepEqual(traces, [traceparent, traceparent]);
});

test('names are checked before anything is sent', async (t) => {
  const broker = await Broker.start(t);
  const asker = await broker.relay('asker');
  for (const name of ['', 'a..b', 'a b', 'job.x\r\nPUB y', 'job.*', '$SYS.x', '_INBOX.x', 'ü', 'a'.repeat(256), undefined]) {
    assert.throws(() => asker.send(name, 1), TypeError, JSON.stringify(name));
    await assert.rejects(asker.request(name), TypeError);
    await assert.rejects(asker.sendAndConfirm(name), TypeError);
  }
  assert.throws(() => asker.send('job.x', 1, 'no function'), TypeError);
  assert.throws(() => asker.registerHandler('job.>.x', () => {}), TypeError);
  assert.throws(() => asker.registerHandler('job.x', 'no function'), TypeError);
  assert.throws(() => asker.registerHandler('job.x', () => {}, { concurrency: 0 }), TypeError);
  asker.registerHandler('news.>', () => {});
  assert.throws(() => asker.registerHandler('news.>', () => {}), /handler already/);
  assert.equal(asker.isOnline, true);
});

test('a payload above the limit is refused here, and harms nothing', async (t) => {
  const broker = await Broker.start(t);
  await broker.relay('worker', { 'job.length': async (text) => text.length });
  const asker = await broker.relay('asker');
  const text = 'x'.repeat(1_048_576 - 2);
  assert.equal(await asker.request('job.length', text), text.length);
  await assert.rejects(asker.request('job.length', `${text}x`), { reason: 'too-large' });
  asker.send('job.length', `${text}x`, () => {});
  await until('the error', () => asker.errors.length === 1);
  assert.equal(asker.errors[0].reason, 'too-large');
  assert.equal(await asker.request('job.length', 'still here'), 10);
});

test('handlers run a bounded number at a time, and what does not fit in the queue is refused at once', async (t) => {
  const broker = await Broker.start(t);
  let [running, most, done] = [0, 0, 0];
  let open;
  const gate = new Promise((resolve) => (open = resolve));
  const worker = broker.offlineRelay('worker');
  worker.registerHandler(
    'job.gated',
    async () => {
      running += 1;
      most = Math.max(most, running);
      await gate;
      running -= 1;
      done += 1;
    },
    { concurrency: 3 },
  );
  await worker.listen();
  const asker = await broker.relay('asker');
  const outcomes = Array.from({ length: 3 + 1_024 + 5 }, () =>
    asker.request('job.gated').then(
      () => 'done',
      ({ reason }) => reason,
    ),
  );
  const refused = await Promise.race(outcomes);
  assert.equal(refused, 'overloaded');
  open();
  const all = await Promise.all(outcomes);
  assert.equal(all.filter((outcome) => outcome === 'done').length, 3 + 1_024);
  assert.equal(all.filter((outcome) => outcome === 'overloaded').length, 5);
  assert.deepEqual([most, done], [3, 3 + 1_024]);
  assert.deepEqual(
    worker.errors.map(({ reason }) => reason),
    ['overloaded'],
  );
});

test('sending faster than ExoCom takes it is refused, not kept in memory', async (t) => {
  const broker = await Broker.start(t);
  const asker = await broker.relay('asker');
  const payload = 'x'.repeat(1_000_000);
  // In one turn of the event loop, so that nothing can leave meanwhile.
  for (let count = 0; count < 40; count += 1) asker.send('news.local', payload);
  await until('errors', () => asker.errors.length > 0);
  assert.ok(asker.errors.every(({ reason }) => reason === 'overloaded'));
  assert.equal(asker.errors.length, 40 - 16);
  await asker.flush();
  await asker.sendAndConfirm('news.local', payload);

  // Messages without a payload are bounded, too.
  asker.errors.length = 0;
  const name = `news.${'x'.repeat(200)}`;
  for (let count = 0; count < 80_000; count += 1) asker.send(name);
  await until('errors', () => asker.errors.length > 0);
  assert.equal(asker.errors[0].reason, 'overloaded');
  await asker.flush();
  await asker.sendAndConfirm('news.local', payload);
});

test('what callbacks throw is an uncaught exception of the program, and the relay goes on', async (t) => {
  const broker = await Broker.start(t);
  await broker.relay('worker', { 'job.echo': async (payload) => payload });
  const program = `
    const ExoRelay = require('exorelay');
    const relay = new ExoRelay();
    process.on('uncaughtException', (error) => console.log('uncaught', error.message));
    relay.on('error', (error) => { console.log('error', error.reason); });
    relay.on('online', () => {
      relay.send('job.echo', 1, () => { throw new Error('mine'); });
      relay.send('job.echo', 2, (two) => { console.log('answer', two); relay.close(); });
    });
    relay.listen();
  `;
  const { code, output } = await run(program, broker.environment('asker'));
  assert.equal(code, 0, output);
  assert.deepEqual(output.trim().split('\n').sort(), ['answer 2', 'uncaught mine']);
});

test('without a listener an error is a warning, and does not end the program', async (t) => {
  const broker = await Broker.start(t);
  const program = `
    const relay = new (require('exorelay'))();
    relay.on('online', async () => {
      relay.send('forbidden.thing', 1);
      await relay.flush();
      setTimeout(() => relay.close().then(() => console.log('closed')), 50);
    });
    relay.listen();
  `;
  const { code, output } = await run(program, broker.environment('asker'));
  assert.equal(code, 0, output);
  assert.match(output, /\[denied\] ExoError: forbidden\.thing: denied by ExoCom/);
  assert.match(output, /closed/);
});
