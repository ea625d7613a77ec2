// Making elements, without any text ever being read as HTML.

/**
 * An element with properties and children.
 * `on` holds listeners, `data` data attributes; `class` and what has a dash are attributes, all else is a property.
 * Children are nodes or text; null and false are left out.
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

/** A queue's name with the blanks marked that the eye would miss: at its ends, several in a row, and unusual ones. */
export function named(name) {
  const parts = name.split(/(^\s+|\s+$|\s{2,}|[^\S ]+)/u);
  return parts.map((part, i) => (i % 2 ? h("span", { class: "blank" }, part) : part)).filter((part) => part !== "");
}

/** Sets an element's text where it is another: most of what is shown stays the same from second to second. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets or takes away a class, and so on, only where that changes something. */
export function mark(element, name, wanted) {
  if (element.classList.contains(name) !== wanted) element.classList.toggle(name, wanted);
}

let sayAgain;

/** Tells what became of what the user did, for the eye and for screen readers. */
export function report(text, isBad = false) {
  const says = document.getElementById("says");
  says.textContent = text;
  says.classList.toggle("bad", isBad);
  clearTimeout(sayAgain);
  sayAgain = setTimeout(() => { says.textContent = ""; }, isBad ? 12000 : 5000);
}

/** Says at its place what went wrong. */
export function complain(place, error) {
  place.textContent = error.message;
  place.classList.toggle("unanswered", error.status === 0);
}

/** The server answers again: what went wrong for want of an answer needs no saying any more. */
export function takeBackUnanswered() {
  for (const place of document.querySelectorAll(".unanswered")) {
    place.textContent = "";
    place.classList.remove("unanswered");
  }
}

/**
 * A button that does something which can't be taken back: it must be pressed twice.
 * `question` is what it says in between, for a few seconds.
 */
export function twice(label, question, act) {
  let armed;
  const disarm = () => { clearTimeout(armed); armed = undefined; button.textContent = label; button.classList.remove("bad"); };
  const button = h("button", { type: "button", on: {
    click: () => {
      if (armed === undefined) {
        button.textContent = question();
        button.classList.add("bad");
        armed = setTimeout(disarm, 5000);
      } else {
        disarm();
        act();
      }
    },
    blur: disarm,
  } }, label);
  return button;
}
