// The three packages as a person uses them: record, find, draw. What is drawn of each result is
// photographed into `task.pictures` and measured in Python, beside the box's own numbers.

import { press, result } from "./scenarios.mjs";

/** One model after the other, then each result on a phone. */
export async function packages(tools) {
  const [fluency, grounding, sketch2real] = [await record(tools), await find(tools), await draw(tools)];
  return { fluency, grounding, sketch2real };
}

/** Speak into the microphone, which plays `task.speech`, until it is over. */
async function record({ open, until, task, axe, sideways }) {
  const page = await open("/models/fluency");
  await page.waitForSelector("form button[type=submit]");
  await (await page.$("[data-input=audio] [aria-pressed]")).click();
  await until(page, ".recorder [role=status]", `${task.spokenS} s`);
  await press(page, "Stop");
  await until(page, "[data-input=audio] .chosen", "recording.wav");
  await press(page, "Run");
  const { state, wave } = await result(page);
  await page.waitForFunction(() => document.querySelector("canvas.wave:not([hidden])"), { polling: 50 });
  const strip = await page.$(".strip");
  await strip.screenshot({ path: `${task.pictures}/timeline.png` });
  const drawn = await strip.evaluate((node) => {
    const origin = node.getBoundingClientRect();
    const place = (n) => {
      const box = n.getBoundingClientRect();
      return { left: box.left - origin.left, top: box.top - origin.top, width: box.width, height: box.height };
    };
    const lane = (n) => [...n.querySelectorAll(".mark")].map((m) => ({ ...place(m), colour: getComputedStyle(m).backgroundColor, text: m.innerText }));
    return { width: origin.width, seconds: node.parentNode.parentNode.querySelector("audio").duration, wave: place(node.querySelector("canvas")), lanes: [...node.querySelectorAll(".lane")].map(lane) };
  });
  const headline = await page.$$eval(".headline dd", (all) => all.map((n) => n.innerText));
  return { state, wave, drawn, headline, address: page.url(), ...(await judged(page, axe, sideways)) };
}

/** Choose the package's photo and say what to find. */
async function find({ open, task, axe, sideways }) {
  const page = await open("/models/grounding");
  await page.waitForSelector("form button[type=submit]");
  await (await page.$("[data-input=image] input[type=file]")).uploadFile(task.photo);
  await page.$eval("#in-text_queries", (n) => (n.value = ""));
  await page.type("#in-text_queries", "cup, table");
  await press(page, "Run");
  const { state, under, boxes } = await result(page);
  await (await page.$(".boxes")).screenshot({ path: `${task.pictures}/boxes.png` });
  return { state, under, boxes, address: page.url(), ...(await judged(page, axe, sideways)) };
}

/** Draw a boat with the pointer, watch the pictures on the way, and move the slider. */
async function draw({ open, task, axe, sideways }) {
  const page = await open("/models/sketch2real");
  await page.waitForSelector("form button[type=submit]");
  await (await page.$("[data-input=image] [aria-pressed]")).click();
  const board = await (await page.waitForSelector(".board")).boundingBox();
  for (const stroke of task.strokes) {
    const at = ([x, y]) => [board.x + x * board.width, board.y + y * board.height];
    await page.mouse.move(...at(stroke[0]));
    await page.mouse.down();
    for (const point of stroke.slice(1)) await page.mouse.move(...at(point), { steps: 6 });
    await page.mouse.up();
  }
  await page.type("#in-prompt", "a boat on a lake");
  await page.click("#in-previews");
  await page.evaluate(() => {
    window.previews = new Set();
    new MutationObserver(() => window.previews.add(document.querySelector(".preview").src)).observe(document.querySelector(".output"), { subtree: true, attributes: true, attributeFilter: ["src"] });
  });
  await press(page, "Run");
  const { state, pictures } = await result(page);
  const previews = await page.evaluate(() => [...window.previews].filter((src) => src.startsWith("data:image/")).length);
  const frame = await page.$(".compare");
  await frame.screenshot({ path: `${task.pictures}/painted.png` });
  await page.focus(".compare + .row input");
  await page.keyboard.press("End");
  await frame.screenshot({ path: `${task.pictures}/drawn.png` });
  const slider = await (await page.$(".compare + .row input")).boundingBox();
  await page.mouse.click(slider.x + slider.width / 2, slider.y + slider.height / 2);
  await frame.screenshot({ path: `${task.pictures}/both.png` });
  const cut = await page.$eval(".compare + .row input", (n) => Number(n.value));
  return { state, pictures, previews, cut, address: page.url(), ...(await judged(page, axe, sideways)) };
}

/** What axe-core says of the result, and how much too wide it is on a phone. */
async function judged(page, axe, sideways) {
  const said = await axe(page);
  await page.setViewport({ width: 360, height: 740 });
  return { axe: said, phone: await sideways(page) };
}
