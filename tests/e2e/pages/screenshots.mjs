// Pictures of the page in its states, each on a phone and a wide screen, light and dark; and what
// opening it costs. `task.pictures`: the folder for all of them; `task.shown`: for those in the docs.

const VIEWS = [
  ["wide-light", { width: 1440, height: 900, scheme: "light" }],
  ["wide-dark", { width: 1440, height: 900, scheme: "dark" }],
  ["phone-light", { width: 390, height: 844, scheme: "light" }],
  ["phone-dark", { width: 390, height: 844, scheme: "dark" }],
];
const RUN_MS = 600_000;
const EMPTY = { models: {}, left_out: {}, memory: { budget_bytes: 24 * 2 ** 30, held_bytes: 0 } };
const FULL = (model) => ({ error: { code: "queue_full", message: `Cannot queue: 64 predictions already wait for '${model}'` } });
const NO_KEY = { error: { code: "unauthorized", message: "Cannot accept this request: it has no valid key" } };

/** Run each model's example, then picture every state. */
export async function screenshots({ open, until, task }) {
  const costs = await opening(await open("/"), until, task);
  const taken = [];
  const picture = async (name, prepare, path = "/") => {
    for (const [view, options] of VIEWS) {
      const page = await open("about:blank", options);
      await prepare(page, () => page.goto(task.url + path));
      await new Promise((resolve) => setTimeout(resolve, 800)); // a waveform, an animation
      const save = (file) => page.screenshot({ path: `${file}.webp`, type: "webp", quality: 80 });
      await save(`${task.pictures}/${name}-${view}`);
      if (name === "box" && view === "wide-light") await save(`${task.shown}/box-wide`);
      await page.close();
    }
    taken.push(name);
  };

  const results = {};
  for (const model of task.models) {
    const page = await open(`/models/${model}`);
    await example(page, until);
    if (model === task.models[0]) await picture("form", (p, go) => go().then(() => example(p, until)), `/models/${model}`);
    await page.click("form button[type=submit]");
    await page.waitForFunction(() => document.querySelector(".output .state")?.textContent === "succeeded", { polling: 200, timeout: RUN_MS });
    results[model] = page; // it has the files that were sent
  }
  for (const [model, page] of Object.entries(results)) {
    for (const [view, { width, height, scheme }] of VIEWS) {
      await page.setViewport({ width, height });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      await page.reload(); // a canvas has the colours that it was drawn with
      await until(page, ".output .state", "succeeded");
      await page.evaluate((phone) => (phone ? document.querySelector(".output").scrollIntoView() : scrollTo(0, 0)), width < 500);
      await new Promise((resolve) => setTimeout(resolve, 800));
      const save = (file) => page.screenshot({ path: `${file}.webp`, type: "webp", quality: 80 });
      await save(`${task.pictures}/${model}-${view}`);
      if (view === "phone-dark") await save(`${task.shown}/${model}-phone`);
    }
    taken.push(model);
  }
  const live = (page, go) => go().then(() => until(page, ".link-state", "live"));
  await picture("box", live);
  await picture("history", (page, go) => go().then(() => until(page, ".list", task.models[0])), "/predictions");
  await picture("docs", (page, go) => go().then(() => page.waitForSelector(".operation")), "/docs");
  await picture("mistake", async (page, go) => {
    await go();
    await until(page, "form button", "Run");
    await page.click("form button[type=submit]");
    await until(page, ".error", "required");
  }, `/models/${task.models[0]}`);
  await picture("lost", async (page, go) => {
    await live(page, go);
    await page.setOfflineMode(true);
    await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange"))); // it connects again
    await until(page, ".notice", "cannot be reached");
  });
  await picture("empty", async (page, go) => {
    await answered(page, 200, EMPTY);
    await go();
    await until(page, ".notice", "no models");
  });
  await picture("key", async (page, go) => {
    await answered(page, 401, NO_KEY);
    await go();
    await page.waitForSelector("dialog[open]");
    await page.type("#key", "not-the-key");
    await page.keyboard.press("Enter");
    await until(page, "#key-error", "does not accept");
  });
  await picture("full", async (page, go) => {
    await go();
    await until(page, "form button", "Run");
    await answered(page, 429, FULL(task.models[0]), "POST", { "Retry-After": "25" });
    await example(page, until);
    await page.click("form button[type=submit]");
    await until(page, ".notice", "Try again");
    await shown(page);
  }, `/models/${task.models[0]}`);
  // A file that is none, as the model itself refuses it.
  await picture("failed", async (page, go) => {
    await go();
    await until(page, "form button", "Run");
    await hand(page, "not a recording");
    await page.click("form button[type=submit]");
    await until(page, ".output .state", "failed");
    await shown(page);
  }, `/models/${task.models[0]}`);
  await picture("refused", async (page, go) => {
    await page.evaluateOnNewDocument(() => {
      navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("Permission denied", "NotAllowedError"));
    });
    await go();
    await until(page, "form button", "Run");
    await (await page.$("[data-input] [aria-pressed]")).click();
    await until(page, ".recorder", "not allowed");
  }, `/models/${task.models[0]}`);
  // A run for each picture: it must not end before.
  const running = results[task.slow];
  for (const [view, { width, height, scheme }] of VIEWS) {
    await running.setViewport({ width, height });
    await running.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await again(running, until);
    await running.waitForSelector(".preview:not([hidden])");
    await running.evaluate(() => document.querySelectorAll(".more").forEach((n) => (n.open = false)));
    await shown(running);
    await new Promise((resolve) => setTimeout(resolve, 800));
    await running.screenshot({ path: `${task.pictures}/run-${view}.webp`, type: "webp", quality: 80 });
  }
  taken.push("run");
  await picture("busy", async (page, go) => {
    await again(running, until);
    await live(page, go);
  });
  return { taken, costs };
}

