'use strict';

// What a program or its environment says, turned into valid settings once, before anything else happens. Every
// mistake throws a TypeError that names the option and the variable. Reads files, opens no connection.

const { X509Certificate } = require('node:crypto');
const { readFileSync, statSync } = require('node:fs');
const { logKey } = require('./checkpoint');
const limits = require('./limits');

/** Each option: the variable that stands in for it, and how its text becomes a value. */
const OPTIONS = {
  serviceName: { variable: 'SERVICE_NAME', read: serviceName },
  exocomHost: { variable: 'EXOCOM_HOST', read: text, fallback: 'localhost' },
  exocomPort: { variable: 'EXOCOM_PORT', read: port, fallback: 4222 },
  exocomCa: { variable: 'EXOCOM_CA', read: text, remedy: "the file of ExoCom's root certificate" },
  exocomCert: { variable: 'EXOCOM_CERT', read: text, remedy: "the file of this service's certificate" },
  exocomKey: { variable: 'EXOCOM_KEY', read: text, remedy: "the file of this service's private key" },
  exocomCheckpoint: { variable: 'EXOCOM_CHECKPOINT', read: text },
  exocomLogKey: { variable: 'EXOCOM_LOG_KEY', read: readLogKey },
  concurrency: { read: positive(1_000_000), fallback: limits.CONCURRENCY },
  reconnectMsMin: { read: positive(limits.TIMER_MS_MAX), fallback: limits.RECONNECT_MS_MIN },
  reconnectMsMax: { read: positive(limits.TIMER_MS_MAX), fallback: limits.RECONNECT_MS_MAX },
  extendMsMax: { read: positive(limits.TIMER_MS_MAX), fallback: limits.EXTEND_MS_MAX },
  closeMsMax: { read: positive(limits.TIMER_MS_MAX), fallback: limits.CLOSE_MS_MAX },
};

/** The settings of a relay. */
function settings(options = {}, environment = process.env) {
  if (options === null || typeof options !== 'object') {
    throw new TypeError('ExoRelay takes an object of options');
  }
  const unknown = Object.keys(options).find((name) => !Object.hasOwn(OPTIONS, name));
  if (unknown !== undefined) {
    throw new TypeError(`ExoRelay has no option ${unknown}; it has ${Object.keys(OPTIONS).join(', ')}`);
  }
  const values = {};
  for (const [name, option] of Object.entries(OPTIONS)) values[name] = value(name, option, options, environment);
  if (values.reconnectMsMin > values.reconnectMsMax) {
    throw new TypeError('reconnectMsMin is above reconnectMsMax');
  }
  if ((values.exocomCheckpoint === undefined) !== (values.exocomLogKey === undefined)) {
    throw new TypeError('exocomCheckpoint (EXOCOM_CHECKPOINT) and exocomLogKey (EXOCOM_LOG_KEY) go together');
  }
  values.serviceName = identity(credentials(values).cert, values);
  return Object.freeze(values);
}

/** The certificates and the key, as the files have them now. */
function credentials({ exocomCa, exocomCert, exocomKey }) {
  return {
    ca: readPem('exocomCa', exocomCa),
    cert: readPem('exocomCert', exocomCert),
    key: readPem('exocomKey', exocomKey),
  };
}

function value(name, { variable, read, fallback, remedy }, options, environment) {
  const given = [
    [name, options[name]],
    [variable, variable && environment[variable]],
  ].find(([, candidate]) => candidate !== undefined && candidate !== null && candidate !== '');
  if (given) return read(given[0], given[1]);
  if (fallback !== undefined || remedy === undefined) return fallback;
  throw new TypeError(`${variable} is not set, nor the option ${name}: ${remedy}`);
}

function text(name, given) {
  if (typeof given !== 'string') throw new TypeError(`${name} must be a text`);
  return given;
}

function serviceName(name, given) {
  if (!/^[A-Za-z0-9_-]+$/.test(text(name, given)) || given.length > 63) {
    throw new TypeError(`${name} ${JSON.stringify(given.slice(0, 80))} cannot be the name of a service`);
  }
  return given;
}

/** A TCP port to connect to. */
function port(name, given) {
  const number = typeof given === 'string' && /^[0-9]{1,5}$/.test(given) ? Number(given) : given;
  if (!Number.isInteger(number) || number < 1 || number > 65_535) {
    throw new TypeError(`${name} must be a port, 1 to 65535; it is ${JSON.stringify(given)}`);
  }
  return number;
}

function positive(max) {
  return (name, given) => {
    if (!Number.isInteger(given) || given < 1 || given > max) {
      throw new TypeError(`${name} must be a whole number from 1 to ${max}`);
    }
    return given;
  };
}

/** The key in the file `log.pub` of an audit log. */
function readLogKey(name, file) {
  const wrong = (why) => new TypeError(`${name} (EXOCOM_LOG_KEY) ${file}: ${why}`);
  let content;
  try {
    if (statSync(text(name, file)).size > limits.PEM_FILE_BYTES_MAX) throw wrong('too large for a key');
    content = readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof TypeError) throw error;
    throw wrong(`cannot be read (${error.code})`);
  }
  const key = logKey(content);
  if (key === undefined) throw wrong("no public key of an audit log, as the file log.pub in the log's folder is");
  return key;
}

function readPem(name, file) {
  const wrong = (why) => new TypeError(`${name} (${OPTIONS[name].variable}) ${file}: ${why}`);
  let pem;
  try {
    if (statSync(file).size > limits.PEM_FILE_BYTES_MAX) throw wrong('too large for certificates or a key');
    pem = readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof TypeError) throw error;
    throw wrong(`cannot be read (${error.code}); \`exocom certs issue\` or \`exocom dev\` makes such files`);
  }
  if (!pem.includes('-----BEGIN ')) throw wrong('not PEM; it should have a line that begins -----BEGIN');
  return pem;
}

/**
 * The service that the certificate names. ExoCom believes nothing else; a relay under another name would only
 * find out from the denials, or join the wrong group and get messages twice.
 */
function identity(certificate, { serviceName, exocomCert }) {
  let names;
  try {
    names = new X509Certificate(certificate).subjectAltName ?? '';
  } catch {
    throw new TypeError(`exocomCert (EXOCOM_CERT) ${exocomCert}: not a certificate`);
  }
  const [, named] = /(?:^|, )URI:spiffe:\/\/[^/,]+\/([^,]+)/.exec(names) ?? [];
  if (named === undefined || named.includes('/')) {
    throw new TypeError(
      `exocomCert (EXOCOM_CERT) ${exocomCert}: names ${named ?? 'nobody'}, which is no service; it should have the URI spiffe://TRUST-DOMAIN/SERVICE`,
    );
  }
  if (serviceName !== undefined && serviceName !== named) {
    throw new TypeError(
      `serviceName (SERVICE_NAME) is ${serviceName}, but the certificate ${exocomCert} is for ${named}; ` +
        'use the certificate of the service',
    );
  }
  return named;
}

/** The port of the health endpoint: none for undefined, null and '', a free one for 0. */
function healthPort(given) {
  if (given === undefined || given === null || given === '') return undefined;
  return given === 0 || given === '0' ? 0 : port('the port to listen on', given);
}

module.exports = { credentials, healthPort, identity, settings };
