// The assistant: what was understood is shown as a call, and what would change something is asked about first.

import { post } from "./asking.js";
import { block, follow, make, plain, showHit } from "./text.js";

const find = (name) => document.getElementById(name);
const [log, form, text] = ["assistant-log", "assistant-form", "assistant-text"].map(find);
const dialog = find("confirm");
const [question, call, yes, no] = ["confirm-text", "confirm-call", "confirm-yes", "confirm-no"].map(find);

const SECONDS = 5; // between two looks at what is due
let isBusy = false;
let pending = null; // the id of the question in the dialog

export const input = text;

export function open(described) {
  const tools = described.tools.slice(0, 8).join(", ");
  log.append(make("p", "hint", `What I can do: ${tools}${described.tools.length > 8 ? " and more" : ""}. Before I change anything, I ask.`));
  setInterval(() => document.visibilityState === "visible" && tellDue(), SECONDS * 1000);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const said = text.value.trim();
  if (!said || isBusy) return;
  text.value = "";
  log.querySelector(".hint")?.remove();
  log.append(block("p", "question", said));
  follow(log, true);
  ask("/apps/assistant/ask", { text: said });
});

async function ask(path, body) {
  isBusy = true;
  log.setAttribute("aria-busy", "true");
  try {
    show(await post(path, body));
  } catch (trouble) {
    log.append(block("p", "notice", trouble.message));
  }
  log.removeAttribute("aria-busy");
  isBusy = false;
  follow(log, true);
}

function show(reply) {
  const answer = make("div", "answer");
  if (reply.call) answer.append(block("code", "call", reply.call));
  if (reply.text) answer.append(block("p", "said", reply.text));
  if (reply.hits.length) answer.append(make("ol", "hits", ...reply.hits.map(showHit)));
  log.append(answer);
  text.placeholder = reply.pending && !reply.is_confirmable ? "Your answer" : "Ask for something";
  if (reply.pending && reply.is_confirmable) {
    pending = reply.pending;
    question.textContent = plain(reply.text);
    call.textContent = plain(reply.call ?? "");
    dialog.showModal();
    yes.focus();
  }
}

/** Answers the question in the dialog, once. */
function decide(path) {
  if (pending === null) return;
  const id = pending;
  pending = null;
  dialog.close();
  text.focus();
  ask(path, { pending: id });
}

yes.addEventListener("click", () => decide("/apps/assistant/confirm"));
no.addEventListener("click", () => decide("/apps/assistant/cancel"));
dialog.addEventListener("close", () => decide("/apps/assistant/cancel")); // Escape, too, is a no
dialog.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.repeat) event.preventDefault(); // the key that sent the request, held on
});

async function tellDue() {
  let due = [];
  try {
    ({ due } = await post("/apps/assistant/due"));
  } catch {
    return; // the next look, or the next request, will say what is wrong
  }
  for (const each of due) log.append(block("p", "due", each));
  if (due.length) follow(log, true);
}
