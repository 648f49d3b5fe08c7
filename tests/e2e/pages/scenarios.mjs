// What a person does on the page, one function for each test of test_pages.py.

/** The box at a glance: cards, and one of them as it changes while a prediction runs. */
export async function glance({ open, until, axe, sideways, texts, task }) {
  const page = await open("/");
  await until(page, ".model-card", "stopped");
  await until(page, ".link-state", "live");
  const card = `.model-card:nth-child(${task.card})`;
  const before = await page.$eval(`${card} .state`, (n) => n.innerText);
  const run = fetch(`${task.url}/echo`, { method: "POST", body: form({ delay_s: "2" }) });
  await until(page, `${card} .state`, "starting");
  await until(page, `${card} .state`, "busy");
  const memory = await page.$eval(".memory", (n) => ({ label: n.getAttribute("aria-label"), parts: n.children.length }));
  await run;
  await until(page, `${card} .state`, "ready");
  await until(page, "section", "succeeded");
  const wide = { cards: await texts(page, ".model-card h2"), leftOut: await texts(page, "section"), axe: await axe(page) };
  const phone = await open("/", { width: 360, height: 740, scheme: "dark" });
  await until(phone, ".link-state", "live");
  return { before, memory, ...wide, sideways: await sideways(phone), axeDark: await axe(phone) };
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
  return { asked, kept, url: page.url(), cards: await texts(page, ".model-card h2") };
}

/** The box restarts while the page is open: the page says so and goes on by itself. */
export async function restart({ open, until, tell, texts, task }) {
  const page = await open("/");
  await until(page, ".link-state", "live");
  await tell("stop");
  await until(page, ".link-state", "lost");
  const lost = await texts(page, ".notice");
  await tell("start");
  await until(page, ".link-state", "live");
  return { lost, cards: await texts(page, ".model-card h2"), url: task.url };
}

function form(fields) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  return body;
}
