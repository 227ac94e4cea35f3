'use strict';

// Pauses that grow and differ: a thousand relays must not come back in the same instant. Never sleeps; only
// says how long.

/**
 * The pause before an attempt, counted from 1, in milliseconds: doubles from `msMin` to `msMax`, and is a
 * random one from the upper half of that.
 */
function pauseMs(attempt, msMin, msMax, random = Math.random()) {
  const doublings = Math.min(Math.max(attempt - 1, 0), 31);
  return Math.min(msMin * 2 ** doublings, msMax) * (0.5 + random / 2);
}

module.exports = { pauseMs };
