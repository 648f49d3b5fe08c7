// Opens the box's page in a real Chromium and does what a scenario of scenarios.mjs says. Told by
// JSON on stdin; prints what was seen as JSON. Every request to another host is noted, and so is
// every complaint of the browser. Run by tests/e2e/page_visits.py in a folder with the npm packages.

import { readFileSync } from "node:fs";

import puppeteer from "puppeteer-core";

import * as hostile from "./hostile.mjs";
import * as packages from "./packages.mjs";
import * as people from "./people.mjs";
import * as scenarios from "./scenarios.mjs";
import * as screenshots from "./screenshots.mjs";

const task = JSON.parse(readFileSync(0, "utf8"));
const browser = await puppeteer.launch({
  executablePath: task.chromium,
  userDataDir: task.profile,
  protocolTimeout: 900_000, // a wait is one call: its own limit counts
  args: [
    "--no-sandbox", // tests run as root in containers
    "--disable-gpu",
    "--disable-dev-shm-usage",
    // Every request for the microphone is allowed, or refused.
    `--use-fake-ui-for-media-stream${task.isRefused ? "=deny" : ""}`,
    "--use-fake-device-for-media-stream",
    // What its microphone hears, once; without a file it beeps.
    ...(task.speech ? [`--use-file-for-fake-audio-capture=${task.speech}%noloop`] : []),
    // No network but the box, whatever the page or the browser itself asks for.
    // By the name lan.test it is no secure place, as in a local network.
    `--host-resolver-rules=MAP lan.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE ${new URL(task.url).hostname}`,
  ],
});
const seen = { complaints: [], elsewhere: [] };
const host = new URL(task.url).host;

/** A new page that notes what goes wrong in it. */
async function open(path, { scheme = "light", ...view } = {}) {
  const page = await (await browser.createBrowserContext()).newPage();
  page.setDefaultTimeout(task.limitMs);
  await page.setViewport({ width: 1440, height: 900, ...view });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  page.on("console", (line) => line.type() === "error" && seen.complaints.push(line.text()));
  page.on("pageerror", (error) => seen.complaints.push(String(error)));
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol.startsWith("http") && ![host, host.replace(/^[^:]+/, "lan.test")].includes(url.host)) seen.elsewhere.push(url.href);
  });
  page.on("dialog", (dialog) => (seen.complaints.push(`dialog: ${dialog.message()}`), dialog.dismiss()));
  await page.goto(/^(about|http):/.test(path) ? path : task.url + path);
  return page;
}

/** What axe-core says of the page, as short lines. */
async function axe(page, part = "html") {
  await page.evaluate(readFileSync(task.axe, "utf8"));
  const { violations } = await page.evaluate((css) => window.axe.run(css), part);
  return violations.flatMap((v) => v.nodes.map((n) => `${v.id}: ${n.target} ${n.failureSummary}`));
}

/** Wait until `test(text of the node)` holds, polled in the page. */
async function until(page, selector, part) {
  await page.waitForFunction(
    (css, wanted) => [...document.querySelectorAll(css)].some((n) => n.innerText.includes(wanted)),
    { polling: 50 },
    selector,
    part,
  );
}

/** How many pixels the page is wider than the window. */
const sideways = (page) => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
const texts = (page, css) => page.$$eval(css, (nodes) => nodes.map((n) => n.innerText));
const tell = (line) => new Promise((resolve) => process.stdout.write(`${line}\n`, resolve));

try {
  const tools = { open, axe, until, sideways, texts, tell, task, seen };
  seen.result = await { ...scenarios, ...people, ...hostile, ...packages, ...screenshots }[task.scenario](tools);
} catch (error) {
  console.error(JSON.stringify(seen)); // what the page complained of says more than the time-out
  throw error;
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
