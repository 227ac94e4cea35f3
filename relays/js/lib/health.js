'use strict';

// Tells supervisors on this machine whether the relay is connected: GET / on the loopback address. Takes no
// input but the path, and never answers to another machine.

const { createServer } = require('node:http');
const limits = require('./limits');

/** Starts the endpoint on a port of 127.0.0.1; `report` gives `{ service, online }`. */
function serveHealth(port, report) {
  const server = createServer(
    {
      maxHeaderSize: limits.HEALTH_HEAD_BYTES_MAX,
      headersTimeout: limits.HEALTH_MS_MAX,
      requestTimeout: limits.HEALTH_MS_MAX,
      connectionsCheckingInterval: 1_000,
    },
    (request, response) => answer(request, response, report()),
  );
  server.maxConnections = limits.HEALTH_CONNECTIONS_MAX;
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port, host: '127.0.0.1' }, () => {
      server.off('error', reject);
      // Nothing that happens to the endpoint later may end the service.
      server.on('error', () => {});
      resolve(server);
    });
  });
}

function answer(request, response, report) {
  response.setHeader('Connection', 'close');
  response.setHeader('Cache-Control', 'no-store');
  response.setHeader('Content-Type', 'application/json');
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.writeHead(405, { Allow: 'GET, HEAD' }).end('{"error":"only GET"}\n');
  } else if (request.url !== '/') {
    response.writeHead(404).end('{"error":"only /"}\n');
  } else {
    response.writeHead(report.online ? 200 : 503).end(`${JSON.stringify(report)}\n`);
  }
}

/** Stops the endpoint. */
function stopHealth(server) {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

module.exports = { serveHealth, stopHealth };
