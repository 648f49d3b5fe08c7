// What a person does on the page, one function for each test of test_pages.py.

import { readFileSync, writeFileSync } from "node:fs";

/** The box at a glance: cards, and one of them as it changes while a prediction runs. */
export async function glance({ open, until, axe, sideways, texts, task }) {
  const page = await open("/");
  await until(page, ".model-card", "stopped");
  await until(page, ".link-state", "live");
  const other = await open("/");
  await until(other, ".link-state", "live");
  const card = `.model-card:nth-child(${task.card})`;
  const before = await page.$eval(`${card} .state`, (n) => n.innerText);
  const run = fetch(`${task.url}/echo`, { method: "POST", body: form({ delay_s: "2" }) });
  await until(page, `${card} .state`, "starting");
  await until(page, `${card} .state`, "busy");
  await until(other, `${card} .state`, "busy");
  const memory = await page.$eval(".memory", (n) => ({ label: n.getAttribute("aria-label"), parts: n.children.length }));
  await run;
  for (const one of [page, other]) {
    await until(one, `${card} .state`, "ready");
    await until(one, "section", "succeeded");
  }
  const operated = await operate(page, card, { until, axe, task });
  const wide = { cards: await texts(page, ".model-card h2"), leftOut: await texts(page, "section"), axe: await axe(page) };
  const phone = await open("/", { width: 360, height: 740, scheme: "dark" });
  await until(phone, ".link-state", "live");
  const docs = await open("/docs", { width: 390, height: 844, scheme: "dark" });
  await docs.waitForSelector(".operation");
  await docs.click(".operation summary");
  const api = { first: (await texts(docs, ".operation"))[0], axe: await axe(docs), sideways: await sideways(docs) };
  return { before, memory, operated, ...wide, sideways: await sideways(phone), axeDark: await axe(phone), api };
}

/** On a card: unload, load, a restart that is refused and one that is not, and the log as it grows. */
async function operate(page, card, { until, axe, task }) {
  const pressed = (name) => page.$$eval(`${card} .operate button`, (all, wanted) => all.find((b) => !b.hidden && b.textContent.startsWith(wanted)).click(), name);
  const fact = (name) => page.$$eval(`${card} dl div`, (all, wanted) => all.find((d) => d.innerText.startsWith(wanted))?.lastChild.textContent, name);
  const perMinute = await fact("Per minute");
  await pressed("Unload");
  await until(page, `${card} .state`, "stopped");
  await pressed("Load");
  await until(page, `${card} .state`, "starting");
  await until(page, `${card} .state`, "ready");
  const good = readFileSync(task.runner, "utf8");
  writeFileSync(task.runner, "def (:\n");
  await pressed("Restart");
  await until(page, `${card} .operate`, "Cannot restart");
  const refused = await page.$eval(`${card} .operate [role=status]`, (n) => n.innerText);
  writeFileSync(task.runner, good);
  await pressed("Restart");
  await until(page, `${card} .state`, "starting");
  await until(page, `${card} .state`, "ready");
  await pressed("Log");
  await until(page, "dialog[open]", "Log of echo");
  await fetch(`${task.url}/echo`, { method: "POST", body: form({ text: "seen in the log" }) });
  await until(page, "dialog pre", "seen in the log");
  const logAxe = await axe(page);
  await page.keyboard.press("Escape");
  await page.waitForSelector("dialog", { hidden: true });
  return { perMinute, refused, logAxe };
}

/** A box with keys: the page asks, says that a key is wrong, and goes on with a right one. */
export async function keys({ open, until, axe, task, texts }) {
  const page = await open("/");
  await page.waitForSelector("dialog[open]");
  const asked = await axe(page);
  await page.type("#key", "wrong-key");
  await page.keyboard.press("Enter");
  await until(page, "#key-error", "does not accept");
  await page.type("#key", task.key);
  await page.keyboard.press("Enter");
  await until(page, ".model-card", "stopped");
  await until(page, ".notice", "admin key");
  const kept = await page.evaluate(() => [Object.values(sessionStorage), localStorage.length]);
  await page.reload();
  await until(page, ".model-card", "stopped");
  const buttons = await page.$$eval(".operate:not([hidden])", (all) => all.length);
  return { asked, kept, buttons, url: page.url(), cards: await texts(page, ".model-card h2") };
}

/** The box restarts while the page is open: the page says so and goes on by itself. */
export async function restart({ open, until, tell, texts, task }) {
  const page = await open("/");
  await until(page, ".link-state", "live");
  const run = await open("/models/poet");
  await begin(run, "beside the white chickens");
  await until(run, ".output .state", "running");
  await tell("kill");
  await until(page, ".link-state", "lost");
  const lost = await texts(page, ".notice");
  await until(run, ".output", "The run goes on; trying again");
  await tell("start");
  await until(page, ".link-state", "live");
  await result(run);
  const after = await texts(run, ".prose");
  // Without a network the stream goes on without a word.
  await page.setOfflineMode(true);
  await until(page, ".link-state", "lost");
  await page.setOfflineMode(false);
  await until(page, ".link-state", "live");
  return { lost, after, cards: await texts(page, ".model-card h2"), url: task.url };
}

