// The tutorial's program is as printed and works so, and the web server beside it does what a person needs.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import test from "node:test";

import { Program, path, startBroker, startTodos, startTutorial, startWeb, until } from "./todo.mjs";

const PRINTED = String.raw`const exoRelay = new ExoRelay({serviceName: process.env.SERVICE_NAME, exocomPort: process.env.EXOCOM_PORT});
exoRelay.listen(process.env.EXORELAY_PORT);
exoRelay.on('error', (err) => { console.log(${"`"}Error: %{err}${"`"}); });
exoRelay.on('online', () => {
  const app = express();
  app.set('view engine', 'jade');
  app.get('/', (req, res) => { exoRelay.send('todos.list', (todos) => { res.render('index', {todos: todos}); }); });
  app.listen(3000, () => { console.log('Todo web server listening on port 3000'); });
});
`;

/** The page's todos, as HTML. */
async function todos(url) {
  const response = await fetch(url);
  const html = await response.text();
  assert.equal(response.status, 200, html);
  const [, list] = /<ul id="todos">(.*?)<\/ul>/s.exec(html);
  return Array.from(list.matchAll(/<li>(.*?)<\/li>/gs), ([, item]) => item);
}

function add(url, fields, headers = {}) {
  return fetch(`${url}/todos`, { method: "POST", body: new URLSearchParams(fields), headers, redirect: "manual" });
}

test("the tutorial's program is the printed one, to the letter", async () => {
  const program = await readFile(path("examples/todo/web-js/tutorial.js"), "utf8");
  assert.ok(program.endsWith(PRINTED), program);
  const above = program.slice(0, -PRINTED.length).split("\n").filter((line) => line && !line.startsWith("//"));
  assert.deepEqual(above, ["'use strict';", "const express = require('express');", "const ExoRelay = require('exorelay');"]);
});

test("todos are created on one page and listed on both", async (t) => {
  const broker = await startBroker(t);
  await startTodos(t, broker);
  const [web, tutorial] = await Promise.all([startWeb(t, broker), startTutorial(t, broker)]);
  await tutorial.says(/^Todo web server listening on port 3000$/);
  assert.deepEqual(await todos(web.url), []);
  assert.deepEqual(await todos(tutorial.url), []);
  const created = await add(web.url, { title: "  buy milk " });
  assert.deepEqual([created.status, created.headers.get("location")], [303, "/"]);
  await add(web.url, { title: "größer & <b>fetter</b>" });
  const expected = ["buy milk", "größer &amp; &lt;b&gt;fetter&lt;/b&gt;"];
  assert.deepEqual(await todos(web.url), expected);
  assert.deepEqual(await todos(tutorial.url), expected);
});

test("what cannot be a todo is refused with the todo service's own words", async (t) => {
  const broker = await startBroker(t);
  await startTodos(t, broker);
  const web = await startWeb(t, broker);
  const check = async (fields, status, problem, headers) => {
    const response = await add(web.url, fields, headers);
    const text = await response.text();
    assert.deepEqual([response.status, text.includes(problem)], [status, true], text);
  };
  await check({ title: " " }, 422, "a todo needs a title");
  await check({}, 422, "a todo needs a title");
  await check([["title", "a"], ["title", "b"]], 422, "a todo needs a title");
  await check({ title: "x".repeat(201) }, 422, "at most 200 characters");
  await check({ title: "two\nlines" }, 422, "one line of plain text");
  await check({ title: "x".repeat(9_000) }, 413, "That did not work");
  await check({ title: "x" }, 403, "from this page only", { "sec-fetch-site": "cross-site" });
  assert.deepEqual(await todos(web.url), []);
  assert.equal((await fetch(`${web.url}/other`)).status, 404);
  const page = await fetch(web.url);
  assert.match(page.headers.get("content-security-policy"), /default-src 'none'/);
});

test("without the todo service the page says so, and it recovers; so does the tutorial's", async (t) => {
  const broker = await startBroker(t);
  const [web, tutorial] = await Promise.all([startWeb(t, broker), startTutorial(t, broker)]);
  const unreachable = await fetch(web.url);
  assert.equal(unreachable.status, 503);
  assert.match(await unreachable.text(), /cannot be reached now/);
  const service = await startTodos(t, broker);
  await add(web.url, { title: "one" });
  assert.deepEqual(await todos(tutorial.url), ["one"]);

  // The broker goes and comes back: everybody finds it again, without being started anew.
  await broker.stop();
  await broker.startAgain();
  await until("the page to be back", async () => (await fetch(web.url)).status === 200);
  assert.deepEqual(await todos(web.url), ["one"]);
  assert.deepEqual(await until("the tutorial's page to be back", () => todosOrNot(tutorial.url)), ["one"]);
  assert.equal(tutorial.how, undefined, "the tutorial's program still runs");
  assert.equal(await service.stop(), 0);
  assert.equal(await web.stop(), 0);
});

/** The tutorial's program leaves a request without an answer where the todos cannot be had. */
async function todosOrNot(url) {
  const response = await fetch(url, { signal: AbortSignal.timeout(500) }).catch(() => undefined);
  return response?.ok ? todos(url) : undefined;
}

test("a port in use is told in one line, and the process ends", async (t) => {
  const broker = await startBroker(t);
  const web = await startWeb(t, broker);
  const second = new Program(t, "examples/todo/web-js", ["server.js"], {
    ...broker.environment("web"),
    PORT: new URL(web.url).port,
  });
  await second.says(/^cannot listen on port [0-9]+ \(EADDRINUSE\); set PORT to another$/);
  assert.equal(await second.ended, 1);
});
