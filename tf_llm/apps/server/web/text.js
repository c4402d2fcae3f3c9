// Elements with text in them. Nothing that a model, a page or a person wrote becomes mark-up: there is no other way to
// the screen than through these functions, and they know of texts alone.

/** An element with a class and children, which are elements or texts. */
export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.map((child) => (child instanceof Node ? child : plain(child))));
  return element;
}

/** A block of text whose direction of writing is its own, and stays within. */
export function block(tag, className, ...children) {
  const element = make(tag, className, ...children);
  element.dir = "auto";
  return element;
}

/** Text without the characters that turn the writing around, or have no form. */
export function plain(text) {
  return String(text).replace(/[\u202a-\u202e\u2066-\u2069]|[\0-\x08\x0b-\x1f\x7f-\x9f]/g, " ");
}

/** Adds to the end of an element's text. */
export function addText(element, text) {
  element.append(plain(text));
}

/** A link, if the address is one of the web; else its text alone. */
export function link(address, text, className = "") {
  let url = null;
  if (/^https?:\/\//i.test(address)) {
    try {
      url = new URL(address);
    } catch {
      // no address, then
    }
  }
  if (!url) return block("span", className, text);
  const element = block("a", className, text);
  element.href = url.href;
  element.rel = "noopener noreferrer";
  element.target = "_blank";
  return element;
}

/** A passage of [text, whether it is highlighted] each. */
export function passage(pieces) {
  return block("p", "snippet", ...pieces.map(([text, isMarked]) => (isMarked ? make("mark", "", text) : text)));
}

/** A hit of a search, of which the title leads to the page. */
export function showHit(hit) {
  const facts = [hit.language, hit.date, ...Object.entries(hit.fields).map(([name, values]) => `${name}: ${values.join(", ")}`)];
  const title = make("h3", "", link(hit.address, hit.title || hit.address));
  const item = make("li", "", title, block("p", "address", hit.address), passage(hit.snippet));
  const shown = facts.filter((fact) => fact && fact.length <= 60).slice(0, 6);
  if (shown.length) item.append(make("p", "facts", ...shown.map((fact) => block("span", "", fact))));
  return item;
}

/** Puts the end of a log in sight, unless its reader has gone up to read. */
export function follow(log, isNew = false) {
  if (isNew || log.scrollHeight - log.scrollTop - log.clientHeight < 120) log.scrollTop = log.scrollHeight;
}
