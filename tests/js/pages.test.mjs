// The todo pages in a real browser, headless Chromium: a todo is added and shown, and a title is text, whatever it
// says.

import assert from "node:assert/strict";
import { accessSync, constants } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";

import { chromium } from "playwright-core";

import { startBroker, startDemo, startTodos, startTutorial, startWeb } from "./todo.mjs";

// A browser alone takes many seconds to start on a busy machine.
const PATIENCE_MS = 120_000;
const HOSTILE = `<img src=x onerror="document.title='run'"><script>document.title='run'</script>&amp;"'\`#{1+1}`;

/** Where the systems' packages put it. */
function browserFile() {
  const names = ["chromium", "chromium-browser", "google-chrome"];
  const files = (process.env.PATH ?? "").split(":").flatMap((folder) => names.map((name) => join(folder, name)));
  return files.find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** A page of a browser of its own, which knows nothing of other runs. */
async function openBrowser(t) {
  const folder = await mkdtemp(join(tmpdir(), "exocom-browser-"));
  const context = await chromium.launchPersistentContext(folder, {
    executablePath: browserFile(),
    headless: true,
    timeout: PATIENCE_MS,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  t.after(async () => {
    await context.close();
    await rm(folder, { recursive: true, force: true });
  });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = context.pages()[0] ?? (await context.newPage());
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(error.message));
  page.on("dialog", (dialog) => {
    page.problems.push(dialog.message());
    return dialog.dismiss();
  });
  return page;
}

/** Types a title as a person does. */
async function add(page, title) {
  await page.getByRole("textbox").fill(title);
  await page.getByRole("button", { name: "Add" }).click();
  await page.getByText(title, { exact: true }).waitFor();
}

/** What the page shows, and that none of it was taken for markup or run. */
async function check(page, titles) {
  assert.deepEqual(await page.getByRole("listitem").allTextContents(), titles);
  assert.equal(await page.locator("li *").count(), 0, "a title is text");
  assert.equal(await page.title(), "Todos");
  assert.deepEqual(page.problems, []);
}

test("the demo's page: a todo is added and shown", async (t) => {
  const demo = await startDemo(t);
  const page = await openBrowser(t);
  await page.goto(demo.url);
  await check(page, []);
  await add(page, "buy milk");
  await check(page, ["buy milk"]);
  await add(page, HOSTILE);
  await check(page, ["buy milk", HOSTILE]);
  await page.reload();
  await check(page, ["buy milk", HOSTILE]);
  assert.equal(await demo.stop(), 0);
});

test("the pages in JavaScript: a todo is added and shown, also by the tutorial's program", async (t) => {
  const broker = await startBroker(t);
  await startTodos(t, broker);
  const [web, tutorial] = await Promise.all([startWeb(t, broker), startTutorial(t, broker)]);
  const page = await openBrowser(t);
  await page.goto(web.url);
  await check(page, []);
  await add(page, "buy milk");
  await check(page, ["buy milk"]);
  await add(page, HOSTILE);
  await check(page, ["buy milk", HOSTILE]);
  // The tutorial's page has no policy against scripts: there, only the view stands between a title and the browser.
  await page.goto(tutorial.url);
  await check(page, ["buy milk", HOSTILE]);
});