/** On a phone the result is under the form; on a wide screen the page begins at its top. */
async function shown(page) {
  await page.evaluate(() => (innerWidth < 500 ? document.querySelector(".output").scrollIntoView() : scrollTo(0, 0)));
}

/** Choose a file with this text in it. */
async function hand(page, text) {
  await page.evaluate((content) => {
    const files = new DataTransfer();
    files.items.add(new File([content], "notes.txt"));
    const input = document.querySelector("form input[type=file]");
    input.files = files.files;
    input.dispatchEvent(new Event("change"));
  }, text);
}

async function example(page, until) {
  await until(page, "form button", "Run");
  await page.$$eval("button", (all) => all.find((b) => b.textContent === "Use the example").click());
  await until(page, ".chosen", "Remove");
}

/** Run once more what stands in the form, with pictures on the way where the model makes them. */
async function again(page, until) {
  const old = page.url();
  await page.$$eval(".more", (all) => all.forEach((n) => (n.open = true)));
  await page.$$eval("#in-previews", ([box]) => box?.checked || box?.click());
  await page.click("form button[type=submit]");
  await page.waitForFunction((url) => location.href !== url, { polling: 50 }, old);
  await until(page, ".output .state", "running");
}

/** Answer what the page asks the box with one JSON; the page's own files come from the box. */
async function answered(page, status, body, method = "", headers = {}) {
  await page.setRequestInterception(true);
  page.on("request", (request) => {
    const isApi = ["fetch", "xhr"].includes(request.resourceType());
    const isMeant = isApi && (!method || request.method() === method);
    if (isMeant) request.respond({ status, headers, contentType: "application/json", body: JSON.stringify(body) });
    else request.continue();
  });
}

/** What opening the page costs: kB sent, requests, and ms until it can be used. */
async function opening(page, until, task) {
  await page.setCacheEnabled(false);
  const times = [];
  let sent = {};
  for (let i = 0; i < 5; i += 1) {
    await page.goto(task.url);
    await until(page, ".model-card", "");
    sent = await page.evaluate(() => {
      const files = performance.getEntriesByType("resource").filter((r) => r.name.includes("/static/"));
      const [shell] = performance.getEntriesByType("navigation");
      return { requests: files.length + 1, kB: Math.round([shell, ...files].reduce((sum, r) => sum + r.encodedBodySize, 0) / 100) / 10 };
    });
    times.push(await page.evaluate(() => performance.getEntriesByName("usable")[0].startTime));
  }
  times.sort((a, b) => a - b);
  return { ...sent, usable_ms: Math.round(times[2]) };
}
