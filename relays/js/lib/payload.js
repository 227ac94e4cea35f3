'use strict';

// Values to payloads and back: JSON in UTF-8; `undefined` is an empty payload.

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });
const EMPTY = new Uint8Array(0);

/** The payload for a value. Throws a TypeError for what JSON cannot say. */
function encode(value) {
  if (value === undefined) return EMPTY;
  const text = JSON.stringify(value);
  if (text === undefined) throw new TypeError(`a payload cannot be a ${typeof value}; JSON has no word for it`);
  return encoder.encode(text);
}

/** The value of a payload. Throws where it is not JSON in UTF-8. */
function decode(bytes) {
  return bytes.length === 0 ? undefined : JSON.parse(decoder.decode(bytes));
}

module.exports = { decode, encode };
