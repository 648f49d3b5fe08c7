// People who use the page without a mouse, without motion, with a phone, or with files at hand; and
// what they see when something is refused. One function for each test of test_page_people.py.

import { readFileSync } from "node:fs";

import { loaded, press, result } from "./scenarios.mjs";

const PHONE = { width: 360, height: 740, isMobile: true, hasTouch: true };

/** Where the focus is: what it is called, whether it can be seen, and how it is marked. */
const focus = (page) =>
  page.evaluate(() => {
    const node = document.activeElement;
    const box = node.getBoundingClientRect();
    const { outlineStyle, outlineWidth } = getComputedStyle(node);
    const middle = [box.left + box.width / 2, box.top + Math.min(box.height, innerHeight) / 2];
    const top = document.elementFromPoint(...middle);
    return {
      name: (node.getAttribute("aria-label") || node.labels?.[0]?.innerText || node.innerText || node.id || node.tagName).trim().slice(0, 60),
      tag: node.tagName.toLowerCase(),
      marked: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2,
      visible: box.width > 1 && box.height > 1 && Boolean(top) && (node.contains(top) || top.contains(node)),
      inDialog: Boolean(node.closest("dialog")),
      order: [...document.querySelectorAll("*")].indexOf(node),
    };
  });

/** Press Tab until the focus is on what `wanted` says; every stop on the way. */
async function tabTo(page, wanted, most = 80) {
  const stops = [];
  let last = -1;
  for (let i = 0; i < most; i += 1) {
    await page.keyboard.press("Tab");
    const stop = await focus(page);
    const isOutside = stop.tag === "body"; // the browser itself, between the last and the first
    if (!isOutside) stops.push({ ...stop, ordered: stop.order > last });
    last = isOutside ? -1 : stop.order;
    if (wanted(stop)) return stops;
  }
  throw new Error(`the keyboard never came there: ${JSON.stringify(stops.map((s) => s.name))}`);
}
const named = (name) => (stop) => stop.name.startsWith(name);

/** From the address to the result with the keyboard alone, dialogs and the history included. */
export async function keyboard({ open, until, task }) {
  const page = await open("/");
  await until(page, ".link-state", "live");
  const stops = [];
  const go = async (wanted) => stops.push(...(await tabTo(page, wanted)));
  // The first stop jumps over the header.
  await go(named("Skip to content"));
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.activeElement.id === "view");
  await go(named("echo"));
  await go(named("Log"));
  const back = [];
  const dialog = async (title, opener) => {
    await page.keyboard.press("Enter");
    await until(page, "dialog[open]", title);
    const inside = [await focus(page)];
    for (let i = 0; i < 6; i += 1) {
      await page.keyboard.press("Tab");
      const now = await focus(page);
      if (now.tag !== "body") inside.push(now); // between the last and the first is the browser itself
    }
    await page.keyboard.press("Escape");
    await page.waitForFunction(() => !document.querySelector("dialog[open]"));
    back.push([opener, (await focus(page)).name, inside.every((s) => s.inDialog)]);
  };
  await dialog("Log of", "Log");
  await page.reload();
  await until(page, ".link-state", "live");
  await go(named("Enter a key"));
  await dialog("A key for this box", "Enter a key");
  // To the model's page, as its card's link.
  await go((s) => s.tag === "a" && s.name === "allkinds");
  await page.keyboard.press("Enter");
  await page.waitForSelector("form button[type=submit]");
  await page.waitForFunction(() => document.activeElement.id === "view"); // where the new content is
  await go(named("Use the example"));
  // A drawing needs a pointer: a file does not.
  await go(named("Choose a file"));
  const opening = page.waitForFileChooser();
  await page.evaluate(() => document.activeElement.id); // by now the browser asks the test for files
  await page.keyboard.press("Enter");
  const chooser = await opening;
  await chooser.accept([task.photo]);
  await until(page, "[data-input=photo] .chosen", "shapes.png");
  const afterFile = (await focus(page)).name;
  await go(named("Draw"));
  await page.keyboard.press("Enter");
  await go(named("Red pen"));
  const board = await page.$eval(".board", (n) => n.getAttribute("aria-label"));
  await go(named("More options"));
  await page.keyboard.press("Enter");
  await go(named("Style"));
  await page.keyboard.press("ArrowDown");
  await go(named("Steps, slider"));
  await page.keyboard.press("ArrowRight");
  await go(named("Loud"));
  await page.keyboard.press("Space");
  await go(named("Delay"));
  await page.keyboard.press("Home");
  await go((s) => s.tag === "button" && s.name === "Run");
  await page.keyboard.press("Enter");
  const done = await result(page);
  await page.waitForFunction(() => document.activeElement.textContent === "Run");
  const spoken = await page.$eval("#announce", (n) => n.textContent);
  await go(named("Delete"));
  await go((s) => s.tag === "summary" && s.name === "As a table");
  await page.keyboard.press("Enter");
  await until(page, ".output table", "between");
  const sent = await (await fetch(`${task.url}/predictions/${page.url().split("/").at(-1)}`)).json();
  // Cancel a run: the focus stays near.
  await page.focus("#in-delay_s");
  await page.$eval("#in-delay_s", (n) => n.select());
  await page.keyboard.type("60");
  await page.keyboard.down("Control");
  await page.keyboard.press("Enter");
  await page.keyboard.up("Control");
  await until(page, ".output .state", "running");
  await go(named("Cancel"));
  await page.keyboard.press("Enter");
  const canceled = await result(page);
  const afterCancel = await page.evaluate(() => document.activeElement.closest(".output") !== null);
  const icon = await page.$eval("link[rel=icon]", (n) => n.href);
  return { stops, back, afterFile, board, icon, state: done.state, spoken, seen: sent.output.seen, canceled: canceled.state, afterCancel };
}

