// Shows a message's value: JSON indented and coloured, bytes as a hex dump, other text unchanged.

import { h } from "./dom.js";

const DUMPED_BYTES = 1024;
const INDENTED_CHARACTERS = 200_000;

// A token of JSON text (RFC 8259). The text itself is indented, not the result of JSON.parse, which changes large
// numbers.
const PIECE = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[{}[\],:]/g;

/** The value as an element; `encoding` is "base64" for bytes that are not UTF-8. */
export function renderValue(value, encoding, isCut) {
  if (encoding === "base64") return h("pre", { class: "value dump", tabIndex: 0 }, dump(value));
  if (!isCut && isJson(value)) return h("pre", { class: "value", tabIndex: 0 }, ...laidOut(value));
  return h("pre", { class: "value", tabIndex: 0 }, value);
}

/** The start of a value, on one line. */
export function preview(value, encoding) {
  if (encoding === "base64") return `bytes: ${[...bytes(value.slice(0, 44))].map(hex).join(" ")}`;
  return value === "" ? "(empty)" : value.slice(0, 300).replace(/\s+/g, " ");
}

export function isJson(text) {
  if (!/^\s*[{["\d-tfn]/.test(text) || text.length > INDENTED_CHARACTERS) return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function laidOut(text) {
  const pieces = text.match(PIECE) ?? [];
  const parts = [];
  let depth = 0;
  const line = () => `\n${"  ".repeat(depth)}`;
  pieces.forEach((piece, i) => {
    const next = pieces[i + 1];
    if (piece === "{" || piece === "[") {
      depth += 1;
      parts.push(next === "}" || next === "]" ? piece : piece + line());
    } else if (piece === "}" || piece === "]") {
      depth -= 1;
      parts.push(pieces[i - 1] === "{" || pieces[i - 1] === "[" ? piece : line() + piece);
    } else if (piece === ",") parts.push(piece + line());
    else if (piece === ":") parts.push(": ");
    else parts.push(h("span", { class: kind(piece, next) }, piece));
  });
  return parts;
}

function kind(piece, next) {
  if (piece.startsWith('"')) return next === ":" ? "json-name" : "json-text";
  return /[\d-]/.test(piece[0]) ? "json-number" : "json-word";
}

const hex = (byte) => byte.toString(16).padStart(2, "0");
const bytes = (base64) => Uint8Array.from(atob(base64.slice(0, base64.length - (base64.length % 4))), (c) => c.charCodeAt(0));

function dump(base64) {
  const all = bytes(base64);
  const lines = [];
  for (let at = 0; at < Math.min(all.length, DUMPED_BYTES); at += 16) {
    const row = [...all.subarray(at, at + 16)];
    const text = row.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "·")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${row.map(hex).join(" ").padEnd(47)}  ${text}`);
  }
  if (all.length > DUMPED_BYTES) lines.push("…");
  return lines.join("\n");
}
