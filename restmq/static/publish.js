// Publishes a message: text, JSON, or the bytes of a file.

import { path, request } from "./api.js";
import { h, notify, showError } from "./dom.js";
import { size } from "./format.js";

// The server rejects an empty body, but accepts an empty form field.
const EMPTY = { body: new URLSearchParams({ value: "" }) };
const KINDS = { text: "Text", json: "JSON", file: "File" };

export function publishPanel(queue) {
  let kind = "text";
  const text = h("textarea", { id: "publish-text", rows: 4, spellcheck: false, placeholder: "Hello" });
  const file = h("input", { type: "file", id: "publish-file", "aria-label": "File" });
  const delay = h("input", { type: "number", id: "publish-delay", min: 0, step: "any", placeholder: "0" });
  const ttl = h("input", { type: "number", id: "publish-ttl", min: 0, step: "any", placeholder: "never" });
  const problem = h("p", { class: "problem", role: "alert" });
  const go = h("button", { type: "submit", class: "main" }, "Publish");
  const label = h("label", { for: "publish-text", class: "unseen" }, "Message");

  const choose = (wanted) => {
    kind = wanted;
    text.hidden = kind === "file";
    file.hidden = kind !== "file";
    text.placeholder = kind === "json" ? '{"hello": "world"}' : "Hello";
    problem.textContent = "";
  };
  const kinds = h("fieldset", { class: "choice" }, h("legend", { class: "unseen" }, "Kind"),
    ...Object.entries(KINDS).map(([name, shown]) => h("label", {},
      h("input", { type: "radio", name: "publish-kind", value: name, checked: name === kind, on: { change: () => choose(name) } }), shown)));

  const publish = async (event) => {
    event.preventDefault();
    problem.textContent = "";
    go.disabled = true;
    try {
      const target = path("/q/", queue, { delay: delay.value, ttl: ttl.value });
      const response = await request(target, { method: "POST", ...message(kind, text.value, file.files[0]) });
      notify(`Published ${(await response.text()).trim()}.`);
      if (kind === "file") file.value = "";
    } catch (error) {
      showError(problem, error);
    } finally {
      go.disabled = false;
    }
  };
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  file.addEventListener("change", () => { problem.textContent = ""; if (file.files[0]) notify(`${file.files[0].name}: ${size(file.files[0].size)}`); });
  const form = h("form", { on: { submit: publish } }, kinds, label, text, file,
    h("div", { class: "line" },
      h("label", { for: "publish-delay" }, "Delay, s"), delay, h("label", { for: "publish-ttl" }, "Expires after, s"), ttl, go), problem);
  choose(kind);
  return h("section", { class: "panel publish", "aria-labelledby": "publish-title" }, h("header", {}, h("h2", { id: "publish-title" }, "Publish")), form);
}

/** The exact bytes of the message, and a content type for which the server stores them unchanged. */
function message(kind, text, file) {
  if (kind === "file") {
    if (!file) throw new Error("Choose a file first.");
    if (file.size) return { body: file, headers: { "Content-Type": "application/octet-stream" } };
    return EMPTY;
  }
  if (kind === "json") {
    try {
      JSON.parse(text);
    } catch (error) {
      throw new Error(`This is not JSON: ${error.message}`);
    }
    return { body: text, headers: { "Content-Type": "application/json" } };
  }
  if (!text) return EMPTY;
  return { body: text, headers: { "Content-Type": "text/plain; charset=utf-8" } };
}
