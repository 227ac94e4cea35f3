'use strict';

// Tracked messages, those whose policy says delivery = "at-least-once", with a real broker between.

const assert = require('node:assert/strict');
const { execFile: execFileWithCallback } = require('node:child_process');
const { setTimeout: sleep } = require('node:timers/promises');
const test = require('node:test');
const { promisify } = require('node:util');
const { Broker, EXOCOM, patiently, until } = require('./support/broker');

const execFile = promisify(execFileWithCallback);

const POLICY = `
version = 1
trust-domain = "relay.example"

[service.asker]
sends = ["job.*", "news.*", "plain"]

[service.worker]
sends    = ["news.done"]
receives = ["job.*", "news.*", "plain"]

[message."job.*"]
delivery     = "at-least-once"
reply-within = "20s"
attempts     = 3
backoff      = "20ms..20ms"

[message."news.*"]
kind       = "event"
delivery   = "at-least-once"
ack-within = "20s"
attempts   = 3
backoff    = "20ms..20ms"

[message."news.slow"]
ack-within = "900ms"

[message.plain]
kind = "event"
`;

async function queues(broker) {
  const { stdout } = await execFile(EXOCOM, ['queue', 'list', '--json', '--admin', broker.file('admin.sock')]);
  return JSON.parse(stdout);
}

const nothingKept = (broker) => until('an empty store', async () => (await queues(broker)).messages === 0);

/** Why a message was given up, and after how many attempts. */
async function deadLetter(broker) {
  const { cause, attempts } = await until('a dead letter', async () => (await queues(broker)).dead[0]);
  return [cause, attempts];
}

test('publish resolves when the event is stored, and it comes after a restart', async (t) => {
  const broker = await Broker.start(t, POLICY);
  const asker = await broker.relay('asker');
  const stored = await asker.publish('news.a', 1, { id: 'one' });
  assert.equal(typeof stored.stream, 'string');
  assert.deepEqual([stored.seq, stored.duplicate], [1, false]);
  assert.deepEqual(await asker.publish('news.a', 1, { id: 'one' }), { ...stored, duplicate: true });
  assert.equal((await asker.publish('news.a', 2)).seq, 2);

  await broker.stop();
  await broker.startAgain();
  const heard = [];
  await broker.relay('worker', {
    'news.*': (payload, { id, attempt, reply }) => void heard.push([payload, id, attempt, reply('nobody asked')]),
  });
  await until('both events', () => heard.length === 2);
  assert.deepEqual(heard, [[1, 1, 1, false], [2, 2, 1, false]]);
  await nothingKept(broker);
});

test('publish says what is not stored', async (t) => {
  const broker = await Broker.start(t, POLICY);
  const asker = await broker.relay('asker');
  await broker.relay('worker', { plain: async () => {} });
  await assert.rejects(asker.publish('forbidden.thing', 1), { reason: 'denied', rule: 'no grant' });
  await assert.rejects(asker.publish('plain', 1), { reason: 'not-tracked', messageName: 'plain' });
  for (const id of ['', 'größer', 'x'.repeat(256), 7]) await assert.rejects(asker.publish('news.a', 1, { id }), TypeError);
  await broker.stop();
  await until('the relay to be offline', () => !asker.isOnline);
  await assert.rejects(asker.publish('news.a', 1), { reason: 'offline' });
});

test('a command whose handler throws, rejects or fails is tried again, and answered in the end', async (t) => {
  const broker = await Broker.start(t, POLICY);
  const seen = [];
  await broker.relay('worker', {
    'job.throws': (payload, { id, attempt, reply }) => {
      seen.push([id, attempt]);
      if (attempt === 1) throw new Error('the first attempt');
      setTimeout(() => reply('callback'), 10);
    },
    'job.rejects': async (payload, { attempt, fail }) => {
      if (attempt === 1) throw new Error('the first attempt');
      if (attempt === 2) return fail('the database is locked', 500);
      return 'promise';
    },
  });
  const asker = await broker.relay('asker');
  assert.equal(await patiently('the answer', asker.request('job.throws')), 'callback');
  assert.deepEqual(seen, [[1, 1], [1, 2]]);
  assert.equal(await patiently('the answer', asker.request('job.rejects')), 'promise');
  await nothingKept(broker);
});

