// Drives docs/examples/web-app.html in a real Chromium, as a person would, and prints what was seen
// as JSON. Run by test_web_app.py in a folder that has puppeteer-core.

import { existsSync, readFileSync } from "node:fs";
import { setTimeout as wait } from "node:timers/promises";

import puppeteer from "puppeteer-core";

const { chromium, url, profile, audio, picture, limitMs, away } = JSON.parse(readFileSync(0, "utf8"));

const browser = await puppeteer.launch({
  executablePath: chromium,
  userDataDir: profile,
  protocolTimeout: limitMs,
  // Tests run as root in containers.
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    `--use-file-for-fake-audio-capture=${audio}`,
  ],
});
const ENDED = ["succeeded", "failed", "canceled"];
const complaints = [];
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(limitMs);
  page.on("console", (line) => line.type() === "error" && complaints.push(line.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  const ready = () => page.waitForFunction(() => document.body.dataset.state === "ready");
  const cards = (states, count) =>
    page.waitForFunction(
      (wanted, many) =>
        [...document.querySelectorAll("article")].filter((card) =>
          wanted.includes(card.dataset.state)
        ).length === many,
      { polling: 50 },
      states,
      count,
    );
  await page.goto(url);
  await ready();
  const box = await (await page.$("#sketch")).boundingBox();
  await page.mouse.move(box.x + 50, box.y + 50);
  await page.mouse.down();
  await page.mouse.move(box.x + 300, box.y + 200, { steps: 10 });
  await page.mouse.up();
  await page.click("#paint");
  await (await page.$("#audio")).uploadFile(audio);
  await (await page.$("#photo")).uploadFile(picture);
  await cards([...ENDED, "starting", "processing"], 3);
  await page.reload();
  await ready();
  // One more run while the box is away.
  for (const end = Date.now() + limitMs; !existsSync(away) && Date.now() < end;) await wait(50);
  await (await page.$("#photo")).uploadFile(picture);
  await cards(ENDED, 4);
  await page.waitForFunction(() => [...document.images].every((image) => image.complete));
  // Speak: as long as somebody does.
  await page.click("#record");
  await page.waitForFunction(() => document.querySelector("#record").textContent !== "Record");
  await wait(4000);
  await page.click("#record");
  await cards(ENDED, 5);
  await page.waitForFunction(() => [...document.images].every((image) => image.complete));
  const seen = await page.$$eval("article", (found) =>
    found.map((card) => ({
      title: card.querySelector("h3").textContent,
      text: card.textContent,
      first: card.children[1].innerText,
      pictures: [...card.querySelectorAll("img")].map((image) => image.naturalWidth > 0),
    })));
  console.log(JSON.stringify({ seen, complaints }));
} catch (error) {
  console.error(JSON.stringify(complaints)); // they say more than the time-out
  throw error;
} finally {
  await browser.close();
}
