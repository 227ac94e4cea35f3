'use strict';

// Renewed certificates: used when their files change, with nothing tracked lost over it.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const test = require('node:test');
const { promisify } = require('node:util');
const path = require('node:path');
const execFile = promisify(require('node:child_process').execFile);
const { Broker, until } = require('./support/broker');

const EXOCOM = process.env.EXOCOM_BIN ?? path.join(__dirname, '../../../target/debug/exocom');

const POLICY = `
version = 1
trust-domain = "relay.example"

[service.asker]
sends = ["news"]

[service.worker]
receives = ["news"]

[message.news]
kind     = "event"
delivery = "at-least-once"
attempts = 20
backoff  = "20ms..100ms"
`;

test('a renewed certificate is used, and no tracked message is lost', async (t) => {
  const broker = await Broker.start(t, POLICY);
  const got = new Set();
  const worker = await broker.relay('worker', { news: async (number) => void got.add(number) });
  const asker = await broker.relay('asker');
  const before = worker.certificateExpires;
  const publish = async (number) => {
    for (;;) {
      try {
        return await asker.publish('news', number, { id: `n${number}` });
      } catch (error) {
        assert.ok(['offline', 'connection-lost', 'no-receiver'].includes(error.reason), error.message);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  };
  const publishing = (async () => {
    for (let number = 0; number < 300; number += 1) {
      await publish(number);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  })();
  let returns = 0;
  worker.on('online', () => (returns += 1));
  for (const service of ['worker', 'asker']) {
    await execFile(EXOCOM, ['certs', 'issue', '--force', '--days', '30', '--service', service, '--dir', broker.file('certs')]);
  }
  await until('the new certificate', () => returns === 1 && worker.certificateExpires > before);
  await publishing;
  await until('all messages', () => got.size === 300);

  // What cannot be used changes nothing.
  fs.copyFileSync(broker.cert('asker.key'), broker.cert('worker.key'));
  await until('the word about it', () => worker.errors.some(({ reason }) => reason === 'credentials'));
  await publish(300);
  await until('the last message', () => got.has(300));
  assert.equal(returns, 1);
});
