// Opens variants of docs/examples/web-app.html in a real Chromium and prints what each says to the
// person, as JSON by the file's name. Run by test_web_app.py in a folder that has puppeteer-core.

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
  const seen = {};
  for (const name of ["unset", "offline", "alone/index", "key", "away"]) {
    const page = await browser.newPage();
    page.setDefaultTimeout(limitMs);
    await page.setViewport({ width: 360, height: 740 });
    await page.goto(`${url}/${name}.html`);
    await page.waitForFunction(() =>
      ["notice", "complaint"].some((id) => document.getElementById(id).textContent)
    );
    seen[name] = await page.evaluate(() => ({
      said: ["notice", "complaint"].map((id) => document.getElementById(id).innerText).join(""),
      disabled: [...document.querySelectorAll("button, input")].every((control) => control.disabled),
      sideways: document.documentElement.scrollWidth - innerWidth,
    }));
  }
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
