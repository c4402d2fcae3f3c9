// The search engine: hits with what was found in them, and filters that say how many entries each would leave.

import { post } from "./asking.js";
import { block, make, plain, showHit } from "./text.js";

const find = (name) => document.getElementById(`search-${name}`);
const [form, text, state, hits, more] = ["form", "text", "status", "hits", "more"].map(find);
const [filters, facets, chosen, reset] = ["filters", "facets", "chosen", "reset"].map(find);

const COUNT = 10;
const wanted = new Map(); // name of a field -> a Set of values, or {least, most}
let query = "";
let asked = 0; // searches; the answer to an older one than the last is not shown

export function open(described) {
  state.textContent = `${described.entries.toLocaleString("en")} entries can be searched.`;
  filters.open = matchMedia("(min-width: 48rem)").matches;
}

export const input = text;

form.addEventListener("submit", (event) => {
  event.preventDefault();
  query = text.value.trim();
  wanted.clear();
  search();
});

reset.addEventListener("click", () => {
  wanted.clear();
  search();
  filters.querySelector("summary").focus();
});

more.addEventListener("click", () => search(hits.children.length));

async function search(begin = 0) {
  const number = ++asked;
  const body = { query, filters: Object.fromEntries([...wanted].map(([name, each]) => [name, describe(each)])), count: COUNT, begin };
  state.textContent = "Searching …";
  let found;
  try {
    found = await post("/apps/search", body);
  } catch (trouble) {
    if (number === asked) state.replaceChildren(block("span", "notice", trouble.message));
    return;
  }
  if (number !== asked) return;
  const shown = found.hits.map(showHit);
  if (begin) hits.append(...shown);
  else hits.replaceChildren(...shown);
  if (begin) shown[0]?.querySelector("a")?.focus();
  more.hidden = found.hits.length < COUNT;
  showState(found);
  if (!begin) showFacets(found.facets);
}

function describe(each) {
  return each instanceof Set ? [...each] : each;
}

function showState(found) {
  const total = found.total.toLocaleString("en");
  const count = found.total === 1 ? "1 entry" : `${total} entries`;
  const near = !found.total && found.hits.length ? "No entry has these words; these are near in meaning." : "";
  state.replaceChildren(near || (found.hits.length ? `${count} found.` : "Nothing was found."));
  if (found.suggestion) {
    const button = block("button", "suggestion", found.suggestion);
    button.type = "button";
    button.addEventListener("click", () => {
      text.value = plain(found.suggestion);
      form.requestSubmit();
      text.focus();
    });
    state.append(" Did you mean ", button, "?");
  }
}

function showFacets(found) {
  const focused = document.activeElement?.dataset?.choice;
  const hasDates = wanted.has("date") || found.some((facet) => facet.name === "year");
  const dates = hasDates ? [{ name: "date", values: [], least: null, most: null }] : [];
  facets.replaceChildren(...[...found, ...dates].map(showFacet).filter(Boolean));
  filters.hidden = !facets.children.length && !wanted.size;
  reset.hidden = !wanted.size;
  chosen.textContent = wanted.size ? ` (${wanted.size} chosen)` : "";
  // The choice that was just made stays under the keyboard's hand, though it is a new element.
  if (focused) [...facets.querySelectorAll("input")].find((each) => each.dataset.choice === focused)?.focus();
}

function showFacet(facet) {
  const current = wanted.get(facet.name);
  const isDate = facet.name === "date"; // no field has this name
  const isRange = isDate || (facet.least !== null && facet.least < facet.most);
  const values = isRange ? [] : [...facet.values];
  if (current instanceof Set) {
    const known = new Set(values.map(([value]) => value));
    values.push(...[...current].filter((value) => !known.has(value)).map((value) => [value, 0]));
  }
  if (!isRange && !values.length) return null;
  const group = make("fieldset", "", block("legend", "", facet.name));
  if (isRange) group.append(showRange(facet, current, isDate ? "date" : "number"));
  else group.append(...values.map(([value, count]) => showValue(facet.name, value, count, current)));
  return group;
}

function showValue(name, value, count, current) {
  const box = make("input");
  box.type = "checkbox";
  box.checked = current instanceof Set && current.has(value);
  box.dataset.choice = `${name}\n${value}`;
  box.addEventListener("change", () => {
    const values = wanted.get(name) instanceof Set ? wanted.get(name) : new Set();
    if (box.checked) values.add(value);
    else values.delete(value);
    if (values.size) wanted.set(name, values);
    else wanted.delete(name);
    search();
  });
  return make("label", "value", box, block("span", "", value), make("span", "count", count.toLocaleString("en")));
}

function showRange(facet, current, type) {
  const words = type === "date" ? { least: "from", most: "to" } : { least: "at least", most: "at most" };
  const inputs = ["least", "most"].map((bound) => {
    const field = make("input");
    field.type = type;
    if (type === "number") {
      field.step = "any";
      field.placeholder = plain(facet[bound]);
    }
    field.setAttribute("aria-label", plain(`${facet.name}, ${words[bound]}`));
    field.value = current?.[bound] ?? "";
    field.dataset.choice = `${facet.name}\n${bound}`;
    listenToBound(field, () => {
      const [least, most] = inputs.map((each) => (each.value === "" ? null : type === "date" ? each.value : Number(each.value)));
      if (least === null && most === null) wanted.delete(facet.name);
      else wanted.set(facet.name, { least, most });
      search();
    });
    return field;
  });
  if (type === "number") return make("div", "range", inputs[0], "–", inputs[1]);
  return make("div", "range", ...inputs.map((each, number) => make("label", "bound", number ? "to" : "from", each)));
}

/**
 * Calls `act` when a bound is complete. A field of dates says that it changed at each digit of a year that is typed:
 * then it is complete when it is left, or at Enter; picked from a calendar, it is at once.
 */
function listenToBound(field, act) {
  let known = field.value;
  let isTyping = false;
  const finish = () => {
    if (field.value === known || !field.validity.valid) return;
    known = field.value;
    act();
  };
  field.addEventListener("keydown", (event) => {
    isTyping = true;
    if (event.key === "Enter") finish();
  });
  field.addEventListener("pointerdown", () => (isTyping = false));
  field.addEventListener("change", () => isTyping || finish());
  field.addEventListener("blur", finish);
}
