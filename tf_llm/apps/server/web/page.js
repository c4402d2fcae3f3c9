// Which applications there are, and which of them is in view: the part of the address behind # says so.

import { read, whenLost } from "./asking.js";
import * as assistant from "./assistant.js";
import * as chat from "./chat.js";
import * as search from "./search.js";
import { plain } from "./text.js";

const views = { chat, search, assistant };
const trouble = document.getElementById("trouble");
let names = []; // of the applications that there are

function showView() {
  const asked = location.hash.slice(1);
  const shown = names.includes(asked) ? asked : names[0];
  for (const name of names) {
    const tab = document.querySelector(`nav a[href="#${name}"]`);
    document.getElementById(`view-${name}`).hidden = name !== shown;
    if (name === shown) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  document.title = `${document.getElementById(`view-${shown}`).getAttribute("aria-label")} · tf_llm`;
  views[shown].input.focus();
}

async function begin() {
  const described = await read("/apps");
  names = Object.keys(views).filter((name) => described[name]);
  for (const name of names) {
    document.querySelector(`nav a[href="#${name}"]`).hidden = false;
    views[name].open(described[name], described.turns);
  }
  whenLost(() => chat.forget());
  addEventListener("hashchange", showView);
  showView();
}

begin().catch((error) => {
  trouble.textContent = plain(error.message);
  trouble.hidden = false;
});
