// Chooses the view by the address, and keeps header, key and live stream while views change.

import { ROOT } from "./api.js";
import { announce, h } from "./dom.js";
import { history as historyPage } from "./history.js";
import { keyButton } from "./keys.js";
import { navigate, onNavigate } from "./navigate.js";
import { overview } from "./overview.js";
import { modelPage, predictionPage } from "./play.js";
import { reference } from "./reference.js";

const VIEWS = [
  [/^$/, overview],
  [/^models\/([^/]+)$/, modelPage],
  [/^predictions$/, historyPage],
  [/^predictions\/([^/]+)$/, predictionPage],
  [/^docs$/, reference],
];
let dispose = null;

/** Show the view of the present address. */
function show() {
  dispose?.();
  const path = location.pathname.slice(ROOT.pathname.length).replace(/\/$/, "");
  const place = document.getElementById("view");
  for (const [pattern, view] of VIEWS) {
    const match = pattern.exec(path);
    if (!match) continue;
    const { node, title, end } = view(...match.slice(1));
    dispose = end;
    place.replaceChildren(...[node].flat());
    document.title = title;
    announce(title);
    break;
  }
  for (const link of document.querySelectorAll("#top nav a")) {
    const current = link.pathname === location.pathname;
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  if (link.target || link.hasAttribute("download") || link.origin !== ROOT.origin || link.hash) return;
  const path = link.pathname.slice(ROOT.pathname.length);
  if (!VIEWS.some(([pattern]) => pattern.test(path))) return;
  event.preventDefault();
  navigate(path);
});
addEventListener("popstate", show);
onNavigate(show);

// Its address is relative to the first view's; a browser asks for it again in each view.
const icon = document.querySelector("link[rel=icon]");
icon.href = icon.href;

document.getElementById("top").append(
  h(
    "div",
    {},
    h("a", { class: "brand", href: ROOT.href }, h("img", { src: new URL("static/icon.svg", ROOT).href, alt: "" }), location.host),
    h("nav", { "aria-label": "Pages" }, h("a", { href: ROOT.href }, "Models"), h("a", { href: new URL("predictions", ROOT).href }, "History"), h("a", { href: new URL("docs", ROOT).href }, "API")),
    keyButton(),
  ),
);
show();