/** Whether anything moves while a model starts and runs; `reduce`: the person asked for stillness. */
export async function motion({ open, until, task }) {
  const moving = {};
  const pages = {};
  for (const value of ["no-preference", "reduce"]) {
    const page = (pages[value] = await open("/"));
    await page.emulateMediaFeatures([{ name: "prefers-reduced-motion", value }]);
    await until(page, ".link-state", "live");
    moving[value] = new Set();
  }
  const run = fetch(`${task.url}/echo`, { method: "POST", body: form({ delay_s: "3" }) });
  for (const state of ["starting", "busy"]) {
    for (const [value, page] of Object.entries(pages)) {
      await until(page, ".model-card .state", state);
      const names = await page.evaluate(() => document.getAnimations().map((a) => a.animationName ?? a.transitionProperty));
      names.forEach((name) => moving[value].add(name));
    }
  }
  await run;
  return Object.fromEntries(Object.entries(moving).map(([value, names]) => [value, [...names]]));
}

function form(fields) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  return body;
}

/** On a phone: a photo by the camera's own app, a finger on the board. */
export async function phone({ open, until, task, axe, sideways }) {
  const page = await open("/models/allkinds", PHONE);
  const camera = await page.waitForSelector("[data-input=photo] [capture]");
  const asks = await camera.evaluate((n) => [n.getAttribute("capture"), n.accept]);
  const [chooser] = await Promise.all([page.waitForFileChooser(), press(page, "Take a photo")]);
  await chooser.accept([task.photo]);
  await until(page, "[data-input=photo] .chosen", "shapes.png");
  await press(page, "Run");
  const shot = await result(page);
  // The result is under the form: the page has gone there.
  const resultTop = await page.$eval(".output", (n) => Math.round(n.getBoundingClientRect().top));
  const desk = await open("/models/allkinds");
  await desk.waitForSelector("form button[type=submit]");
  const onDesk = await desk.$$eval("[capture]", (all) => all.length);
  await page.goto(`${task.url}/models/allkinds`);
  await page.waitForSelector("form button[type=submit]");
  await page.tap("[data-input=photo] [aria-pressed]");
  const board = await page.waitForSelector(".board");
  await board.evaluate((n) => n.scrollIntoView({ block: "center" }));
  const at = await board.boundingBox();
  const scrolled = await page.evaluate(() => scrollY);
  await page.touchscreen.touchStart(at.x + 30, at.y + 30);
  for (let i = 1; i <= 10; i += 1) await page.touchscreen.touchMove(at.x + 30, at.y + 30 + i * 10);
  await page.touchscreen.touchEnd();
  await until(page, "[data-input=photo] .chosen", "drawing.png");
  // The ink is where the finger was: 30 px to the right, from 30 to 130 px down, as the page shows it.
  const ink = await board.evaluate((canvas) => {
    const scale = canvas.width / canvas.getBoundingClientRect().width;
    const dark = (x, y) => canvas.getContext("2d").getImageData(x * scale, y * scale, 1, 1).data[0] < 128;
    return [dark(30, 40), dark(30, 80), dark(30, 120), dark(60, 80), dark(30, 160)];
  });
  const stayed = (await page.evaluate(() => scrollY)) === scrolled;
  return { asks, onDesk, state: shot.state, bytes: await bytesSent(task), resultTop, ink, stayed, axe: await axe(page), sideways: await sideways(page) };
}

