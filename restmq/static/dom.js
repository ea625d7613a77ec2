// Creates and updates elements. Text is never parsed as HTML.

/**
 * An element with properties and children.
 * `on` holds listeners, `data` holds data attributes. `class`, `role`, `for` and names with a dash are set as
 * attributes, all others as properties. Children are nodes or text; null, undefined and false are skipped.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "on") for (const [kind, listener] of Object.entries(value)) element.addEventListener(kind, listener);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "class" || name === "role" || name === "for" || name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== false && child !== undefined));
  return element;
}

/** An SVG element with attributes. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A queue's name as nodes, with easily missed blanks marked: at either end, several in a row, and unusual ones. */
export function nameNodes(name) {
  const parts = name.split(/(^\s+|\s+$|\s{2,}|[^\S ]+)/u);
  return parts.map((part, i) => (i % 2 ? h("span", { class: "blank" }, part) : part)).filter((part) => part !== "");
}

/** Sets an element's text if it differs: most texts stay the same from second to second. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Adds or removes a class if that changes something. */
export function setClass(element, name, wanted) {
  if (element.classList.contains(name) !== wanted) element.classList.toggle(name, wanted);
}

let clearTimer;

/** Shows the outcome of the user's action for some seconds; screen readers announce it. */
export function notify(text, isBad = false) {
  const notice = document.getElementById("notice");
  notice.textContent = text;
  notice.classList.toggle("bad", isBad);
  clearTimeout(clearTimer);
  clearTimer = setTimeout(() => { notice.textContent = ""; }, isBad ? 12000 : 5000);
}

/** Shows an error next to what caused it. */
export function showError(place, error) {
  place.textContent = error.message;
  place.classList.toggle("unanswered", error.status === 0);
}

/** Removes the errors of requests that the server did not answer, once it answers again. */
export function clearUnanswered() {
  for (const place of document.querySelectorAll(".unanswered")) {
    place.textContent = "";
    place.classList.remove("unanswered");
  }
}

const ARMING_MS = 500;

/**
 * A button for an action that can't be undone: it must be pressed twice, with a pause, so that a double click or a held
 * key does not suffice. `question` returns its text after the first press, shown for five seconds.
 */
export function confirmButton(label, question, act) {
  let armed;
  let ready;
  const disarm = () => {
    clearTimeout(armed);
    clearTimeout(ready);
    armed = undefined;
    button.textContent = label;
    button.classList.remove("bad");
    button.ariaDisabled = null;
  };
  const arm = () => {
    button.textContent = question();
    button.classList.add("bad");
    button.ariaDisabled = "true";
    ready = setTimeout(() => { button.ariaDisabled = null; }, ARMING_MS);
    armed = setTimeout(disarm, 5000);
  };
  const button = h("button", { type: "button", on: {
    click: (event) => {
      if (button.ariaDisabled || event.detail > 1) return;
      if (armed === undefined) arm();
      else {
        disarm();
        act();
      }
    },
    keydown: (event) => { if (event.repeat) event.preventDefault(); },
    blur: disarm,
  } }, label);
  return button;
}
