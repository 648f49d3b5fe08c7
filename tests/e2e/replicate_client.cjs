const Replicate = require("replicate");
const { validateWebhook } = require("replicate");
const fs = require("node:fs");
const { url, key, inbox } = JSON.parse(fs.readFileSync(0, "utf8"));
const replicate = new Replicate({ auth: key, baseUrl: `${url}/v1` });

(async () => {
  const told = {};
  told.run = await replicate.run("acme/echo", { input: { text: "hi" } });
  const model = await replicate.models.get("acme", "echo");
  told.version = await replicate.run(`acme/echo:${model.latest_version.id}`, {
    input: { text: "exact" },
  });
  const seen = [];
  told.slow = await replicate.run(
    "acme/echo",
    { input: { text: "slow", delay_s: 1.5 }, wait: { mode: "block", timeout: 1 } },
    (p) => seen.push(p.status),
  );
  told.seen = seen;
  const polled = await replicate.predictions.create({
    model: "acme/echo", input: { text: "poll", delay_s: 0.1 },
  });
  told.created = polled.status;
  told.waited = await replicate.wait(polled, { interval: 20 });
  told.got = await replicate.predictions.get(polled.id);
  const long = await replicate.predictions.create({
    model: "acme/echo", input: { delay_s: 60 },
  });
  await replicate.predictions.cancel(long.id);
  told.canceled = (await replicate.wait(long, { interval: 20 })).status;
  try {
    await replicate.run("acme/echo", { input: { mode: "raise" } });
  } catch (error) {
    told.failed = error.message;
  }
  try {
    await replicate.run("acme/nosuch", { input: {} });
  } catch (error) {
    told.missing = error.response.status;
  }
  const bytes = Buffer.from("hello");
  const file = await replicate.files.create(new File([bytes], "a.txt", { type: "text/plain" }), {
    from: "npm",
  });
  told.file = await replicate.files.get(file.id);
  told.byUrl = await replicate.run("acme/echo", { input: { file: file.urls.get } });
  told.byBlob = await replicate.run("acme/echo", { input: { file: new Blob([bytes]) } });
  // Its fileEncodingStrategy "data-uri" sends the client object in place of the inputs.
  const uri = `data:text/plain;base64,${bytes.toString("base64")}`;
  told.byDataUri = await replicate.run("acme/echo", { input: { file: uri } });
  for (const f of (await replicate.files.list()).results) await replicate.files.delete(f.id);
  told.files = (await replicate.files.list()).results.length;
  told.pages = 0;
  for await (const page of replicate.paginate(replicate.predictions.list)) {
    told.pages += page.length;
  }
  told.account = (await replicate.accounts.current()).username;
  const hooked = await replicate.predictions.create({
    model: "acme/echo", input: { text: "w" }, webhook: inbox, webhook_events_filter: ["completed"],
    wait: true,
  });
  told.hooked = hooked.id;
  told.secret = (await replicate.webhooks.default.secret.get()).key;
  console.log(JSON.stringify(told));
})();