async function bytesSent(task) {
  const { results } = await (await fetch(`${task.url}/v1/predictions`)).json();
  const last = await (await fetch(`${task.url}/predictions/${results[0].id}`)).json();
  return last.output.seen.photo_bytes;
}

/** Files dropped by the browser itself, beside the field too, and pasted from the clipboard. */
export async function handed({ open, until, task }) {
  const page = await open("/models/allkinds");
  await page.waitForSelector("form button[type=submit]");
  const session = await page.createCDPSession();
  const drop = async (files, css, part = 0.5) => {
    await page.$eval(css, (n) => n.scrollIntoView({ block: "center" }));
    const box = await (await page.$(css)).boundingBox();
    const at = { x: box.x + box.width / 2, y: box.y + box.height * part };
    const data = { items: [], files, dragOperationsMask: 1 };
    for (const type of ["dragEnter", "dragOver"]) await session.send("Input.dispatchDragEvent", { type, ...at, data });
    const over = await page.$eval("[data-input=photo] .drop", (n) => n.classList.contains("over"));
    await session.send("Input.dispatchDragEvent", { type: "drop", ...at, data });
    return over;
  };
  const over = await drop([task.photo], "[data-input=photo] .drop");
  await until(page, "[data-input=photo] .chosen", "shapes.png");
  const lit = await page.$eval("[data-input=photo] .drop", (n) => n.classList.contains("over"));
  await page.$eval(".more", (n) => (n.open = true));
  await drop([task.letter, task.second], "[data-input=pages] .drop");
  await until(page, "[data-input=pages]", "second.txt");
  // Beside every field the browser would open the file in place of the page.
  await page.type("#in-title", " and more");
  await drop([task.speech], "h1");
  await until(page, "[data-input=speech] .chosen", "speech.wav");
  const where = [page.url(), await page.$eval("#in-title", (n) => n.value)];
  // A picture of the clipboard, pasted by the keyboard, goes to the field for pictures.
  await page.click("[data-input=photo] .chosen button");
  await page.browserContext().overridePermissions(task.url, ["clipboard-read", "clipboard-write", "clipboard-sanitized-write"]);
  const picture = readFileSync(task.photo).toString("base64");
  await page.evaluate(async (base64) => {
    const blob = new Blob([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], { type: "image/png" });
    await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
  }, picture);
  await page.focus("#in-title");
  const paste = async () => {
    await page.keyboard.down("Control");
    await page.keyboard.press("v", { commands: ["Paste"] });
    await page.keyboard.up("Control");
  };
  await paste();
  await until(page, "[data-input=photo] .chosen", ".png");
  await loaded(page, "[data-input=photo] .thumb");
  const pasted = await page.$eval("[data-input=photo] .thumb", (n) => [n.naturalWidth, n.naturalHeight]);
  // A text of the clipboard is a text.
  await page.evaluate(() => navigator.clipboard.writeText("from the clipboard"));
  await page.$eval("#in-title", (n) => n.select());
  await paste();
  const text = await page.$eval("#in-title", (n) => n.value);
  await press(page, "Run");
  const { state } = await result(page);
  const stored = await (await fetch(`${task.url}/predictions/${page.url().split("/").at(-1)}`)).json();
  return { over, lit, where, pasted, text, state, seen: stored.output?.seen };
}

