// The pictures of docs/page.md: each page wide and light, then on a phone and dark.

const LOOKS = [
  ["wide", { width: 1440, height: 900, scheme: "light" }],
  ["phone", { width: 390, height: 844, scheme: "dark" }],
];

/** Run each model's example and picture what is seen, then the box at a glance. */
export async function screenshots({ open, until, task }) {
  const taken = [];
  const save = async (page, name) => {
    await new Promise((resolve) => setTimeout(resolve, 1000)); // a waveform, an animation
    await page.screenshot({ path: `${task.pictures}/${name}.webp`, type: "webp", quality: 82 });
    taken.push(name);
  };
  for (const model of task.models) {
    const page = await open(`/models/${model}`);
    await until(page, "form button", "Run");
    const buttons = await page.$$("button");
    for (const one of buttons) if ((await one.evaluate((n) => n.textContent)) === "Use the example") await one.click();
    await until(page, ".chosen", "Remove");
    await page.click("form button[type=submit]");
    await page.waitForFunction(() => document.querySelector(".output .state")?.textContent === "succeeded", { polling: 200, timeout: 600000 });
    for (const [look, { width, height, scheme }] of LOOKS) {
      await page.setViewport({ width, height });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      await page.reload(); // a canvas has the colours that it was drawn with
      await until(page, ".output .state", "succeeded");
      await page.evaluate((phone) => (phone ? document.querySelector(".output").scrollIntoView() : scrollTo(0, 0)), look === "phone");
      await save(page, `${model}-${look}`);
    }
  }
  for (const [look, options] of LOOKS) {
    const page = await open("/", options);
    await until(page, ".link-state", "live");
    await save(page, `box-${look}`);
  }
  return taken;
}
