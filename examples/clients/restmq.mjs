// Node 18 or newer, without a package. In each case, QUEUE is the name of a queue:
//
//   node restmq.mjs produce QUEUE         publishes each line of its input, and prints the keys
//   node restmq.mjs work QUEUE [SECONDS]  does jobs, each under a lease of SECONDS (30) that is extended meanwhile
//   node restmq.mjs listen QUEUE          prints live messages, and resumes where the connection broke
//
// A job "sleep 5" takes 5 seconds, "fail TEXT" fails; any other job is printed. RESTMQ_URL is the server.
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

const server = process.env.RESTMQ_URL ?? "http://127.0.0.1:8888";
const [what, queue, seconds = "30"] = process.argv.slice(2);
const path = (route, name) => `${server}/${route}/${encodeURIComponent(name)}`;
const stopping = new AbortController();

async function ask(url, options) {
  const answer = await fetch(url, options);
  if (!answer.ok) throw new Error(`${answer.status} ${(await answer.text()).trim()}`);
  return answer;
}

async function produce() {
  for await (const line of createInterface({ input: process.stdin })) {
    // Repeated with the same key, a request queues its message once.
    const headers = { "Content-Type": "text/plain", "Idempotency-Key": crypto.randomUUID() };
    console.log((await (await ask(path("q", queue), { method: "POST", body: line, headers })).text()).trim());
  }
}

async function work() {
  for (const name of ["SIGINT", "SIGTERM"]) process.once(name, () => stopping.abort());
  while (!stopping.signal.aborted) {
    try {
      const url = `${path("q", queue)}?raw=1&wait=30&lease=${seconds}`;
      const answer = await ask(url, { signal: stopping.signal });
      if (answer.status === 200) await settle(answer); // 204: there was no job
    } catch (error) {
      if (!stopping.signal.aborted) await sleep(1000, console.error(`${error.message}; again in a second`));
    }
  }
}

async function settle(answer) {
  const receipt = answer.headers.get("x-restmq-receipt");
  const message = `${server}/m/${answer.headers.get("x-restmq-key")}`;
  const change = (fields) => ask(message, { method: "POST", body: new URLSearchParams({ receipt, ...fields }) });
  const extending = setInterval(() => change({ lease: seconds }).catch(console.error), (1000 * seconds) / 3);
  try {
    await perform(await answer.text());
    await ask(`${message}?receipt=${receipt}`, { method: "DELETE" }); // ack
  } catch (error) {
    await change({ lease: 0, reason: error.message }); // nack: the message returns to its queue
  } finally {
    clearInterval(extending);
  }
}

async function perform(job) {
  const [word, ...rest] = job.split(" ");
  if (word === "fail") throw new Error(rest.join(" "));
  if (word === "sleep") await sleep(1000 * rest[0]);
  console.log(`done: ${job}`);
}

async function listen() {
  let last = "";
  for (;;) {
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      let text = "";
      for await (const chunk of (await ask(path("sse", queue), { headers })).body.pipeThrough(new TextDecoderStream())) {
        const events = (text + chunk).split("\n\n");
        text = events.pop();
        for (const event of events) {
          const lines = event.split("\n");
          const field = (name) => lines.filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2));
          if (field("event")[0] === "gap") console.error("some messages were missed");
          else if (field("data").length) console.log(field("data").join("\n"));
          last = field("id")[0] ?? last;
        }
      }
    } catch (error) {
      console.error(`${error.message}; again in a second`);
    }
    await sleep(1000);
  }
}

await { produce, work, listen }[what]();