function form(fields) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  return body;
}

const button = async (page, name) => {
  const found = await page.$$("button");
  for (const one of found) if ((await one.evaluate((n) => n.textContent)).trim() === name) return one;
  throw new Error(`no button '${name}'`);
};
export const press = async (page, name) => (await button(page, name)).click();

/** Wait until these pictures are there, or failed. Their decode() waits for a frame to be shown, and
 * where nothing moves a headless Chromium 156 shows none. */
export async function loaded(page, css) {
  await page.waitForFunction((css) => [...document.querySelectorAll(css)].every((i) => i.complete), { polling: 50 }, css);
}

/** Wait for the end of the run; what is drawn of its result. */
export async function result(page) {
  await page.waitForFunction(() => ["succeeded", "failed", "canceled"].includes(document.querySelector(".output .state")?.textContent), { polling: 50 });
  // A waveform is shown once the sound is decoded; one that cannot be stays hidden.
  const shown = () => ![...document.querySelectorAll(".output canvas.wave")].some((c) => c.hidden && c.closest(".part").querySelector("audio"));
  await page.waitForFunction(shown, { polling: 50, timeout: 20_000 }).catch(() => {});
  await loaded(page, ".output img");
  return await page.evaluate(() => {
    const all = (css) => [...document.querySelectorAll(`.output ${css}`)];
    const box = (n) => Object.fromEntries(["left", "top", "width", "height"].map((k) => [k, Math.round(n.getBoundingClientRect()[k])]));
    return {
      state: all(".state")[0].textContent,
      text: all("")[0]?.textContent ?? document.querySelector(".output").innerText,
      pictures: all("img").map((i) => [i.alt, i.naturalWidth, i.naturalHeight]),
      boxes: all(".box").map(box),
      under: all(".boxes > img").map(box),
      tags: all(".tag").map(box),
      marks: all(".mark").length,
      wave: all("canvas.wave").filter((c) => !c.hidden).length,
      players: all("audio").length,
      rows: all("table tr").length,
      notice: all(".notice").map((n) => n.innerText),
    };
  });
}

/** Fill every kind of input, run, look, reload, and find it in the history. */
export async function everything({ open, until, axe, sideways, task }) {
  const page = await open("/models/allkinds");
  await page.waitForSelector("form button[type=submit]");
  const empty = await page.$eval("pre[aria-label=Code]", (n) => n.textContent);
  await press(page, "Run");
  await until(page, "[data-input=photo] .error", "required");
  await press(page, "Use the example");
  await until(page, "[data-input=photo] .chosen", "shapes.png");
  await page.$eval(".more", (n) => (n.open = true));
  const set = async (name, value) => {
    await page.$eval(`#in-${name}`, (n) => (n.value = ""));
    await page.type(`#in-${name}`, value);
  };
  await set("code", "12");
  await page.$eval("#in-code", (n) => n.blur());
  await until(page, "[data-input=code] .error", "must look like");
  await set("code", "777");
  await set("seed", "9007199254740993");
  await page.select("#in-style", "wax");
  await page.click("#in-loud");
  await page.type("#in-token", "hush hush");
  const kind = ".kind[aria-label^=Either]";
  await page.select(kind, "string");
  await page.type("#in-either", "12");
  await until(page, ".row:has(> .kind)", "reads this as a whole number");
  await page.select(kind, "array");
  await (await page.$("[data-input=either] button")).click();
  await page.type("[data-input=either] input", "only one");
  await page.select("#in-sure", "false");
  await page.type("#in-options", "{");
  await page.$eval("#in-options", (n) => n.blur());
  await until(page, "[data-input=options] .error", "not JSON");
  await set("options", '{"a": [1, "b"]}');
  await (await page.$("[data-input=points] button")).click();
  await page.type("[data-input=points] textarea", '{"x": 1.5}');
  await (await page.$("[data-input=pages] input[type=file]")).uploadFile(task.letter);
  // Record from Chromium's own microphone, which beeps.
  await (await page.$("[data-input=speech] [aria-pressed]")).click();
  await until(page, ".recorder [role=status]", "2 s");
  await press(page, "Stop");
  await until(page, "[data-input=speech] .chosen", "recording.wav");
  const code = {};
  for (const language of ["JavaScript", "Supabase", "Python", "curl"]) {
    await press(page, language);
    code[language] = await page.$eval("pre[aria-label=Code]", (n) => n.textContent);
  }
  const formAxe = await axe(page);
  await press(page, "Run");
  const first = await result(page);
  const resultAxe = await axe(page);
  await page.$eval(".part summary", (n) => n.click());
  const address = page.url();
  await page.reload();
  const again = await result(page);
  const stored = await (await fetch(`${task.url}/predictions/${address.split("/").at(-1)}`)).text();
  const kept = await page.evaluate(() => ({ seed: document.querySelector("#in-seed").value, token: document.querySelector("#in-token").value, style: document.querySelector("#in-style").value, either: [document.querySelector(".kind").value, document.querySelector("[data-input=either] input").value], files: [...document.querySelectorAll(".chosen")].map((n) => n.innerText.split(" · ")[0]) }));
  await page.click("#top nav a:nth-child(2)");
  await until(page, ".list li", "allkinds");
  const history = await page.$$eval(".list li a", (nodes) => nodes.map((n) => n.href));
  await page.click(".list li a");
  await result(page);
  const phone = await page.setViewport({ width: 360, height: 740 }).then(() => sideways(page));
  // Delete it here, after a second thought; and another one in the history.
  const trash = await page.waitForSelector(".output .danger:not([hidden])");
  await trash.click();
  await until(page, ".output .danger", "for good?");
  await trash.click();
  await until(page, "main", "There are no predictions yet");
  await page.goBack();
  await until(page, ".notice", "Cannot find prediction");
  await page.goto(`${task.url}/models/allkinds`);
  await page.waitForSelector("form button[type=submit]");
  await press(page, "Use the example");
  await until(page, "[data-input=photo] .chosen", "shapes.png");
  await press(page, "Run");
  await result(page);
  await page.click("#top nav a:nth-child(2)");
  await until(page, ".list li", "allkinds");
  const bin = await page.$(".list li .danger");
  await bin.click();
  await bin.click();
  await until(page, "main", "There are no predictions yet");
  return { empty, stored, first, again, kept, code, address, history, phone, formAxe, resultAxe };
}

