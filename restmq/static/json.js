// A message's value, shown well: JSON set out and tinted, bytes as a dump, all else as it is.

import { h } from "./dom.js";

const DUMPED_BYTES = 1024;
const INDENTED_CHARACTERS = 200_000;

// What JSON text is made of (RFC 8259). The text itself is laid out, not what JSON.parse makes of it: that would change
// large numbers.
const PIECE = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[{}[\],:]/g;

/** The value as elements; `encoding` is "base64" for bytes that are no text. */
export function shown(value, encoding, isCut) {
  if (encoding === "base64") return h("pre", { class: "value dump", tabIndex: 0 }, dump(value));
  if (!isCut && isJson(value)) return h("pre", { class: "value", tabIndex: 0 }, ...laidOut(value));
  return h("pre", { class: "value", tabIndex: 0 }, value);
}

/** The beginning of a value on one line. */
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
