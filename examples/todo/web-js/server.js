'use strict';

// The web server that lists and creates todos: the tutorial's, grown up. Keeps no todos; whatever it shows or
// changes is asked of the todo service, through ExoCom.

const path = require('node:path');
const express = require('express');
const ExoRelay = require('exorelay');

const PORT = Number(process.env.PORT ?? 3000);
const BODY_BYTES_MAX = 8 << 10;
const ANSWER_MS_MAX = 15_000;

const exoRelay = new ExoRelay();
exoRelay.on('error', (error) => console.error(error.message));

const app = express();
app.disable('x-powered-by');
app.set('view engine', 'jade');
app.set('views', path.join(__dirname, 'views'));
app.use(guard);
app.use(express.urlencoded({ extended: false, limit: BODY_BYTES_MAX, parameterLimit: 8 }));

app.get('/', async (request, response) => {
  response.render('index', { todos: await ask('todos.list'), canCreate: true });
});

app.post('/todos', async (request, response) => {
  try {
    await ask('todos.create', { title: request.body?.title });
    response.redirect(303, '/');
  } catch (error) {
    if (error.reason !== 'failed' || error.code >= 500) throw error;
    // What the todo service says of what the person wrote.
    const problem = error.failure;
    response.status(422).render('index', { todos: await ask('todos.list'), canCreate: true, problem });
  }
});

app.use((error, request, response, next) => {
  if (response.headersSent) return next(error);
  const status = error instanceof ExoRelay.ExoError ? 503 : (error.status ?? 500);
  if (status >= 500) console.error(`${request.method} ${request.path}: ${error.message}`);
  const problem = problemOf(error, status, request);
  response.status(status).render('index', { todos: [], canCreate: true, problem });
});

function problemOf(error, status, request) {
  // The policy makes todos.create at-least-once: what ExoCom has, it keeps.
  if (error.reason === 'expired' && request.method === 'POST') {
    return 'The todo service is away or slow. ExoCom keeps your todo, and delivers it when it can.';
  }
  return status === 503 ? 'The todos cannot be reached now. Try again in a moment.' : 'That did not work.';
}

function ask(name, payload) {
  return exoRelay.request(name, payload, { timeoutMs: ANSWER_MS_MAX });
}

/** The page runs no script and takes no form from another site, whatever a todo's title says. */
function guard(request, response, next) {
  response.set('Content-Security-Policy', "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'");
  response.set('X-Content-Type-Options', 'nosniff');
  response.set('Referrer-Policy', 'no-referrer');
  const site = request.get('Sec-Fetch-Site') ?? 'none';
  if (request.method !== 'GET' && request.method !== 'HEAD' && site !== 'same-origin' && site !== 'none') {
    response.status(403).type('text').send('Forms are taken from this page only.\n');
  } else {
    next();
  }
}

exoRelay.listen(process.env.EXORELAY_PORT);
exoRelay.once('online', () => {
  const server = app.listen(PORT, '127.0.0.1', (error) => {
    if (error) {
      console.error(`cannot listen on port ${PORT} (${error.code}); set PORT to another`);
      process.exitCode = 1;
      exoRelay.close();
    } else {
      console.log(`Todo web server listening on port ${server.address().port}`);
    }
  });
  const stop = () => {
    server.close();
    server.closeAllConnections();
    exoRelay.close();
  };
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
});
