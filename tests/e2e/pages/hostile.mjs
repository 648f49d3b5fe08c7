// What a page must bear: outputs of every shape, refusals, a box that is full, broken or empty. One
// function for each test of test_page_hostile.py.

import { press, result } from "./scenarios.mjs";

const SCHEMES = ["light", "dark"];

/** What axe-core says in these schemes, and how much too wide the page is on a phone and a wall. */
async function judged(page, axe, sideways, { part = "html", schemes = SCHEMES } = {}) {
  const said = [];
  for (const scheme of schemes) {
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    said.push(...(await axe(page, part)));
  }
  await page.setViewport({ width: 2560, height: 1440 });
  const wall = await sideways(page);
  await page.setViewport({ width: 360, height: 740 });
  return { axe: said, wide: [wall, await sideways(page)] };
}

/** Every shape of `task.shapes`, run by the box and opened at its own address on a phone. */
export async function shapes({ open, axe, sideways, task }) {
  const page = await open("/", { width: 360, height: 740 });
  const seen = {};
  for (const [i, shape] of task.shapes.entries()) {
    const sent = await fetch(`${task.url}/models/shapes/predictions`, {
      method: "POST",
      headers: { "Content-Type": "application/json", Prefer: "respond-async" },
      body: JSON.stringify({ input: { shape } }),
    });
    const { id } = await sent.json();
    await page.goto(`${task.url}/predictions/${id}`);
    const { state, notice } = await result(page);
    await page.$$eval(".output details", (all) => all.forEach((n) => (n.open = true)));
    const drawn = await page.evaluate(() => ({
      nodes: document.querySelectorAll("*").length,
      text: document.querySelector(".result").innerText,
      right: [...document.querySelectorAll(".result [dir=auto]")].filter((n) => getComputedStyle(n).direction === "rtl").length,
      links: [...document.querySelectorAll(".result [href], .result [src]")].map((n) => n.getAttribute("href") ?? n.getAttribute("src")).map((u) => u.slice(0, 30)),
      boxes: document.querySelectorAll(".result .box").length,
      marks: document.querySelectorAll(".result .mark").length,
      injected: document.querySelectorAll(".result script, .result iframe, .result img[onerror]").length,
    }));
    const { text, ...rest } = drawn;
    seen[shape] = { state, notice, ...rest, length: text.length, text: text.slice(0, 500), ...(await judged(page, axe, sideways, { part: ".output", schemes: [SCHEMES[i % 2]] })) };
  }
  return seen;
}

/** No microphone: refused by the person, absent over plain http. */
export async function microphone({ open, until, task, axe, sideways }) {
  const entered = async (address) => {
    const page = await open(address);
    await page.waitForSelector("dialog[open]");
    await page.type("#key", task.key);
    await page.keyboard.press("Enter");
    await page.waitForSelector("form button[type=submit]");
    return page;
  };
  const page = await entered("/models/allkinds");
  await (await page.$("[data-input=speech] [aria-pressed]")).click();
  await until(page, ".recorder [role=status]", "not allowed to use the microphone");
  const again = await page.$eval(".recorder button", (n) => [n.textContent, n.disabled]);
  const refused = await judged(page, axe, sideways);
  const lan = await entered(`http://lan.test:${new URL(task.url).port}/models/allkinds`);
  await (await lan.$("[data-input=speech] [aria-pressed]")).click();
  await until(lan, ".recorder [role=status]", "only over https");
  // Without a secure place there is no clipboard either: the old way copies.
  await press(lan, "Copy");
  await until(lan, "section", "Copied.");
  await press(lan, "Use the example");
  await until(lan, "[data-input=photo] .chosen", "shapes.png");
  await press(lan, "Run");
  const { state, boxes } = await result(lan);
  return { again, refused, state, boxes: boxes.length };
}

/** A full queue, a model that does not start, one that raises, one that dies, files too large. */
export async function broken({ open, until, task, axe, sideways, texts }) {
  const seen = {};
  const page = await open("/models/echo");
  await page.waitForSelector("form button[type=submit]");
  const judge = async (name, css) => (seen[name] = { said: (await texts(page, css)).join("\n"), ...(await judged(page, axe, sideways)) });
  const set = (name, value) => page.select(`#in-${name}`, value);
  for (const mode of ["raise", "crash", "invalid"]) {
    await set("mode", mode);
    await press(page, "Run");
    await result(page);
    await page.waitForSelector(".output .notice");
    await judge(mode, ".output .notice");
    await page.goto(`${task.url}/models/echo`);
    await page.waitForSelector("form button[type=submit]");
  }
  await page.evaluate(() => {
    const files = new DataTransfer();
    files.items.add(new File([new Uint8Array(26 << 20)], "film.bin"));
    const input = document.querySelector("[data-input=file] input[type=file]");
    input.files = files.files;
    input.dispatchEvent(new Event("change"));
  });
  await press(page, "Run");
  await until(page, "[data-input=file] .error", "the box takes");
  await judge("large", "[data-input=file] .error");
  await press(page, "Remove");
  // One runs, one waits: the third finds the queue full.
  const body = () => JSON.stringify({ input: { delay_s: 600 } });
  const held = [];
  const post = async () => {
    const sent = await fetch(`${task.url}/models/echo/predictions`, { method: "POST", headers: { "Content-Type": "application/json", Prefer: "respond-async" }, body: body() });
    held.push((await sent.json()).id);
  };
  await post();
  await post();
  await press(page, "Run");
  await until(page, ".output .notice", "Try again in");
  await judge("full", ".output .notice");
  const status = await (await fetch(`${task.url}/status`)).json();
  const home = await open("/");
  await until(home, "section", "number 1, starts in about");
  seen.queue = { said: (await texts(home, "section[aria-labelledby=queue-title]"))[0], ...(await judged(home, axe, sideways)) };
  for (const id of held) await fetch(`${task.url}/predictions/${id}/cancel`, { method: "POST" });
  return { ...seen, waiting: status.models.echo.queue.length };
}

/** A model that cannot start, on its card and where it is run; and a box without any model. */
export async function failing({ open, until, task, axe, sideways, texts }) {
  const page = await open("/models/echo");
  await page.waitForSelector("form button[type=submit]");
  await press(page, "Run");
  await result(page);
  const run = { said: (await texts(page, ".output .notice")).join("\n"), ...(await judged(page, axe, sideways)) };
  const home = await open("/");
  await until(home, ".model-card .state", "failed");
  const card = { said: (await texts(home, ".model-card"))[0], ...(await judged(home, axe, sideways)) };
  return { run, card };
}

export async function nothing({ open, until, axe, sideways, texts }) {
  const page = await open("/");
  await until(page, ".link-state", "live");
  await until(page, ".notice", "no models");
  const home = { said: (await texts(page, ".notice"))[0], ...(await judged(page, axe, sideways)) };
  const past = await open("/predictions");
  await until(past, "main", "no predictions yet");
  const history = await judged(past, axe, sideways);
  const lost = await open("/models/nosuch");
  await until(lost, ".notice", "nosuch");
  return { home, history, lost: { said: (await texts(lost, ".notice"))[0], ...(await judged(lost, axe, sideways)) } };
}
