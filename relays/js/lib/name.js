'use strict';

// Message names and patterns, checked before they are sent: the broker would only deny them, or cut the
// connection for a line that is too long. Decides nothing: whether a name may be sent is for the policy.

const { NAME_BYTES_MAX } = require('./limits');

const TOKEN = /^[A-Za-z0-9_-]+$/;

/** Gives back a valid message name, or throws a TypeError that says what is wrong with it. */
function checkName(name) {
  return check('message name', name, false);
}

/** The same for a name in which `*` and a final `>` may stand. */
function checkPattern(pattern) {
  return check('message name or pattern', pattern, true);
}

function check(what, text, wildcards) {
  const wrong = (why) => new TypeError(`${what} ${JSON.stringify(text)?.slice(0, 300)}: ${why}`);
  if (typeof text !== 'string' || text === '') throw wrong('expected a text such as "todos.list"');
  if (text.length > NAME_BYTES_MAX) throw wrong(`it has at most ${NAME_BYTES_MAX} bytes`);
  if (text.startsWith('$') || text.startsWith('_')) throw wrong("names that begin with '$' or '_' are reserved");
  const tokens = text.split('.');
  tokens.forEach((token, index) => {
    const isWildcard = token === '*' || (token === '>' && index === tokens.length - 1);
    if ((wildcards && isWildcard) || TOKEN.test(token)) return;
    if (token === '') throw wrong('a token between dots cannot be empty');
    if (/[*>]/.test(token)) {
      throw wrong("'*' stands for a whole token and '>' for the last ones; neither may stand here");
    }
    throw wrong("a token is made of A-Z, a-z, 0-9, '_' and '-'");
  });
  return text;
}

module.exports = { checkName, checkPattern };
