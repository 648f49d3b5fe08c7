// Going from one view to another without loading the page again.

import { ROOT } from "./api.js";

let show = () => {};

/** Called once: `shown()` shows the view of the present address. */
export function onNavigate(shown) {
  show = shown;
}

/** Go to a path below the box's root. `silent`: only the address changes. */
export function navigate(path, { silent = false } = {}) {
  history.pushState(null, "", new URL(path.replace(/^\//, ""), ROOT));
  if (silent) return;
  show();
  scrollTo(0, 0);
  document.getElementById("view").focus({ preventScroll: true });
}
