'use strict';

// The kept checkpoint of the audit log: what continues it, and what contradicts it.

const assert = require('node:assert/strict');
const { createHash } = require('node:crypto');
const fs = require('node:fs');
const test = require('node:test');
const { continues, logKey, node, openNote } = require('../lib/checkpoint');
const { Broker, until } = require('./support/broker');

const split = (count) => 2 ** Math.floor(Math.log2(count - 1));

/** The definitions, word for word: MTH and SUBPROOF of RFC 6962. */
function root(leaves) {
  if (leaves.length === 1) return leaves[0];
  const left = split(leaves.length);
  return node(root(leaves.slice(0, left)), root(leaves.slice(left)));
}
function prove(older, leaves, isWhole) {
  if (older === leaves.length) return isWhole ? [] : [root(leaves)];
  const at = split(leaves.length);
  const [left, right] = [leaves.slice(0, at), leaves.slice(at)];
  if (older <= at) return [...prove(older, left, isWhole), root(right)];
  return [...prove(older - at, right, false), root(left)];
}

test('what continues a tree is told from what was rewritten', () => {
  const leaves = Array.from({ length: 33 }, (_, number) => createHash('sha256').update(`${number}`).digest());
  const tree = (size) => ({ size, root: root(leaves.slice(0, size)) });
  for (let newer = 1; newer <= leaves.length; newer += 1) {
    for (let older = 1; older <= newer; older += 1) {
      const proof = prove(older, leaves.slice(0, newer), true);
      assert.ok(continues(tree(older), tree(newer), proof), `${older} to ${newer}`);
      assert.ok(!continues({ size: older, root: leaves[32] }, tree(newer), proof) || older === 33);
      assert.ok(!continues(tree(older), tree(newer), [...proof, leaves[0]]), 'a proof too long');
      if (older < newer) {
        assert.ok(!continues(tree(newer), tree(older), proof), 'its end was cut off');
        assert.ok(!continues(tree(older), tree(newer), proof.slice(1)), 'a proof too short');
      }
    }
  }
});

test('a relay keeps the newest checkpoint, and notices another history signed with the same key', async (t) => {
  const broker = await Broker.start(t);
  const key = logKey(fs.readFileSync(broker.file('audit/log.pub'), 'utf8'));
  const kept = broker.file('kept');
  const read = () => (fs.existsSync(kept) ? openNote(fs.readFileSync(kept, 'utf8'), key) : undefined);
  const relay = await broker.relay('asker', {}, { exocomCheckpoint: kept, exocomLogKey: broker.file('audit/log.pub') });
  const history = () => relay.errors.filter(({ reason }) => reason.startsWith('history-'));
  const first = await until('the first checkpoint', read);

  // What ExoCom continues in order, contradicts nothing.
  await broker.stop();
  await broker.startAgain();
  await until('a newer checkpoint', () => read().size > first.size);
  assert.deepEqual(history(), []);

  await broker.stop();
  fs.rmSync(broker.file('audit/tile'), { recursive: true });
  fs.rmSync(broker.file('audit/checkpoint'));
  const honest = fs.readFileSync(kept, 'utf8');
  await broker.startAgain();
  const [noticed] = await until('the relay to notice', () => history().length > 0 && history());
  assert.equal(noticed.reason, 'history-rewritten');
  assert.match(noticed.message, /REWRITTEN/);
  assert.equal(fs.readFileSync(kept, 'utf8'), honest, 'what it keeps stays');
  assert.ok(openNote(fs.readFileSync(`${kept}.contradiction`, 'utf8'), key));
});

test('what is no checkpoint of the log is not taken for one', async (t) => {
  const broker = await Broker.start(t);
  const log = broker.file('audit/log.pub');
  const key = logKey(fs.readFileSync(log, 'utf8'));
  const note = fs.readFileSync(broker.file('audit/checkpoint'), 'utf8');
  assert.ok(openNote(note, key).size > 0);
  for (let at = 0; at < note.length; at += 1) {
    const changed = note.slice(0, at) + (note[at] === 'x' ? 'y' : 'x') + note.slice(at + 1);
    assert.equal(openNote(changed, key), undefined, `character ${at}`);
  }
  const kept = broker.file('kept');
  assert.throws(() => broker.offlineRelay('asker', { exocomCheckpoint: kept }), /go together/);
  const wrong = { exocomCheckpoint: kept, exocomLogKey: broker.cert('ca.pem') };
  assert.throws(() => broker.offlineRelay('asker', wrong), /EXOCOM_LOG_KEY.*log\.pub/);
  fs.writeFileSync(kept, 'nonsense');
  const relay = await broker.relay('asker', {}, { exocomCheckpoint: kept, exocomLogKey: log });
  const error = await until('the word', () => relay.errors.find(({ reason }) => reason === 'history-unchecked'));
  assert.match(error.message, /kept: no checkpoint/);
  assert.equal(fs.readFileSync(kept, 'utf8'), 'nonsense');
});
