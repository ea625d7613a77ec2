// Requests to the server, with the user's credentials.
//
// The user enters a token in the page. The page keeps it for this tab only and sends it as a Bearer token. Passwords are
// left to the browser: once the user chooses to use a password, the browser asks for it and keeps it.

const TOKEN = "restmq.token";
const PASSWORD = "restmq.password";

let askForMore = async () => false;

/** Sets the function to call if the server requires credentials: `ask(problem)` resolves to whether to retry. */
export function onUnauthorized(ask) {
  askForMore = ask;
}

export const credentials = {
  get token() { return sessionStorage.getItem(TOKEN); },
  get usesPassword() { return sessionStorage.getItem(PASSWORD) === "yes"; },
  useToken(token) {
    sessionStorage.removeItem(PASSWORD);
    sessionStorage.setItem(TOKEN, token);
  },
  usePassword() {
    sessionStorage.removeItem(TOKEN);
    sessionStorage.setItem(PASSWORD, "yes");
  },
  forget() {
    sessionStorage.removeItem(TOKEN);
    sessionStorage.removeItem(PASSWORD);
  },
};

/** The server's address, without a slash at the end; it has the path prefix of a proxy. */
// Not relative to the document's address: that may hold a password, which fetch rejects.
export const SERVER = location.origin + new URL("..", import.meta.url).pathname.slice(0, -1);

/** An error response of the server. `status` is 0 if the server did not answer. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Whether a path can hold this name: browsers resolve `.` and `..`, also as %2E (URL standard, 4.4). */
export function isAddressable(queue) {
  return queue !== "." && queue !== "..";
}

/** The path for a queue: `prefix`, such as `/q/`, and its name. Throws Refusal if no path can hold the name. */
export function path(prefix, queue, query = {}) {
  if (!isAddressable(queue)) throw new Refusal(400, "A browser can’t request a queue with this name.");
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const tail = given.length ? `?${new URLSearchParams(given)}` : "";
  return `${prefix}${encodeURIComponent(queue)}${tail}`;
}

/** A successful response. If credentials are missing, asks for them and retries. Throws Refusal for an error. */
export async function request(target, options = {}) {
  const response = await send(target, options);
  if (response.status === 401 && await askForMore(await problem(response.clone()))) return request(target, options);
  if (!response.ok) throw new Refusal(response.status, await problem(response));
  return response;
}

/** Any response, without asking for credentials: for requests that the user did not start. */
export async function send(target, { headers = {}, ...options } = {}) {
  const { token } = credentials;
  const shown = token ? { ...headers, Authorization: `Bearer ${token}` } : headers;
  try {
    return await fetch(SERVER + target, {
      ...options,
      headers: shown,
      cache: "no-store",
      // "omit" keeps the browser from asking for a password before the user chose to use one.
      credentials: credentials.usesPassword ? "same-origin" : "omit",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server does not answer.");
  }
}

/** The error text of a response: the server's own text, if it sent one. */
export async function problem(response) {
  const body = await response.json().catch(() => null);
  return body?.error ?? `The server answered with status ${response.status}.`;
}

export async function getJson(target, options = {}) {
  const response = await request(target, { ...options, headers: { Accept: "application/json" } });
  return response.json().catch(() => { throw new Refusal(response.status, "The response was cut off, or did not come from RestMQ."); });
}

/** Posts a form. */
export function post(target, fields) {
  return request(target, { method: "POST", body: new URLSearchParams(fields) });
}

export function webSocketAddress(target) {
  const { token } = credentials;
  const address = SERVER.replace(/^http/, "ws") + target;
  return token ? `${address}${target.includes("?") ? "&" : "?"}authkey=${encodeURIComponent(token)}` : address;  // browsers can't set headers for a WebSocket
}
