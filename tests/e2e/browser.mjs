// Drives docs/examples/one-request.html in a real Chromium, as a person would. Reads what to do from
// stdin, as JSON, and prints what was seen as JSON. Run by test_browser.py in a folder that has
// puppeteer-core.

import { readFileSync } from "node:fs";

import puppeteer from "puppeteer-core";

const { chromium, url, profile, audio, picture, steps, limitMs } = JSON.parse(readFileSync(0, "utf8"));

const browser = await puppeteer.launch({
  executablePath: chromium,
  userDataDir: profile,
  args: [
    "--no-sandbox", // tests run as root in containers
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    `--use-file-for-fake-audio-capture=${audio}`,
  ],
});
const seen = { complaints: [] };
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(limitMs);
  page.on("console", (line) => line.type() === "error" && seen.complaints.push(line.text()));
  page.on("pageerror", (error) => seen.complaints.push(String(error)));
  await page.goto(url);

  /** Waits until the place is done or has failed; its text, and the picture in it if there is one. */
  async function result(place) {
    await page.waitForFunction(
      (id) => ["done", "error"].includes(document.getElementById(id).dataset.state),
      { polling: 50 },
      place,
    );
    return await page.$eval(`#${place}`, (node) => ({
      state: node.dataset.state,
      text: node.innerText,
      image: node.querySelector("img")?.src ?? null,
      canvas: node.querySelector("canvas")?.width ?? null,
    }));
  }

  const actions = {
    async notice() {
      return await page.$eval("#notice", (node) => (node.hidden ? "" : node.innerText));
    },
    async offline() {
      await page.goto(new URL("offline.html", url).href);
      return await actions.notice();
    },
    async choose() {
      await (await page.$("#audio")).uploadFile(audio);
      return await result("speech");
    },
    async record() {
      await page.$eval("#speech", (node) => delete node.dataset.state);
      await page.click("#record");
      await page.waitForFunction(() => document.getElementById("record").textContent !== "Record");
      await new Promise((resolve) => setTimeout(resolve, 4000)); // as long as somebody speaks
      await page.click("#record");
      return await result("speech");
    },
    async draw() {
      const box = await (await page.$("#sketch")).boundingBox();
      await page.mouse.move(box.x + 50, box.y + 50);
      await page.mouse.down();
      await page.mouse.move(box.x + 300, box.y + 200, { steps: 10 });
      await page.mouse.up();
      await page.type("#prompt", "a line");
      await page.click("#paint");
      return await result("picture");
    },
    async find() {
      await (await page.$("#photo")).uploadFile(picture);
      await page.click("#find");
      return await result("found");
    },
  };
  for (const step of steps) seen[step] = await actions[step]();
} catch (error) {
  console.error(JSON.stringify(seen)); // what the page complained of says more than the time-out
  throw error;
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
