// Follows the log while the page is visible, and keeps the rooms.
import { get, literally, session, stream } from "./api.js";
import { Signal } from "./lib.js";
import { Rooms } from "./model.js";

const HIDDEN_MS = 30_000;
const PAGE = 500;

export const rooms = new Rooms();
export const feed = { state: "connecting", detail: "", changed: new Signal(), listeners: new Set() };

let abort = null;
let lastId = null;
let seen = new Set();
let hiding;

function tell(state, detail = "") {
  if (feed.state === state && feed.detail === detail) return;
  feed.state = state;
  feed.detail = detail;
  feed.changed.changed();
}

// A resumed stream repeats some seconds.
function isNew(id) {
  if (seen.has(id)) return false;
  seen.add(id);
  if (seen.size > 8000) seen = new Set([...seen].slice(4000));
  return true;
}

async function follow() {
  abort = new AbortController();
  const { signal } = abort;
  let wait = 500;
  while (!signal.aborted) {
    try {
      await stream("/v1/events/stream", lastId, signal, {
        opened() {
          wait = 500;
          tell("live");
        },
        event(id, text) {
          lastId = id;
          const event = JSON.parse(text);
          if (!isNew(event.id)) return;
          rooms.take(event);
          for (const listener of feed.listeners) listener(event);
        },
      });
      tell("connecting", "the relay ended the stream");
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 409) lastId = null;
      if (error.status === 401 || error.status === 403) return tell("off", error.message);
      tell("connecting", error.status ? error.message : "the relay does not answer");
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, 8000);
  }
}

export function startFeed() {
  abort?.abort();
  follow();
}

// Begins again with what this endpoint gets.
export function lookThrough(endpoint) {
  session.scope = endpoint;
  lastId = null;
  seen = new Set();
  rooms.byName.clear();
  startFeed();
  session.changed.changed();
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) {
    hiding = setTimeout(() => {
      abort?.abort();
      abort = null;
      tell("paused");
    }, HIDDEN_MS);
  } else if (abort === null && !session.refused) {
    startFeed();
  }
});

// The newest events of a room, before `cursor` if there is one. Interims that are over have no content, and are left out.
export async function loadRoom(room, cursor = null) {
  if (!cursor) await loadPeople(room);
  const page = await get("/v1/events", { room: literally(room.name), limit: PAGE, cursor });
  rooms.takeOlder(room, page.events.reverse());
  room.loaded = true;
  room.older = page.next;
}

// Those who have been silent for long are in no recent event.
async function loadPeople(room) {
  if (/^\.\.?$/.test(room.name)) return; // a browser takes such a name out of the path
  let found = {};
  try {
    found = await get(`/v1/rooms/${encodeURIComponent(room.name)}`, {});
  } catch (error) {
    if (error.status !== 404) throw error; // the log does not have it yet
  }
  // a name that ends in /transcript is answered with a transcript
  for (const each of found.streams ?? []) {
    if (each.participant) room.meet(each.participant, each.id, Date.parse(each.opened_at), each.closed_at === null);
  }
}

// Forgets the past of a room, and loads its present.
export async function returnToPresent(room) {
  room.rows.clear();
  room.bars.clear();
  room.overlaps.clear();
  room.lines.length = 0;
  room.detached = false;
  await loadRoom(room);
}
