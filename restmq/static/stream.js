// Reads endless responses: Server-Sent Events and lines. It uses fetch, because EventSource can't send a token.

/** The pieces of a response's text, split at `end`. */
async function* pieces(response, end) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split(end);
      rest = parts.pop();
      yield* parts;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The lines of a comet stream. */
export function lines(response) {
  return pieces(response, "\r\n");
}

/** The events of a stream (HTML standard, 9.2.6; only the parts that RestMQ uses). */
export async function* events(response) {
  for await (const block of pieces(response, "\n\n")) {
    const event = { type: "message", id: "", encoding: "", data: [] };
    for (const line of block.split("\n")) {
      const colon = line.indexOf(":");
      if (colon <= 0) continue;  // a comment, which keeps the connection alive
      const name = line.slice(0, colon);
      const value = line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
      if (name === "data") event.data.push(value);
      else if (name === "event") event.type = value;
      else if (name in event) event[name] = value;
    }
    if (event.data.length) yield { ...event, data: event.data.join("\n") };
  }
}
