'use strict';

const { ExoError } = require('./lib/error');
const { ExoRelay } = require('./lib/relay');

// `require('exorelay')` is the class itself, as the tutorial's program wants it.
module.exports = ExoRelay;
module.exports.ExoRelay = ExoRelay;
module.exports.ExoError = ExoError;
