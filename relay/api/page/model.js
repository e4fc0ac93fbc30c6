// What rooms show, from events in any order: a bounded part of it. Knows no page.
import { Signal, now } from "./lib.js";

const MOST_ROOMS = 60;
const MOST_BARS = 3000;
const MOST_SPANS = 300;

const ms = (text) => (text ? Date.parse(text) : null);

// The event itself, also where an endpoint gets it as a CloudEvent.
export const plain = (event) => (event.specversion ? event.data : event);

export class Row {
  constructor(identity, name) {
    this.identity = identity;
    this.name = name || identity;
    this.streams = new Map();
    this.bars = [];
    this.muted = [];
    this.failed = [];
    this.since = Infinity;
  }
  get here() {
    return [...this.streams.values()].some((open) => open);
  }
  get speaking() {
    return this.bars.some((bar) => bar.end === null && !bar.closed);
  }
}

export class Room {
  constructor(name) {
    this.name = name;
    this.sid = "";
    this.rows = new Map();
    this.bars = new Map(); // by utterance
    this.lines = []; // the same, by start
    this.overlaps = new Map();
    this.activeAt = 0;
    this.events = 0;
    this.changed = new Signal();
  }

  get people() {
    return [...this.rows.values()].filter((row) => row.here).length;
  }
  get speaking() {
    return [...this.rows.values()].filter((row) => row.speaking).length;
  }

  row(event) {
    const { identity, name } = event.participant;
    let row = this.rows.get(identity);
    if (!row) this.rows.set(identity, (row = new Row(identity, name)));
    if (name) row.name = name;
    return row;
  }

  // A participant's stream, from the list of the room.
  meet(identity, stream, since, isOpen) {
    let row = this.rows.get(identity);
    if (!row) this.rows.set(identity, (row = new Row(identity, "")));
    row.since = Math.min(row.since, since);
    if (!row.streams.has(stream)) row.streams.set(stream, isOpen);
  }

  bar(event, row) {
    const { id } = event.utterance;
    let bar = this.bars.get(id);
    if (!bar) {
      const at = ms(event.timing.occurred_at) ?? ms(event.timing.detected_at);
      bar = { id, row, stream: event.stream.id, start: at, end: null, finals: new Map(), interim: "", interimRevision: 0, text: null, revision: 0, closed: false, outcome: null, reason: null };
      this.bars.set(id, bar);
      insert(row.bars, bar);
      insert(this.lines, bar);
    }
    return bar;
  }

  // Takes bars away until no more than `most` are left: the oldest, or if one looks at the past, the newest.
  bound(most, newest) {
    while (this.lines.length > most) {
      const bar = newest ? this.lines.pop() : this.lines.shift();
      this.bars.delete(bar.id);
      const index = bar.row.bars.indexOf(bar);
      if (index >= 0) bar.row.bars.splice(index, 1);
      if (newest) this.detached = true;
      else this.cut = Math.max(this.cut || 0, bar.start);
    }
  }

  take(event) {
    const { timing, data, type } = event;
    const at = ms(timing.occurred_at) ?? ms(timing.detected_at);
    this.activeAt = Math.max(this.activeAt, ms(timing.emitted_at));
    this.sid = event.room.sid;
    this.events += 1;
    if (type === "overlap.started" || type === "overlap.ended") return this.overlap(event, at);
    if (!event.participant) return undefined;
    const row = this.row(event);
    row.since = Math.min(row.since, at);
    const stream = event.stream.id;
    if (type === "stream.ended") row.streams.set(stream, false);
    else if (!row.streams.has(stream)) row.streams.set(stream, true);
    switch (type) {
      case "stream.ended":
        for (const bar of row.bars) if (bar.stream === stream) bar.closed = true;
        for (const each of [...row.muted, ...row.failed]) if (each.stream === stream) each.to ??= at;
        return undefined;
      case "microphone.muted":
        return open(row.muted, { key: stream, stream, from: at, to: null });
      case "microphone.unmuted":
        return shut(row.muted, stream, at);
      case "source.failed":
        return open(row.failed, { key: stream + data.detector, stream, from: ms(data.failed_at) ?? at, to: null, what: `${data.detector} ${data.reason}` });
      case "source.recovered":
        return shut(row.failed, stream + data.detector, at);
      default:
        return event.utterance ? this.speech(event, row, at) : undefined;
    }
  }

