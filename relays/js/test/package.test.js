'use strict';

// How programs get at the package: require, import, and types.

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const path = require('node:path');
const test = require('node:test');

const ROOT = path.join(__dirname, '..');

test('require and import give the same class', async () => {
  const required = require('exorelay');
  const imported = await import('exorelay');
  assert.equal(typeof required, 'function');
  assert.equal(required.name, 'ExoRelay');
  assert.equal(required.ExoRelay, required);
  assert.equal(imported.default, required);
  assert.equal(imported.ExoRelay, required);
  assert.equal(imported.ExoError, required.ExoError);
  assert.ok(required.ExoError.prototype instanceof Error);
});

test('the types describe it, for programs that require and that import', (t) => {
  const tsc = path.join(ROOT, 'node_modules/typescript/bin/tsc');
  const { status, stdout, stderr } = spawnSync(process.execPath, [tsc, '--noEmit', '--project', 'test/types'], {
    cwd: ROOT,
    encoding: 'utf8',
    timeout: 120_000,
  });
  t.diagnostic('checked by tsc');
  assert.equal(status, 0, stdout + stderr);
});

test('what the class has is what the types say, and nothing else', () => {
  const ExoRelay = require('exorelay');
  const has = Object.getOwnPropertyNames(ExoRelay.prototype).filter((name) => name !== 'constructor');
  const types = require('node:fs').readFileSync(path.join(ROOT, 'index.d.ts'), 'utf8');
  const [body] = types.split('declare namespace');
  const declared = new Set(Array.from(body.matchAll(/^ {2}(?:readonly )?([a-z]\w*)(?=[(<:])/gim), ([, name]) => name));
  declared.delete('constructor');
  assert.deepEqual(has.sort(), [...declared].sort());
});