/** Draw, cancel, follow the log, a model's own objection, and a run that goes on without the page. */
export async function drawing({ open, until, task }) {
  const page = await open("/models/allkinds");
  await page.waitForSelector("form button[type=submit]");
  await (await page.$("[data-input=photo] [aria-pressed]")).click();
  const board = await (await page.waitForSelector(".board")).boundingBox();
  await page.mouse.move(board.x + 20, board.y + 20);
  await page.mouse.down();
  await page.mouse.move(board.x + 200, board.y + 120, { steps: 8 });
  await page.mouse.up();
  await until(page, "[data-input=photo] .chosen", "drawing.png");
  const ink = await page.$eval(".board", (canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let dark = 0;
    for (let i = 0; i < data.length; i += 4) dark += data[i] < 128;
    return dark;
  });
  await page.$eval(".more", (n) => (n.open = true));
  await page.select("#in-mode", "invalid");
  await press(page, "Run");
  const objected = await result(page);
  const beside = await page.$eval("[data-input=title] .error", (n) => n.textContent);
  await page.select("#in-mode", "well");
  await page.$eval("#in-delay_s", (n) => (n.value = ""));
  await page.type("#in-delay_s", "60");
  await press(page, "Run");
  await until(page, ".output .state", "running");
  await until(page, ".output", "% done");
  // A reload in the middle: the run goes on, and so does what is shown of it.
  await page.reload();
  await until(page, ".output .state", "running");
  await until(page, ".output", "% done");
  await press(page, "Cancel");
  const canceled = await result(page);
  await page.$eval("#in-delay_s", (n) => (n.value = ""));
  await page.type("#in-delay_s", "4");
  const old = page.url();
  await press(page, "Run");
  await page.waitForFunction((url) => location.href !== url, { polling: 50 }, old);
  const address = page.url();
  await page.close();
  const later = await open(address.slice(task.url.length));
  const found = await result(later);
  // Another browser, which does not have the drawing.
  await until(later, ".output", "Photo: not shown here");
  return { ink, objected, beside, canceled: canceled.state, found: found.state };
}

/** A model that streams, on two pages at once: each has its own text while it still runs. */
export async function streaming({ open, until, texts }) {
  const page = await open("/models/poet");
  const other = await open("/models/poet");
  await begin(other, "glazed with rain water");
  await begin(page, "so much depends upon a red wheel barrow"); // waits for the other's end
  await until(page, ".output .prose", "so much");
  const during = [await page.$eval(".output .state", (n) => n.textContent), (await texts(page, ".prose"))[0]];
  const both = [];
  for (const one of [page, other]) {
    await result(one);
    both.push(await texts(one, ".prose"));
  }
  return { during, both };
}

/** Run the poet, slowly. */
async function begin(page, text) {
  await page.waitForSelector("form button[type=submit]");
  for (const [name, value] of [["text", text], ["delay_s", "1"]]) {
    await page.$eval(`#in-${name}`, (n) => (n.value = ""));
    await page.type(`#in-${name}`, value);
  }
  await press(page, "Run");
}

/** A run that has ended: what each file of its output is, as the page shows or links it. */
export async function ended({ open, task }) {
  const page = await open(`/predictions/${task.id}`);
  await page.waitForSelector('.output [href*="/v1/outputs/"]');
  return await page.evaluate(async () => {
    const shown = [...document.querySelectorAll('.output [src*="/v1/outputs/"], .output [href*="/v1/outputs/"]')];
    const answers = await Promise.all(shown.map((n) => fetch(n.src || n.href)));
    return await Promise.all(answers.map(async (a) => [a.status, a.redirected, await a.text()]));
  });
}
