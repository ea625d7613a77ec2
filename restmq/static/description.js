// The page /api: a search over the operations and shapes, and an address for each of them.

const search = document.getElementById("find");
const matches = document.getElementById("found");
const entries = [...document.querySelectorAll(".operation")];
const texts = entries.map((entry) => entry.textContent.toLowerCase());

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  entries.forEach((entry, i) => { entry.hidden = !words.every((word) => texts[i].includes(word)); });
  matches.textContent = words.length ? `${entries.filter((entry) => !entry.hidden).length} of ${entries.length}` : "";
}

/** Opens the entry that the address names. An entry that the search hides is shown again first. */
function openAddressed() {
  const addressed = entries.find((entry) => `#${entry.id}` === location.hash);
  if (!addressed) return;
  if (addressed.hidden) {
    search.value = "";
    filter();
  }
  addressed.open = true;
  addressed.scrollIntoView();
}

for (const entry of entries) {
  entry.addEventListener("toggle", () => { if (entry.open) history.replaceState(null, "", `#${entry.id}`); });
}
search.addEventListener("input", filter);
window.addEventListener("hashchange", openAddressed);
filter();
openAddressed();
