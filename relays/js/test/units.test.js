'use strict';

// The parts that decide something, alone.

const assert = require('node:assert/strict');
const test = require('node:test');
const { pauseMs } = require('../lib/backoff');
const { Denials } = require('../lib/denials');
const { checkName, checkPattern } = require('../lib/name');
const { Work } = require('../lib/work');

test('pauses double up to their end and spread over half', () => {
  const check = (attempt, random, expected) => assert.equal(pauseMs(attempt, 100, 2_000, random), expected);
  check(0, 1, 100);
  check(1, 0, 50);
  check(1, 1, 100);
  check(2, 1, 200);
  check(5, 0, 800);
  check(6, 1, 2_000);
  check(1_000_000, 1, 2_000);
});

test('names and patterns', () => {
  const check = (text, isName, isPattern) => {
    const passes = (given) => {
      try {
        return given(text) === text;
      } catch (error) {
        assert.ok(error instanceof TypeError);
        return false;
      }
    };
    assert.deepEqual([passes(checkName), passes(checkPattern)], [isName, isPattern], String(text));
  };
  check('todos.list', true, true);
  check('a-b.C_1', true, true);
  check('a'.repeat(255), true, true);
  check('a'.repeat(256), false, false);
  check('todos.*', false, true);
  check('*.x.>', false, true);
  check('>', false, true);
  check('todos.>.x', false, false);
  check('todos.a*', false, false);
  check('a.', false, false);
  check('_R.1.1', false, false);
  check('_R.>', false, false);
  check('a\nb', false, false);
  check('größe', false, false);
  check(null, false, false);
});

test('denials: as many are reported as have no request, in whatever order they are seen', async () => {
  const reported = new Map();
  const denials = new Denials(
    async () => {},
    (name, count) => reported.set(name, (reported.get(name) ?? 0) + count),
  );
  denials.denied('a');
  denials.answered('a');
  denials.answered('b');
  denials.denied('b');
  denials.denied('b');
  denials.denied('c');
  await denials.settled();
  assert.deepEqual([...reported], [['b', 1], ['c', 1]]);
  denials.denied('a');
  await denials.settled();
  assert.equal(reported.get('a'), 1);
});

test('denials: one whose request is still to be told is not reported', async () => {
  const reported = [];
  const confirmations = [];
  const denials = new Denials(
    () => new Promise((resolve, reject) => confirmations.push({ resolve, reject })),
    (name) => reported.push(name),
  );
  const confirming = async () => {
    while (confirmations.length === 0) await new Promise((resolve) => setImmediate(resolve));
    return confirmations.shift();
  };
  denials.denied('a');
  const first = await confirming();
  // Seen while the first is being confirmed; its 503 comes after that confirmation.
  denials.denied('a');
  denials.answered('a');
  first.resolve();
  const second = await confirming();
  assert.deepEqual(reported, []);
  denials.answered('a');
  second.resolve();
  await denials.settled();
  assert.deepEqual(reported, []);
  // The connection ends: nothing more will come.
  denials.denied('b');
  (await confirming()).reject(new Error('the connection has ended'));
  await denials.settled();
  assert.deepEqual(reported, ['b']);
});

test('work: so many at a time, in order, then a bounded queue, then no', async () => {
  const started = [];
  const gates = [];
  const work = new Work(2, ({ number }) => {
    started.push(number);
    return new Promise((resolve) => gates.push(resolve));
  });
  const message = (number, bytes = 1) => ({ number, data: { length: bytes } });
  for (let number = 0; number < 2 + 1_024; number += 1) assert.equal(work.take(message(number)), true);
  assert.equal(work.take(message('one too many')), false);
  assert.equal(work.take(message('two too many')), false);
  assert.equal(work.refusedInARow, 2);
  assert.deepEqual(started, [0, 1]);
  const idle = work.idle();
  while (gates.length > 0) {
    gates.shift()();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await idle;
  assert.deepEqual(started, Array.from({ length: 2 + 1_024 }, (_, number) => number));
  assert.equal(work.refusedInARow, 0);
});

test('work: the queue is bounded in bytes, too', () => {
  const work = new Work(1, () => new Promise(() => {}));
  const message = (bytes) => ({ data: { length: bytes } });
  assert.equal(work.take(message(1 << 20)), true);
  for (let count = 0; count < 16; count += 1) assert.equal(work.take(message(1 << 20)), true);
  assert.equal(work.take(message(1)), false);
});
