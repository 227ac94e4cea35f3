'use strict';

// The local health endpoint of `listen(port)`.

const assert = require('node:assert/strict');
const { once } = require('node:events');
const net = require('node:net');
const test = require('node:test');
const { Broker, until } = require('./support/broker');

async function get(port, { path = '/', method = 'GET' } = {}) {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { method });
  return { status: response.status, body: await response.text(), type: response.headers.get('content-type') };
}

test('says whether the relay is online', async (t) => {
  const broker = await Broker.start(t);
  const asker = broker.offlineRelay('asker', { reconnectMsMin: 10, reconnectMsMax: 50 });
  await asker.listen('0');
  const port = await until('the endpoint', () => asker.healthPort);
  const online = { status: 200, body: '{"service":"asker","online":true}\n', type: 'application/json' };
  assert.deepEqual(await get(port), online);
  assert.equal((await get(port, { method: 'HEAD' })).status, 200);
  assert.equal((await get(port, { path: '/other' })).status, 404);
  assert.equal((await get(port, { method: 'POST' })).status, 405);

  await broker.stop();
  await until('the relay to be offline', () => !asker.isOnline);
  assert.deepEqual(await get(port), { ...online, status: 503, body: '{"service":"asker","online":false}\n' });
  await broker.startAgain();
  await until('the relay to be online', () => asker.isOnline);
  assert.deepEqual(await get(port), online);
  await asker.close();
  await assert.rejects(get(port));
});

test('bounds what it takes: long heads and many connections', async (t) => {
  const broker = await Broker.start(t);
  const asker = broker.offlineRelay('asker');
  await asker.listen(0);
  const port = await until('the endpoint', () => asker.healthPort);
  const response = await fetch(`http://127.0.0.1:${port}/`, { headers: { 'x-long': 'x'.repeat(8_000) } });
  assert.equal(response.status, 431);

  let closed = 0;
  const hold = () => {
    const socket = net.connect(port, '127.0.0.1').on('error', () => {});
    t.after(() => socket.destroy());
    socket.resume().once('close', () => (closed += 1));
    return once(socket, 'connect');
  };
  await until('a connection too many to be refused', async () => {
    await Promise.all(Array.from({ length: 16 }, hold));
    return get(port).then(
      () => false,
      () => true,
    );
  });
  // Those that say nothing are cut.
  await until('the endpoint to be free again', () => get(port).catch(() => undefined));
  await until('the silent connections to be closed', () => closed >= 16);
});

test('without a port there is none', async (t) => {
  const broker = await Broker.start(t);
  for (const port of [undefined, '', null]) {
    const asker = broker.offlineRelay('asker');
    await asker.listen(port);
    assert.equal(asker.healthPort, undefined);
  }
  const asker = broker.offlineRelay('asker');
  for (const port of ['x', -1, 65_536, 1.5, '80 ']) assert.throws(() => asker.listen(port), TypeError);
});

test('a port in use is an error that says so, and the relay works without', async (t) => {
  const broker = await Broker.start(t);
  const taken = net.createServer();
  await new Promise((resolve) => taken.listen(0, '127.0.0.1', resolve));
  t.after(() => taken.close());
  const asker = broker.offlineRelay('asker');
  await asker.listen(taken.address().port);
  const error = await until('the error', () => asker.errors[0]);
  assert.equal(error.reason, 'health');
  assert.match(error.message, new RegExp(`127\\.0\\.0\\.1:${taken.address().port} \\(EADDRINUSE\\)`));
  await asker.flush();
});