test('an event whose handler fails each time becomes a dead letter', async (t) => {
  const broker = await Broker.start(t, POLICY);
  const worker = await broker.relay('worker', {
    'news.*': async () => {
      throw new Error('never mind');
    },
  });
  const asker = await broker.relay('asker');
  await asker.publish('news.a');
  assert.deepEqual(await deadLetter(broker), ['all attempts failed', 3]);
  assert.deepEqual(worker.errors.map(({ reason }) => reason), Array(3).fill('handler-failed'));
});

test('what can never be handled is not tried again', async (t) => {
  const broker = await Broker.start(t, POLICY);
  const worker = await broker.relay('worker', {
    'job.old': (payload, { never }) => void never('of a version that is too old'),
  });
  const asker = await broker.relay('asker');
  await assert.rejects(patiently('the outcome', asker.request('job.old')), { reason: 'dead-letter' });
  assert.deepEqual(await deadLetter(broker), ['refused for good by the receiver', 1]);
  await until('the report', () => worker.errors.some(({ message }) => message.includes('too old')));
});

test("what the sender did wrong is a command's answer, and an event of it is kept for an operator", async (t) => {
  const broker = await Broker.start(t, POLICY);
  await broker.relay('worker', {
    'job.wrong': (payload, { fail }) => void fail('a todo needs a title', 422),
    'news.wrong': async (payload, { fail }) => void fail('a todo needs a title', 422),
  });
  const asker = await broker.relay('asker');
  await assert.rejects(patiently('the outcome', asker.request('job.wrong')), { reason: 'failed', code: 422 });
  await nothingKept(broker);
  await asker.publish('news.wrong');
  assert.deepEqual(await deadLetter(broker), ['refused for good by the receiver', 1]);
});

test('a payload that is not JSON is not tried again', async (t) => {
  const broker = await Broker.start(t, POLICY);
  const worker = await broker.relay('worker', { 'news.*': async () => {} });
  const client = await broker.natsClient('asker');
  client.publish('news.a', '{');
  assert.deepEqual(await deadLetter(broker), ['refused for good by the receiver', 1]);
  assert.deepEqual(worker.errors.map(({ reason }) => reason), ['bad-payload']);
});

test('a handler that takes long keeps its message, and those that wait for it', async (t) => {
  const broker = await Broker.start(t, POLICY);
  const seen = [];
  const slowly = async (payload, { id, attempt }) => {
    seen.push([id, attempt]);
    // Twice what an attempt may take.
    await sleep(1_800);
  };
  await broker.relay('worker', { 'news.slow': slowly }, { concurrency: 1 });
  const asker = await broker.relay('asker');
  await Promise.all([asker.publish('news.slow'), asker.publish('news.slow')]);
  await nothingKept(broker);
  assert.deepEqual(seen, [[1, 1], [2, 1]]);
});

test('a handler that hangs does not keep its message for ever', async (t) => {
  const broker = await Broker.start(t, POLICY);
  const seen = [];
  const hangs = (payload, { attempt }) => {
    seen.push(attempt);
    return attempt === 1 ? new Promise(() => {}) : Promise.resolve();
  };
  await broker.relay('worker', { 'news.slow': hangs }, { extendMsMax: 1, closeMsMax: 1 });
  const asker = await broker.relay('asker');
  await asker.publish('news.slow');
  await nothingKept(broker);
  assert.deepEqual(seen, [1, 2]);
});

test('a handler publishes within the trace of its message', async (t) => {
  const broker = await Broker.start(t, POLICY);
  const traceparent = `00-${'ab'.repeat(16)}-${'cd'.repeat(8)}-01`;
  await broker.relay('worker', {
    'news.a': async (payload, { publish }) => void (await publish('news.done', 1, { id: 'done-1' })),
  });
  const listener = await broker.natsClient('worker');
  const heard = new Promise((resolve) => {
    listener.subscribe('news.done', { queue: 'worker', callback: (error, message) => resolve(message) });
  });
  await listener.flush();
  const client = await broker.natsClient('asker');
  const { headers } = require('@nats-io/transport-node');
  const trace = headers();
  trace.set('traceparent', traceparent);
  client.publish('news.a', '1', { headers: trace });
  const done = await patiently('the event', heard);
  assert.equal(done.headers.get('traceparent'), traceparent);
  assert.equal(done.headers.get('Nats-Msg-Id'), 'done-1');
  done.respond('+ACK');
});
