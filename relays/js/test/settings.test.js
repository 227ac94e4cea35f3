'use strict';

// What a program and its environment may say, and what they are told when they say it wrong.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const test = require('node:test');
const ExoRelay = require('exorelay');
const { Broker, run } = require('./support/broker');
const { settings } = require('../lib/settings');

test('the environment says it all; options come first', async (t) => {
  const broker = await Broker.start(t);
  const environment = broker.environment('asker');
  const read = settings({}, environment);
  assert.deepEqual(
    [read.serviceName, read.exocomHost, read.exocomPort, read.exocomCert],
    ['asker', '127.0.0.1', broker.port, broker.cert('asker.pem')],
  );
  const other = settings({ exocomHost: 'localhost', exocomPort: '1', serviceName: undefined }, environment);
  assert.deepEqual([other.serviceName, other.exocomHost, other.exocomPort], ['asker', 'localhost', 1]);
  // The certificate says who this is, where nothing else does.
  const bare = settings({}, { ...environment, SERVICE_NAME: '', EXOCOM_HOST: '', EXOCOM_PORT: '' });
  assert.deepEqual([bare.serviceName, bare.exocomHost, bare.exocomPort], ['asker', 'localhost', 4222]);

  const localhost = broker.offlineRelay('asker', { exocomHost: 'localhost' });
  await localhost.listen();
});

test('every mistake is named', async (t) => {
  const broker = await Broker.start(t);
  const good = broker.environment('asker');
  const check = (options, changed, expected) => {
    assert.throws(() => settings(options, { ...good, ...changed }), (error) => {
      assert.ok(error instanceof TypeError);
      assert.match(error.message, expected);
      return true;
    });
  };
  check({}, { EXOCOM_PORT: 'http' }, /^EXOCOM_PORT must be a port, 1 to 65535; it is "http"/);
  check({ exocomPort: 65_536 }, {}, /^exocomPort must be a port/);
  check({ exocomPort: '0' }, {}, /^exocomPort must be a port/);
  check({}, { EXOCOM_CA: '' }, /^EXOCOM_CA is not set, nor the option exocomCa: the file of ExoCom's root/);
  check({}, { EXOCOM_CERT: undefined }, /^EXOCOM_CERT is not set/);
  check({}, { EXOCOM_KEY: undefined }, /^EXOCOM_KEY is not set/);
  check({}, { EXOCOM_KEY: broker.file('none.key') }, /exocomKey \(EXOCOM_KEY\).*cannot be read \(ENOENT\); `exocom certs issue`/);
  check({}, { EXOCOM_CERT: broker.dir }, /EXOCOM_CERT.*cannot be read \(EISDIR\)/);
  check({}, { EXOCOM_CA: broker.file('policy.toml') }, /EXOCOM_CA.*not PEM/);
  check({}, { EXOCOM_CERT: good.EXOCOM_KEY }, /EXOCOM_CERT.*not a certificate/);
  check({}, { EXOCOM_CERT: broker.cert('server.pem') }, /names nobody, which is no service/);
  check({}, { SERVICE_NAME: 'worker' }, /is worker, but the certificate .*asker\.pem is for asker/);
  check({ serviceName: 'a b' }, {}, /cannot be the name of a service/);
  check({ serviceName: 7 }, {}, /serviceName must be a text/);
  check({ port: 1 }, {}, /has no option port; it has serviceName/);
  check({ toString: 1 }, {}, /has no option toString/);
  check({ concurrency: 0 }, {}, /^concurrency must be a whole number from 1/);
  check({ reconnectMsMin: 100, reconnectMsMax: 50 }, {}, /reconnectMsMin is above reconnectMsMax/);
  check(null, {}, /an object of options/);
  const large = broker.file('large.pem');
  fs.writeFileSync(large, '-----BEGIN '.padEnd((1 << 20) + 1));
  check({}, { EXOCOM_CA: large }, /too large/);
  assert.throws(() => new ExoRelay({ exocomPort: 1, exocomCa: '/nowhere' }), TypeError);
});

test('a program that lacks something ends with one clear line', async () => {
  const { code, output } = await run("new (require('exorelay'))()", { EXOCOM_CA: '' });
  assert.notEqual(code, 0);
  assert.match(output, /TypeError: EXOCOM_CA is not set, nor the option exocomCa/);
});
