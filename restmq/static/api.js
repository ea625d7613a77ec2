// Asking the server, with whatever this user has shown of himself.
//
// A token is entered in the page, kept for this tab only, and goes along as a Bearer token. A password is the browser's
// business: it is asked for, and kept, by the browser itself, once the user has chosen that.

const TOKEN = "restmq.token";
const PASSWORD = "restmq.password";

let askForMore = async () => false;

/** `ask(problem)` is called where the server wants a password or a token; it tells whether to try once more. */
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

/** What the server said no with. `status` is 0 where it did not answer at all. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Whether a browser can say this name in a path: of `.` and `..`, also as %2E, it makes another path (URL standard, 4.4). */
export function isSayable(queue) {
  return queue !== "." && queue !== "..";
}

/** The path of something about a queue, such as `/q/` and its name. Raises Refusal for a name that no path can hold. */
export function path(prefix, queue, query = {}) {
  if (!isSayable(queue)) throw new Refusal(400, "A browser can’t ask for a queue of this name.");
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const tail = given.length ? `?${new URLSearchParams(given)}` : "";
  return `${prefix}${encodeURIComponent(queue)}${tail}`;
}

/** A response that is not an error. Raises Refusal; where a password or a token is missing, after it was asked for. */
export async function request(target, options = {}) {
  const response = await send(target, options);
  if (response.status === 401 && await askForMore(await problem(response.clone()))) return request(target, options);
  if (!response.ok) throw new Refusal(response.status, await problem(response));
  return response;
}

/** The same without asking: for what the page does by itself. */
export async function send(target, { headers = {}, ...options } = {}) {
  const { token } = credentials;
  const shown = token ? { ...headers, Authorization: `Bearer ${token}` } : headers;
  try {
    // Not the document's address: that may hold a password, and fetch takes no address with one.
    return await fetch(location.origin + target, {
      ...options,
      headers: shown,
      cache: "no-store",
      // "omit" keeps the browser from asking for a password that nobody wants to give.
      credentials: credentials.usesPassword ? "same-origin" : "omit",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server does not answer.");
  }
}

/** What went wrong, in the server's words if it has said any. */
export async function problem(response) {
  const said = await response.json().catch(() => null);
  return said?.error ?? `The server answered with status ${response.status}.`;
}

export async function getJson(target, options = {}) {
  const response = await request(target, { ...options, headers: { Accept: "application/json" } });
  return response.json().catch(() => { throw new Refusal(response.status, "What answered is no RestMQ, or it was cut off."); });
}

/** A form by POST. */
export function post(target, fields) {
  return request(target, { method: "POST", body: new URLSearchParams(fields) });
}

export function webSocketAddress(target) {
  const { token } = credentials;
  const address = location.origin.replace(/^http/, "ws") + target;
  return token ? `${address}?authkey=${encodeURIComponent(token)}` : address;  // a browser can set no header there
}
