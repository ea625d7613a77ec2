// Start and stop queues, and show lengths as they are.
"use strict";

const says = document.getElementById("says");

function show(row, line) {
  row.querySelector('[data-show="len"]').textContent = line.len;
  row.querySelector('[data-show="policy"]').textContent = line.policy;
  row.querySelector('[data-show="status"]').textContent = line.status ? "started" : "stopped";
  const button = row.querySelector("button");
  button.dataset.do = line.status ? "stop" : "start";
  button.textContent = line.status ? "Stop" : "Start";
}

async function refresh() {
  try {
    const answer = await fetch("/stats/");
    if (!answer.ok) throw new Error((await answer.json()).error);
    const { queues } = await answer.json();
    const rows = [...document.querySelectorAll("tr[data-queue]")];
    if (rows.length !== Object.keys(queues).length) return location.reload();
    for (const row of rows) show(row, queues[decodeURIComponent(row.dataset.queue)]);
    says.textContent = "";
  } catch (error) {
    says.textContent = `The server does not answer: ${error.message}`;
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-do]");
  if (!button) return;
  const queue = button.closest("tr").dataset.queue;
  const answer = await fetch(`/control/${queue}`, { method: "POST", body: new URLSearchParams({ status: button.dataset.do }) });
  if (!answer.ok) says.textContent = (await answer.json()).error;
  refresh();
});

setInterval(refresh, 2000);
