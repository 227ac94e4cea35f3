'use strict';

// Coming and going: loss and return, refused handshakes and subscriptions, closing.

const assert = require('node:assert/strict');
const { once } = require('node:events');
const fs = require('node:fs');
const net = require('node:net');
const test = require('node:test');
const { Broker, POLICY, patiently, run, until } = require('./support/broker');

const QUICKLY = { reconnectMsMin: 10, reconnectMsMax: 50 };

test('a relay comes back after the broker has been away, with its handlers', async (t) => {
  const broker = await Broker.start(t);
  await broker.relay('worker', { 'job.echo': async (payload) => payload }, QUICKLY);
  const asker = await broker.relay('asker', {}, QUICKLY);
  const events = [];
  asker.on('online', () => events.push('online'));
  asker.on('offline', () => events.push('offline'));
  assert.equal(await asker.request('job.echo', 1), 1);

  await broker.stop();
  await until('the relay to be offline', () => !asker.isOnline);
  // Not kept for later: that would be a queue that nobody sees.
  await assert.rejects(asker.request('job.echo', 2), { reason: 'offline', messageName: 'job.echo' });
  await assert.rejects(asker.sendAndConfirm('news.local', 2), { reason: 'offline' });
  asker.send('job.echo', 2, () => assert.fail('it was not sent'));
  await until('its error', () => asker.errors.some(({ reason }) => reason === 'offline'));
  await until('a failed attempt', () => asker.errors.some(({ reason }) => reason === 'unreachable'));
  assert.match(asker.errors.find(({ reason }) => reason === 'unreachable').message, /127\.0\.0\.1:[0-9]+: nobody listens there/);

  await broker.startAgain();
  await until('the relay to be back', () => asker.isOnline);
  const echoed = await until('the worker to be back', () => asker.request('job.echo', 3).catch(() => undefined));
  assert.equal(echoed, 3);
  assert.deepEqual(events, ['offline', 'online']);
});

test('requests under way fail when the connection is lost', async (t) => {
  const broker = await Broker.start(t);
  let taken = 0;
  await broker.relay('worker', { 'job.never': () => (taken += 1) });
  const asker = await broker.relay('asker');
  const outcome = asker.request('job.never').catch(({ reason }) => reason);
  await until('the worker to have it', () => taken === 1);
  await broker.stop();
  assert.ok(['connection-lost', 'receiver-lost'].includes(await patiently('the outcome', outcome)));
});

test('sendAndConfirm and flush do not wait for a broker that is gone', async (t) => {
  const broker = await Broker.start(t);
  const asker = await broker.relay('asker');
  await broker.freeze();
  const outcomes = [asker.sendAndConfirm('news.local', 1), asker.flush(), asker.request('job.echo')].map((call) =>
    call.catch(({ reason }) => reason),
  );
  broker.signal('SIGKILL');
  assert.deepEqual(await patiently('the outcomes', Promise.all(outcomes)), Array(3).fill('connection-lost'));
});

test('a relay may start before its broker, and says why it waits', async (t) => {
  const broker = await Broker.start(t);
  await broker.stop();
  const asker = broker.offlineRelay('asker', QUICKLY);
  const online = asker.listen();
  await until('failed attempts', () => asker.errors.length >= 3);
  assert.ok(asker.errors.every(({ reason }) => reason === 'unreachable'));
  assert.throws(() => asker.listen(), /is listening/);
  await broker.startAgain();
  await patiently('the relay to be online', online);
  assert.equal(asker.isOnline, true);
});

test('a service that the policy does not know is refused, with the reason to look for', async (t) => {
  const broker = await Broker.start(t);
  await broker.changePolicy(POLICY.replace('[service.watcher]', '[service.somebody-else]'));
  const watcher = broker.offlineRelay('watcher', QUICKLY);
  watcher.listen().catch(() => {});
  const error = await until('a failed attempt', () => watcher.errors[0]);
  assert.equal(error.reason, 'unreachable');
  assert.equal(watcher.isOnline, false);
});

test("a broker that EXOCOM_CA does not vouch for is not believed", async (t) => {
  const [broker, other] = [await Broker.start(t), await Broker.start(t)];
  const asker = broker.offlineRelay('asker', { ...QUICKLY, exocomPort: other.port });
  asker.listen().catch(() => {});
  const error = await until('a failed attempt', () => asker.errors[0]);
  assert.match(error.message, /its certificate is not one that EXOCOM_CA vouches for/);
  // And the other way round: it vouches for the broker, but the broker does not for it.
  const stranger = broker.offlineRelay('asker', { ...QUICKLY, exocomPort: other.port, exocomCa: other.cert('ca.pem') });
  stranger.listen().catch(() => {});
  const refused = await until('a failed attempt', () => stranger.errors[0]);
  assert.match(refused.message, /closed the connection during the handshake.*asker\.pem/);
});

test('a port that never greets is given up in time, and leaves no connection behind', async (t) => {
  const broker = await Broker.start(t);
  const open = new Set();
  const silent = net.createServer((socket) => {
    open.add(socket);
    socket.on('error', () => {});
    socket.resume();
    socket.on('close', () => open.delete(socket));
  });
  await new Promise((resolve) => silent.listen(0, '127.0.0.1', resolve));
  t.after(() => silent.close());
  const asker = broker.offlineRelay('asker', { exocomPort: silent.address().port, reconnectMsMin: 60_000, reconnectMsMax: 60_000 });
  asker.listen().catch(() => {});
  const error = await until('a failed attempt', () => asker.errors[0]);
  assert.match(error.message, /no greeting within 5000 ms/);
  await until('its connection to be closed', () => open.size === 0);
});

