// The page: selects the view and shows the state of the connection.

import { credentials, problem, send } from "./api.js";
import { clearUnanswered, h, setText } from "./dom.js";
import { Feed } from "./feed.js";
import { Model } from "./model.js";
import { Overview } from "./overview.js";
import { QueuePage } from "./queue.js";
import { ServersPage } from "./servers.js";
import { setUpSignIn } from "./signin.js";
import { clock } from "./format.js";

const STATES = {
  connecting: "Connecting…",
  live: "Live",
  store: "Store unavailable",
  gone: "Server unavailable",
  refused: "Not signed in",
};

const model = new Model();
const overview = new Overview(model);
const main = document.getElementById("main");
const trouble = document.getElementById("trouble");
const button = document.getElementById("sign-in");
let view = null;
let state = "";
let refusal = "";
const CHECK_WRITES_MS = 10_000;

const feed = new Feed(
  (type, event) => {
    model.take(type, event);
    if (type === "offers") offerSignIn();
    // A page in the background is not updated until it comes to the front.
    if (!document.hidden) view?.update();
  },
  (now, detail) => {
    if (now === state && now !== "gone") return;
    state = document.body.dataset.link = now;
    setText(document.getElementById("link"), now === "refused" && detail.status === 403 ? "Not allowed" : STATES[now]);
    tellTrouble(now, detail);
    if (now === "live") {
      clearUnanswered();
      view?.resume();
      checkWrites();
    } else if (now === "refused") {
      model.forget("Nothing is shown because the server denied access.");
      view?.update();
    }
    offerSignIn();
    if (now === "refused" && detail.status === 401) ask(detail.message);
  },
);
const ask = setUpSignIn(button, feed);

/** Offers to sign in if access was denied, or if other credentials may allow more. */
function offerSignIn() {
  const isSignedIn = Boolean(credentials.token) || credentials.usesPassword;
  setText(button, isSignedIn ? "Signed in" : "Sign in");
  button.hidden = !isSignedIn && state !== "refused" && Object.values(model.may).every(Boolean);
}

function tellTrouble(now, detail) {
  const asOf = model.known ? ` The data shown is from ${clock(model.now)}.` : "";
  const text = {
    gone: `${detail} Retrying until it is available.${asOf}`,
    store: `The server is available, but its store (Redis) does not answer. Updates resume when the store is available.${asOf}`,
    refused: detail?.message,
    live: refusal && `New messages are refused: ${refusal}`,
  }[now];
  trouble.hidden = !text;
  if (!text) return;
  const again = now === "refused" ? h("button", { type: "button", on: { click: () => ask(detail.message) } }, "Sign in")
    : now === "gone" && h("button", { type: "button", on: { click: () => feed.again() } }, "Try now");
  const isNew = trouble.dataset.text !== text;
  trouble.dataset.text = text;
  if (isNew) trouble.replaceChildren(text, again || "");
}

/** Redis may answer and yet take no writes: it is full, or cannot save. The feed, which only reads, does not notice. */
async function checkWrites() {
  if (state !== "live" || document.hidden) return;
  try {
    const response = await send("/readyz");
    refusal = response.status === 503 ? await problem(response) : "";
  } catch {
    return;  // the feed tells
  }
  if (state === "live") tellTrouble(state);
}

/** Marks the page in the menu. That of a queue is below the dashboard. */
function markInMenu(queue) {
  const isOnServers = !queue && location.hash === "#/servers";
  for (const link of document.querySelectorAll(".bar nav a[href*='#']")) {
    if (link.hash !== (isOnServers ? "#/servers" : "#/")) link.removeAttribute("aria-current");
    else link.setAttribute("aria-current", queue ? "true" : "page");
  }
}

/** Shows the view in the address: `#/q/<queue>`, `#/servers`, or the overview, which keeps its state. */
function show() {
  const queue = location.hash.match(/^#\/q\/(.+)$/)?.[1];
  let name;
  try {
    name = queue && decodeURIComponent(queue);
  } catch {
    name = undefined;
  }
  view?.close();
  view = name ? new QueuePage(model, name) : location.hash === "#/servers" ? new ServersPage(model) : overview;
  document.title = view.title;
  markInMenu(name);
  main.replaceChildren(view.element);
  if (state === "live") view.resume();
  view.update();
  window.scrollTo(0, view.scrolledTo ?? 0);
}

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select, dialog");
  if (isTyping || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "/" && view === overview) {
    event.preventDefault();
    view.focusSearch();
  } else if (event.key === "Escape" && view !== overview && !view.isListening) location.hash = "#/";
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) view?.update(); });
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
window.addEventListener("hashchange", () => {
  show();
  main.focus({ preventScroll: true });
});

setInterval(checkWrites, CHECK_WRITES_MS);
history.scrollRestoration = "manual";
show();
feed.run();
