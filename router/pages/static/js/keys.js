// Asks for a key: a dialog, and the button in the header.

import { askWith, key, onKey, setKey } from "./api.js";
import { h, say } from "./dom.js";
import { forgetAll } from "./stored.js";

const dialog = makeDialog();
askWith((wrong) => dialog.ask(wrong));

/** The button that shows whether there is a key, and changes it. */
export function keyButton() {
  const button = h("button", { class: "compact", type: "button", onclick: () => dialog.ask("") });
  const show = () => say(button, key() ? "Key set" : "Enter a key");
  onKey(show);
  show();
  return button;
}

function makeDialog() {
  const input = h("input", { type: "password", id: "key", name: "key", autocomplete: "off", spellcheck: "false", "aria-describedby": "key-hint key-error" });
  const error = h("p", { class: "error", id: "key-error", role: "alert" });
  const forget = h("button", { type: "button", onclick: forgetKey }, "Forget the key");
  const node = h(
    "dialog",
    { "aria-labelledby": "key-title" },
    h(
      "form",
      { class: "stack", method: "dialog", novalidate: true, onsubmit: submit },
      h("h2", { id: "key-title" }, "A key for this box"),
      h("div", { class: "field" }, h("label", { for: "key" }, "Key"), input, error),
      h("p", { class: "hint", id: "key-hint" }, "It is kept in this tab until you close it. ", h("code", {}, "callme keys create NAME"), " makes one; add ", h("code", {}, "--admin"), " to see memory and queues too."),
      h("div", { class: "row" }, h("button", { class: "primary" }, "Use this key"), h("button", { type: "button", onclick: () => close(false) }, "Cancel"), forget),
    ),
  );
  node.addEventListener("cancel", (event) => {
    event.preventDefault();
    close(false);
  });
  let answer = null;

  function submit(event) {
    event.preventDefault();
    const value = input.value.trim();
    if (!value) {
      say(error, "Type or paste a key.");
      input.focus();
      return;
    }
    if (!/^[\x21-\x7e]+$/.test(value)) {
      say(error, "A key has only letters, digits and signs of the keyboard, without spaces.");
      input.focus();
      return;
    }
    close(true, value);
  }
  function forgetKey() {
    forgetAll(); // what was sent with it
    close(true, "");
  }
  function close(given, value) {
    node.close();
    input.value = "";
    if (given) setKey(value);
    answer?.(given && Boolean(value));
    answer = null;
  }
  return {
    ask(wrong) {
      if (!node.isConnected) document.body.append(node);
      say(error, wrong);
      forget.hidden = !key();
      answer?.(false);
      if (!node.open) node.showModal();
      input.focus();
      return new Promise((resolve) => {
        answer = resolve;
      });
    },
  };
}