  speech(event, row, at) {
    const { data, type, stream, utterance } = event;
    const bar = this.bar(event, row);
    switch (type) {
      case "speech.started":
        this.move(bar, at);
        break;
      case "speech.ended":
        bar.end = at;
        bar.closed = true;
        bar.reason = data.reason;
        break;
      case "transcript.interim":
        if (utterance.revision > bar.interimRevision) {
          bar.interim = data.text;
          bar.interimRevision = utterance.revision;
        }
        break;
      case "transcript.final":
        bar.finals.set(stream.sequence, data.text);
        if (utterance.revision > bar.interimRevision) bar.interim = "";
        break;
      case "utterance.completed":
        if (utterance.revision < bar.revision) return;
        bar.revision = utterance.revision;
        bar.text = data.text;
        bar.outcome = data.outcome;
        bar.reason = data.reason;
        bar.closed = true;
        bar.completedAt = ms(event.timing.emitted_at);
        if (at !== null) bar.end = at;
        if (bar.end !== null && data.duration_ms) this.move(bar, bar.end - data.duration_ms);
        break;
      default:
    }
  }

  move(bar, start) {
    if (start === null || start === bar.start) return;
    for (const list of [bar.row.bars, this.lines]) {
      const index = list.lastIndexOf(bar);
      if (index >= 0) list.splice(index, 1);
    }
    bar.start = start;
    insert(bar.row.bars, bar);
    insert(this.lines, bar);
  }

  overlap(event, at) {
    const { data } = event;
    const known = this.overlaps.get(data.overlap_id) || { from: at, to: null };
    known.who = new Set(data.speakers.map((one) => one.identity));
    if (event.type === "overlap.ended") {
      known.to = at;
      if (data.duration_ms !== null) known.from = at - data.duration_ms;
    }
    this.overlaps.set(data.overlap_id, known);
    while (this.overlaps.size > MOST_SPANS) this.overlaps.delete(this.overlaps.keys().next().value);
  }
}

function insert(list, bar) {
  let index = list.length;
  while (index > 0 && list[index - 1].start > bar.start) index -= 1;
  list.splice(index, 0, bar);
}

function open(list, span) {
  if (list.some((each) => each.key === span.key && each.from === span.from)) return;
  list.push(span);
  list.sort((a, b) => a.from - b.from);
  if (list.length > MOST_SPANS) list.shift();
}

function shut(list, key, at) {
  const found = list.findLast((each) => each.key === key && each.from <= at);
  if (found) found.to ??= at;
}

// The words of a bar: what is final, and what is only guessed so far.
export function words(bar) {
  if (bar.text !== null) return { said: bar.text, guess: "" };
  const said = [...bar.finals.entries()].sort((a, b) => a[0] - b[0]).map((each) => each[1]).join(" ");
  return { said, guess: bar.interim };
}

export class Rooms {
  constructor() {
    this.byName = new Map();
    this.changed = new Signal();
    this.selected = null;
  }

  room(name) {
    let room = this.byName.get(name);
    if (!room) {
      this.byName.set(name, (room = new Room(name)));
      room.activeAt = now();
      this.forget();
    }
    return room;
  }

  forget() {
    if (this.byName.size <= MOST_ROOMS) return;
    const others = [...this.byName.values()].filter((room) => room.name !== this.selected);
    others.sort((a, b) => a.activeAt - b.activeAt);
    this.byName.delete(others[0].name);
  }

  // One event from the feed.
  take(raw) {
    const event = plain(raw);
    if (!event.room?.name) return;
    const room = this.room(event.room.name);
    if (room.detached) return; // its present is loaded again when one returns to it
    room.take(event);
    room.bound(room.name === this.selected ? MOST_BARS : MOST_BARS / 10, false);
    room.changed.changed();
    this.changed.changed();
  }

  // Events of the past, for the room that is looked at.
  takeOlder(room, logged) {
    const activeAt = room.activeAt;
    for (const each of logged) if (each.event) room.take(plain(each.event));
    room.activeAt = Math.max(activeAt, room.activeAt);
    room.bound(MOST_BARS, true);
    room.changed.changed();
  }
}
