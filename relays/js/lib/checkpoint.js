'use strict';

// Keeps the newest checkpoint of ExoCom's audit log, and has it proven that each later one continues it: whoever
// rewrites the log, even with its secret key, contradicts what this service keeps. ExoCom is believed nothing but what
// the log's key has signed. A checkpoint that contradicts the kept one never takes its place; it is kept beside it.

const { createHash, createPublicKey, randomBytes, verify } = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const { ExoError } = require('./error');
const limits = require('./limits');

/** What ExoCom answers for its log. */
const SUBJECT = '$EXO.audit.checkpoint';

/** What stands before an Ed25519 key in SPKI (RFC 8410). */
const SPKI_ED25519 = Buffer.from('302a300506032b6570032100', 'hex');

const NOT_A_CHECKPOINT = "ExoCom's answer is no checkpoint that the log's key has signed";

class Checkpoints {
  #file;
  #key;
  #report;

  /** `report(error)` is told what is wrong, once a connection. */
  constructor({ exocomCheckpoint, exocomLogKey }, report) {
    this.#file = exocomCheckpoint;
    this.#key = exocomLogKey;
    this.#report = report;
  }

  /** Asks now, and now and then while the connection lives. Never rejects. */
  async watch(connection) {
    let isTold = false;
    let hasEnded = false;
    connection.ended.then(() => (hasEnded = true));
    while (!hasEnded) {
      try {
        await this.#check(connection);
      } catch (error) {
        if (!isTold && !hasEnded) this.#report(error);
        isTold = true;
      }
      let timer;
      const time = new Promise((resolve) => (timer = setTimeout(resolve, limits.CHECKPOINT_EVERY_MS).unref()));
      await Promise.race([time, connection.ended]);
      clearTimeout(timer);
    }
  }

