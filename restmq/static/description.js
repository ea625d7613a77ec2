// Shows only what holds the words that are looked for, and opens what an address names.
"use strict";

const find = document.getElementById("find");
const found = document.getElementById("found");
const operations = [...document.querySelectorAll(".operation")].map((element) => [element, element.textContent.toLowerCase()]);

function show() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const [element, text] of operations) {
    element.hidden = !words.every((word) => text.includes(word));
    shown += !element.hidden;
  }
  found.textContent = words.length ? `${shown} of ${operations.length}` : "";
}

function open() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named instanceof HTMLDetailsElement) named.open = true;
}

find.addEventListener("input", show);
addEventListener("hashchange", open);
show();
open();
