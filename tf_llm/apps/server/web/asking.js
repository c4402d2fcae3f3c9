// What the page asks of its server, and what it does when that fails.

const KEY = "session"; // in the tab's own storage: a tab is a session, and stays one when it is loaded anew

export class Trouble extends Error {
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The server's answer to a GET, read as JSON. */
export async function read(path) {
  return (await send(path, { headers: headers() })).json();
}

/** The server's answer to a POST of JSON, read as JSON. */
export async function post(path, body = {}) {
  return (await sendInSession(path, body)).json();
}

/** The events of an answer that comes in pieces, as an asynchronous iterator. */
export async function* stream(path, body) {
  const response = await sendInSession(path, body);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Trouble("The connection ended before the answer did.");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.slice("data: ".length);
      if (data === "[DONE]") return;
      const told = JSON.parse(data);
      if (told.error) throw new Trouble(told.error.message);
      yield told;
    }
  }
}

/** Called when the server no longer knows this session, behind which there is a new one. */
let onLost = () => {};

export function whenLost(act) {
  onLost = act;
}

function headers() {
  const session = sessionStorage.getItem(KEY);
  return session ? { "X-Session": session } : {};
}

async function sendInSession(path, body) {
  if (!sessionStorage.getItem(KEY)) await beginSession();
  try {
    return await sendJson(path, body);
  } catch (trouble) {
    if (trouble.code !== "no_session") throw trouble;
    await beginSession();
    onLost();
    return sendJson(path, body);
  }
}

async function beginSession() {
  sessionStorage.removeItem(KEY);
  const { id } = await (await sendJson("/apps/session", {})).json();
  sessionStorage.setItem(KEY, id);
}

function sendJson(path, body) {
  return send(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers() },
    body: JSON.stringify(body),
  });
}

async function send(path, settings) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...settings });
  } catch {
    throw new Trouble("The server cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  const error = await response.json().then((body) => body.error, () => null);
  throw new Trouble(error?.message ?? `The server answered ${response.status}.`, response.status, error?.code);
}
