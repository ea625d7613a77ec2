// Asks the user for a password or a token if the server requires one.

import { credentials, onUnauthorized } from "./api.js";
import { h } from "./dom.js";

let open = null;

/** Asks for credentials; resolves to whether there are new ones. All callers share one dialog. */
function askToSignIn(why) {
  open ??= new Promise((resolve) => {
    let hasAnswered = false;
    const answer = (use) => {
      hasAnswered = true;
      use();
      dialog.close();
    };
    const token = h("input", { type: "password", id: "token", autocomplete: "off", spellcheck: false, required: true });
    const dialog = h("dialog", { "aria-labelledby": "sign-in-title", on: { close: () => { dialog.remove(); open = null; resolve(hasAnswered); } } },
      h("h2", { id: "sign-in-title" }, "Sign in"),
      h("p", {}, why || "This server may require a password or a token."),
      h("form", { method: "dialog", on: { submit: () => answer(() => credentials.useToken(token.value.trim())) } },
        h("label", { for: "token" }, "Access token, kept for this tab only"), h("div", { class: "line" }, token, h("button", { type: "submit", class: "main" }, "Use token"))),
      h("div", { class: "acts" },
        h("button", { type: "button", on: { click: () => answer(() => credentials.usePassword()) } }, "Use a password"),
        (credentials.token || credentials.usesPassword) && h("button", { type: "button", on: { click: () => answer(() => credentials.forget()) } }, "Sign out"),
        h("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel")));
    document.body.append(dialog);
    dialog.showModal();
  });
  return open;
}

/** Asks for credentials if a request needs them, and reconnects the feed with the new ones. */
export function setUpSignIn(button, feed) {
  const ask = async (why) => {
    const hasNew = await askToSignIn(why);
    if (hasNew) feed.again();
    return hasNew;
  };
  onUnauthorized(ask);
  button.addEventListener("click", () => ask(""));
  return ask;
}
