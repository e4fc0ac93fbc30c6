// Talks to /v1. A token is kept in memory or, if asked for, until this tab is closed; it is sent as a header only.
import { Signal, setServerTime } from "./lib.js";

const KEY = "speech-relay.token";
let token = null;
try {
  token = sessionStorage.getItem(KEY);
} catch {
  // storage may be switched off
}

// scope: the endpoint through which a tenant looks, who sees through one of them at a time.
export const session = { about: null, refused: false, scope: null, choices: [], changed: new Signal() };

export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail || `The relay answered ${status}.`);
    this.status = status;
    this.detail = problem.detail;
    this.errors = problem.errors;
  }
}

export function useToken(text, keep) {
  token = text || null;
  try {
    if (keep && token) sessionStorage.setItem(KEY, token);
    else sessionStorage.removeItem(KEY);
  } catch {
    // then it is kept in memory
  }
}

export const hasToken = () => token !== null;

const headers = (more = {}) => (token ? { Authorization: `Bearer ${token}`, ...more } : more);

async function answered(response) {
  if (response.ok) return response;
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // a proxy between may answer with anything
  }
  if (response.status === 401) {
    session.refused = true;
    session.changed.changed();
  }
  throw new Refusal(response.status, problem);
}

function address(path, params) {
  const query = new URLSearchParams();
  if (session.scope && params && !params.endpoint) query.append("endpoint", session.scope);
  for (const [name, value] of Object.entries(params || {})) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "") query.append(name, one);
    }
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

export async function get(path, params, signal) {
  const response = await fetch(address(path, params), { headers: headers(), signal, credentials: "omit" });
  return (await answered(response)).json();
}

export async function post(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: headers({ "Content-Type": "application/json" }),
    body: JSON.stringify(body),
    credentials: "omit",
  });
  return (await answered(response)).json();
}

export async function learnAbout() {
  const about = await get("/v1/about");
  if (about.tenant) {
    const { endpoints } = await get("/v1/endpoints");
    session.choices = endpoints.map((each) => each.name);
    if (!session.choices.includes(session.scope)) session.scope = session.choices[0] ?? null;
  }
  session.about = about;
  session.refused = false;
  setServerTime(session.about.now);
  session.changed.changed();
}

// A room's name as a glob that matches nothing else.
export const literally = (name) => name.replace(/[[*?]/g, "[$&]");

// Reads server-sent events by fetch: EventSource cannot send a token. Ends with the answer or the signal.
export async function stream(path, lastId, signal, { opened, event }) {
  const more = { Accept: "text/event-stream", ...(lastId ? { "Last-Event-ID": lastId } : {}) };
  const response = await answered(await fetch(address(path, {}), { headers: headers(more), signal, credentials: "omit" }));
  opened();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let id = null;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("id: ")) id = line.slice(4);
      else if (line.startsWith("data: ")) event(id, line.slice(6));
    }
  }
}