  async #check(connection) {
    const kept = this.#read();
    const asked = kept ? String(kept.size) : '';
    const answer = await new Promise((resolve, reject) => {
      const done = (error, answered) => (error ? reject(unchecked(why(error))) : resolve(answered.payload));
      connection.request(SUBJECT, Buffer.from(asked), undefined, limits.CHECKPOINT_MS_MAX, done, (bytes) =>
        Buffer.from(bytes).toString('utf8'),
      );
    });
    this.judge(kept, answer);
  }

  /** Judges ExoCom's answer, and keeps what it says. Throws an ExoError where it proves nothing. */
  judge(kept, answer) {
    const end = answer.indexOf('\n\n');
    const [first, ...lines] = answer.slice(0, end).split('\n');
    const note = answer.slice(end + 2);
    const newest = end > 0 ? openNote(note, this.#key) : undefined;
    const proof = lines.map((line) => bytesOf(line, 32));
    if (newest === undefined || !/^old [0-9]+$/.test(first) || proof.includes(undefined)) throw unchecked(NOT_A_CHECKPOINT);
    if (kept === undefined) return this.#keep(note, newest);
    if (first === `old ${kept.size}` && continues(kept, newest, proof)) {
      if (newest.size > kept.size) this.#keep(note, newest);
      return undefined;
    }
    try {
      replace(`${this.#file}.contradiction`, note);
    } catch {
      // The word below is what matters.
    }
    throw new ExoError(
      'history-rewritten',
      `ExoCom's audit log was REWRITTEN: what it says of its ${newest.size} entries contradicts the checkpoint of ` +
        `${kept.size} entries that this service keeps in ${this.#file}. Save both checkpoints and the log, and find out ` +
        'who did it; `exocom audit verify --witness` tells where',
    );
  }

  /** The kept checkpoint, if there is one. */
  #read() {
    let text;
    try {
      text = fs.readFileSync(this.#file, 'utf8');
    } catch (error) {
      if (error.code === 'ENOENT') return undefined;
      throw unchecked(`${this.#file}: cannot be read (${error.code})`);
    }
    const kept = openNote(text, this.#key);
    if (kept) return kept;
    throw unchecked(
      `${this.#file}: no checkpoint that the log's key has signed; find out why, then remove the file to begin anew`,
    );
  }

  /** Keeps a checkpoint, unless another instance of the service has kept a newer one meanwhile. */
  #keep(note, newest) {
    if ((this.#read()?.size ?? -1) >= newest.size) return;
    try {
      replace(this.#file, note);
    } catch (error) {
      throw unchecked(`${this.#file}: cannot be written (${error.code})`);
    }
  }
}

/** The public key in a log's file `log.pub`: `NAME+ID+KEY` (C2SP signed-note). `undefined` for what is none. */
function logKey(text) {
  const [, name, id, encoded] = /^([^+\s]+)\+([0-9a-f]{8})\+(\S+)\s*$/.exec(text) ?? [];
  const bytes = encoded === undefined ? undefined : bytesOf(encoded, 33);
  if (bytes === undefined || bytes[0] !== 1) return undefined;
  const hash = createHash('sha256').update(`${name}\n`).update(bytes).digest();
  if (hash.toString('hex', 0, 4) !== id) return undefined;
  const key = createPublicKey({ key: Buffer.concat([SPKI_ED25519, bytes.subarray(1)]), format: 'der', type: 'spki' });
  return { name, id: hash.subarray(0, 4), key };
}

/** The tree of a checkpoint that the key has signed (C2SP tlog-checkpoint): `{ size, root }`, or `undefined`. */
function openNote(note, { name, id, key }) {
  const end = note.lastIndexOf('\n\n');
  if (end < 0) return undefined;
  const text = note.slice(0, end + 1);
  const isSigned = note
    .slice(end + 2)
    .split('\n')
    .some((line) => {
      if (!line.startsWith(`\u2014 ${name} `)) return false;
      const signature = bytesOf(line.slice(name.length + 3), 68);
      return signature?.subarray(0, 4).equals(id) && verify(null, Buffer.from(text), key, signature.subarray(4));
    });
  const [origin, size, encoded] = text.split('\n');
  const root = isSigned && origin === name ? bytesOf(encoded ?? '', 32) : undefined;
  return root && /^(0|[1-9][0-9]{0,14})$/.test(size) ? { size: Number(size), root } : undefined;
}

/** Whether the proof shows that the newer tree has the older one's entries at its beginning (RFC 6962, 2.1.2). */
function continues(older, newer, proof) {
  if (older.size > newer.size) return false;
  if (older.size === 0) return true;
  const rest = [...proof];
  const found = roots(older.size, newer.size, older.root, rest);
  return rest.length === 0 && found !== undefined && found[0].equals(older.root) && found[1].equals(newer.root);
}

/**
 * The roots of the trees of `older` and of `newer` leaves that a proof leads to, read from its end. `whole` is the root
 * of the older tree, as long as this part of it is all of it.
 */
function roots(older, newer, whole, rest) {
  if (older === newer) {
    const root = whole ?? rest.pop();
    return root && [root, root];
  }
  // Where the newer tree splits: the largest power of two below its size.
  let left = 1;
  while (left * 2 < newer) left *= 2;
  const common = rest.pop();
  if (common === undefined) return undefined;
  if (older <= left) {
    const below = roots(older, left, whole, rest);
    return below && [below[0], node(below[1], common)];
  }
  const below = roots(older - left, newer - left, undefined, rest);
  return below && [node(common, below[0]), node(common, below[1])];
}

function node(left, right) {
  return createHash('sha256').update(Buffer.of(1)).update(left).update(right).digest();
}

/** The bytes of a text in base64, if there are so many. */
function bytesOf(text, count) {
  const bytes = Buffer.from(text, 'base64');
  return bytes.length === count && bytes.toString('base64') === text ? bytes : undefined;
}

/** Replaces a file whole. */
function replace(file, text) {
  const draft = path.join(path.dirname(file), `.${path.basename(file)}.${randomBytes(8).toString('hex')}`);
  try {
    fs.writeFileSync(draft, text, { flag: 'wx', flush: true });
    fs.renameSync(draft, file);
  } catch (error) {
    fs.rmSync(draft, { force: true });
    throw error;
  }
}

function why(error) {
  if (error.reason === 'denied') return 'ExoCom keeps no audit log';
  return error.reason === 'connection-lost' ? 'the connection ended before the answer came' : error.message;
}

function unchecked(problem) {
  return new ExoError('history-unchecked', `whether ExoCom's audit log was rewritten is not known: ${problem}`);
}

module.exports = { Checkpoints, continues, logKey, node, openNote };
