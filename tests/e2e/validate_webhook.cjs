const { validateWebhook } = require("replicate");
const { headers, body, secret } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
(async () => {
  const good = await validateWebhook({ headers, body }, secret);
  const bad = await validateWebhook({ headers, body: body + " " }, secret);
  console.log(JSON.stringify([good, bad]));
})();