/** Five pens, the eraser, undo and clear: what the board shows, and the file that is sent. */
export async function board({ open, until }) {
  const page = await open("/models/allkinds");
  await page.waitForSelector("form button[type=submit]");
  await (await page.$("[data-input=photo] [aria-pressed]")).click();
  const node = await page.waitForSelector(".board");
  await node.evaluate((n) => n.scrollIntoView({ block: "center" }));
  const at = await node.boundingBox();
  const line = async (from, to) => {
    await page.mouse.move(at.x + from[0] * at.width, at.y + from[1] * at.height);
    await page.mouse.down();
    await page.mouse.move(at.x + to[0] * at.width, at.y + to[1] * at.height, { steps: 5 });
    await page.mouse.up();
  };
  /** The colours at shares of the board's size, of the board and of the file. */
  const colours = (...places) =>
    node.evaluate(async (canvas, wanted) => {
      const read = (image) => {
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
        copy.drawImage(image, 0, 0);
        return wanted.map(([x, y]) => [...copy.getImageData(Math.round(x * canvas.width), Math.round(y * canvas.height), 1, 1).data].slice(0, 3).join());
      };
      return read(canvas);
    }, places);
  const seen = {};
  for (const [i, name] of ["Black", "Red", "Green", "Blue", "Yellow"].entries()) {
    await page.click(`[aria-label="${name} pen"]`);
    await line([0.1, 0.1 + i / 10], [0.9, 0.1 + i / 10]);
    seen[name] = await colours([0.5, 0.1 + i / 10]);
  }
  await press(page, "Eraser");
  await line([0.5, 0.05], [0.5, 0.55]);
  seen.erased = await colours([0.5, 0.1], [0.5, 0.3], [0.2, 0.1], [0.2, 0.5]);
  await press(page, "Undo");
  seen.undone = await colours([0.5, 0.1], [0.5, 0.3], [0.5, 0.5]);
  await press(page, "Undo");
  seen.twice = await colours([0.5, 0.4], [0.5, 0.5]);
  // A single touch of the pen is a dot.
  await page.click('[aria-label="Red pen"]');
  await line([0.3, 0.8], [0.3, 0.8]);
  seen.dot = await colours([0.3, 0.8]);
  await page.$eval("[aria-label='Width of the pen']", (n) => ((n.value = "40"), n.dispatchEvent(new Event("input", { bubbles: true }))));
  await line([0.6, 0.8], [0.9, 0.8]);
  seen.wide = await colours([0.75, 0.78], [0.75, 0.9]);
  await until(page, "[data-input=photo] .chosen", "drawing.png");
  await press(page, "Run");
  const { state } = await result(page);
  // What was sent is what the board shows.
  seen.sent = await page.$eval(".boxes > img", (image) => {
    const copy = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext("2d");
    copy.drawImage(image, 0, 0);
    return [[0.5, 0.1], [0.5, 0.5], [0.75, 0.78], [0.01, 0.99]].map(([x, y]) => [...copy.getImageData(Math.round(x * image.naturalWidth), Math.round(y * image.naturalHeight), 1, 1).data].slice(0, 3).join());
  });
  await press(page, "Clear");
  seen.cleared = await colours([0.5, 0.1], [0.75, 0.78]);
  const chosen = await page.$$eval("[data-input=photo] .chosen", (all) => all.length);
  return { seen, state, chosen };
}
