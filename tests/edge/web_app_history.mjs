// Opens docs/examples/web-app.html in a real Chromium and prints its cards as JSON, by the model of
// each. Run by test_web_app.py in a folder that has puppeteer-core.

import { readFileSync } from "node:fs";

import puppeteer from "puppeteer-core";

const { chromium, url, profile, limitMs } = JSON.parse(readFileSync(0, "utf8"));

const browser = await puppeteer.launch({
  executablePath: chromium,
  userDataDir: profile,
  protocolTimeout: limitMs,
  // Tests run as root in containers.
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(limitMs);
  await page.goto(url);
  await page.waitForFunction(() =>
    document.body.dataset.state === "ready" && document.querySelector("#complaint").textContent &&
    document.querySelector('[data-state="failed"]')
  );
  const cards = await page.$$eval("article", (found) =>
    Object.fromEntries(found.map((card) => {
      const [model, state] = card.querySelector("h3").textContent.split(": ");
      const text = [...card.querySelectorAll("p, pre")].map((one) => one.textContent).join("\n");
      return [model, [state, text]];
    })));
  const complaint = await page.$eval("#complaint", (one) => one.textContent);
  console.log(JSON.stringify({ cards, complaint }));
} finally {
  await browser.close();
}
