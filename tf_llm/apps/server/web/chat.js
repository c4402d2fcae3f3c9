// The chatbot: questions, and answers that grow while they are said.

import { post, stream } from "./asking.js";
import { addText, block, follow, link, make } from "./text.js";

const find = (name) => document.getElementById(`chat-${name}`);
const [log, form, text, sending, stopping] = ["log", "form", "text", "send", "stop"].map(find);
const [retrying, clearing, temperature, seed, looksUp] = ["retry", "clear", "temperature", "seed", "looks-up"].map(find);

let about = null; // what the server says of its chatbot
let last = null; // the element of the last answer
let isBusy = false;

export function open(described, turns) {
  about = described;
  temperature.value = about.temperature;
  seed.value = about.seed;
  looksUp.checked = about.looks_up;
  for (const each of document.querySelectorAll(".drawn")) each.hidden = !about.draws;
  find("pages").hidden = !about.can_look_up;
  find("settings").hidden = !about.draws && !about.can_look_up;
  showTemperature();
  for (const turn of turns) {
    showQuestion(turn.question);
    last = beginAnswer();
    addText(last.said, turn.answer);
    if (turn.address) showSource(turn.address);
  }
  if (!turns.length) showHint();
  update();
}

/** Says that the server has forgotten the conversation. */
export function forget() {
  if (about && log.querySelector(".question")) showNotice("The server has forgotten what was said above.");
}

export const input = text;

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const question = text.value.trim();
  if (!question || isBusy) return;
  text.value = "";
  fit();
  showQuestion(question);
  answer("/apps/chat/ask", { text: question });
});

text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});

document.getElementById("view-chat").addEventListener("keydown", (event) => {
  if (event.key === "Escape" && isBusy) stop();
});

text.addEventListener("input", fit);
temperature.addEventListener("input", showTemperature);
stopping.addEventListener("click", stop);

retrying.addEventListener("click", () => {
  last.remove();
  answer("/apps/chat/retry", {});
});

clearing.addEventListener("click", async () => {
  try {
    await post("/apps/chat/clear");
  } catch (trouble) {
    showNotice(trouble.message);
    return;
  }
  log.replaceChildren();
  last = null;
  showHint();
  update();
  text.focus();
});

async function answer(path, body) {
  isBusy = true;
  last = beginAnswer();
  last.setAttribute("aria-busy", "true"); // a screen reader says the answer when it is whole
  update();
  try {
    for await (const event of stream(path, { ...body, ...readSettings() })) {
      if (event.kind === "piece") addText(last.said, event.text);
      else if (event.kind === "source") showSource(event.text);
      else if (event.kind === "person") last.append(block("p", "person", event.text));
      else showNotice(event.text);
      follow(log);
    }
  } catch (trouble) {
    showNotice(trouble.message);
  }
  last.removeAttribute("aria-busy");
  isBusy = false;
  update();
  follow(log);
}

async function stop() {
  try {
    await post("/apps/chat/stop");
  } catch (trouble) {
    showNotice(trouble.message);
  }
}

function readSettings() {
  const settings = {};
  if (about.draws) settings.temperature = Number(temperature.value);
  if (about.draws && seed.value !== "" && seed.validity.valid) settings.seed = Number(seed.value);
  if (about.can_look_up) settings.looks_up = looksUp.checked;
  return settings;
}

function showQuestion(question) {
  log.querySelector(".hint")?.remove();
  log.append(block("p", "question", question));
  follow(log, true);
}

function showHint() {
  log.append(make("p", "hint", "Enter sends, Shift and Enter begin a new line, Escape stops an answer."));
}

function beginAnswer() {
  const said = block("p", "said");
  const element = make("div", "answer", said);
  element.said = said;
  log.append(element);
  return element;
}

function showSource(address) {
  last.append(make("p", "source", "from ", link(address, address)));
}

function showNotice(message) {
  const notice = block("p", "notice", message);
  if (!last?.parentNode) log.append(notice);
  else if (last.said.textContent) last.append(notice);
  else last.said.before(notice); // what is said next comes below
  follow(log);
}

function showTemperature() {
  const value = Number(temperature.value);
  find("temperature-value").value = value ? value.toFixed(1) : "0: the likeliest";
}

/** As many lines as the question has, up to six. */
function fit() {
  text.rows = Math.min(6, text.value.split("\n").length);
}

function update() {
  const hadFocus = document.activeElement === stopping;
  sending.hidden = isBusy;
  stopping.hidden = !isBusy;
  if (hadFocus && !isBusy) text.focus();
  retrying.disabled = isBusy || !last;
  clearing.disabled = isBusy || !log.querySelector(".question");
}