test('renewed certificates are used at the next connection', async (t) => {
  const broker = await Broker.start(t);
  const other = await Broker.start(t);
  const cert = broker.file('renewed.pem');
  fs.copyFileSync(other.cert('asker.pem'), cert);
  fs.copyFileSync(other.cert('asker.key'), broker.file('renewed.key'));
  const files = { exocomCert: cert, exocomKey: broker.file('renewed.key') };
  const asker = broker.offlineRelay('asker', { ...QUICKLY, ...files });
  const online = asker.listen();
  await until('a failed attempt', () => asker.errors.length > 0);
  fs.copyFileSync(broker.cert('asker.key'), broker.file('renewed.key'));
  fs.copyFileSync(broker.cert('asker.pem'), cert);
  await patiently('the relay to be online', online);
});

test('a refused subscription is an error, and is tried again: the policy may change', async (t) => {
  const broker = await Broker.start(t);
  const heard = [];
  const watcher = await broker.relay('watcher', {
    'job.new': (payload) => heard.push(payload),
    'news.>': (payload) => heard.push(payload),
  });
  await until('the error', () => watcher.errors.length > 0);
  assert.deepEqual([watcher.errors[0].reason, watcher.errors[0].messageName], ['denied', 'job.new']);
  assert.match(watcher.errors[0].message, /`receives`/);
  const asker = await broker.relay('asker');
  await asker.sendAndConfirm('news.local', 'the other handler works');
  await until('the event', () => heard.length === 1);

  await broker.changePolicy(POLICY.replace('[service.watcher]\nreceives = ["news.>"]', '[service.watcher]\nreceives = ["news.>", "job.new"]'));
  await until('the command to arrive', async () => {
    asker.send('job.new', 'now');
    await asker.flush();
    return heard.includes('now');
  });
});

test('handlers may be registered before and after listen', async (t) => {
  const broker = await Broker.start(t);
  const worker = await broker.relay('worker', { 'job.one': async () => 1 });
  worker.registerHandlers({ 'job.two': async () => 2, 'job.three': async () => 3 });
  worker.registerHandler('job.four', async () => 4).registerHandler('job.five', async () => 5);
  await worker.flush();
  const asker = await broker.relay('asker');
  const names = ['one', 'two', 'three', 'four', 'five'];
  assert.deepEqual(await Promise.all(names.map((name) => asker.request(`job.${name}`))), [1, 2, 3, 4, 5]);
});

test('close lets handlers finish and answer, and takes nothing new', async (t) => {
  const broker = await Broker.start(t);
  let open;
  const gate = new Promise((resolve) => (open = resolve));
  let taken = 0;
  const worker = await broker.relay('worker', {
    'job.gated': async () => {
      taken += 1;
      await gate;
      return 'finished';
    },
  });
  const asker = await broker.relay('asker');
  const underWay = asker.request('job.gated');
  await until('the worker to have it', () => taken === 1);
  const closed = worker.close();
  assert.equal(worker.isOnline, false);
  await until('no new work for it', () =>
    asker.request('job.gated', undefined, { timeoutMs: 20 }).catch(({ reason }) => reason === 'no-receiver'),
  );
  // Time enough to disconnect, if it did not wait.
  for (let round = 0; round < 50; round += 1) await asker.flush();
  open();
  assert.equal(await underWay, 'finished');
  await patiently('the end', closed);
  await patiently('the end', worker.close());
  await assert.rejects(worker.request('job.next'), { reason: 'closed' });
  assert.throws(() => worker.registerHandler('job.x', () => {}), { reason: 'closed' });
  assert.throws(() => worker.listen(), /is closed/);
});

test('close does not wait for ever: not for handlers, nor for a broker that is not there', async (t) => {
  const broker = await Broker.start(t);
  let taken = 0;
  const never = new Promise(() => {});
  const worker = await broker.relay(
    'worker',
    {
      'job.never': () => {
        taken += 1;
        return never;
      },
    },
    { closeMsMax: 100 },
  );
  const asker = await broker.relay('asker', {}, { closeMsMax: 100 });
  const outcome = asker.request('job.never').catch(({ reason }) => reason);
  await until('the worker to have it', () => taken === 1);
  await patiently('the end', asker.close());
  assert.equal(await outcome, 'closed');
  await patiently('the end', worker.close());

  await broker.stop();
  const waiting = broker.offlineRelay('asker');
  const online = waiting.listen();
  await until('a failed attempt', () => waiting.errors.length > 0);
  await patiently('the end', waiting.close());
  await assert.rejects(online, { reason: 'closed' });

  const idle = broker.offlineRelay('asker');
  await patiently('the end', idle.close());
});

test('close does not wait for a handshake under way', async (t) => {
  const broker = await Broker.start(t);
  const silent = net.createServer((socket) => socket.on('error', () => {}));
  await new Promise((resolve) => silent.listen(0, '127.0.0.1', resolve));
  t.after(() => silent.close());
  const asker = broker.offlineRelay('asker', { exocomPort: silent.address().port });
  asker.listen().catch(() => {});
  await once(silent, 'connection');
  const start = performance.now();
  await asker.close();
  // The handshake would be given up after 5 s.
  assert.ok(performance.now() - start < 4_000);
  assert.deepEqual(asker.errors, []);
});

test('after close nothing keeps the process alive', async (t) => {
  const broker = await Broker.start(t);
  const program = `
    const relay = new (require('exorelay'))();
    relay.registerHandler('news.>', () => {});
    relay.listen(0).then(() => relay.request('job.nobody')).catch(({ reason }) => console.log(reason)).then(() => relay.close());
  `;
  assert.deepEqual(await run(program, broker.environment('asker')), { code: 0, output: 'no-receiver\n' });
});
