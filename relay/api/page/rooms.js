// Rooms: the list, and one room with its timeline and what was said.
import { get } from "./api.js";
import { loadRoom, rooms } from "./feed.js";
import { FleetPanel } from "./fleet.js";
import { Ago, Component, Empty, Live, Poll, Problem, createRef, html } from "./lib.js";
import { words } from "./model.js";
import { Timeline } from "./timeline.js";

const LINES = 80;
const EVERY_MS = 5000;

export const roomLink = (name) => `#/rooms/${encodeURIComponent(name)}`;

export class RoomsPage extends Component {
  state = { listed: null, next: null, error: null };

  componentDidMount() {
    this.poll = new Poll(EVERY_MS, async (signal) => {
      try {
        const { rooms: listed, next } = await get("/v1/rooms", { limit: 50 }, signal);
        const more = (this.state.listed || []).slice(50).filter((room) => listed.every((each) => each.name !== room.name));
        this.setState({ listed: [...listed, ...more], next: this.state.next ?? next, error: null });
        const known = new Set(listed.map((each) => each.name));
        if ([...rooms.byName.keys()].some((name) => !known.has(name))) this.setState({});
      } catch (error) {
        if (error.name === "AbortError") throw error;
        this.setState({ error });
      }
    });
  }

  componentWillUnmount() {
    this.poll.stop();
  }

  // The room that one most likely came for. It stays the same: what is shown does not change by itself.
  first(listed) {
    if (!this.chosen && listed?.length) {
      const active = (room) => rooms.byName.get(room.name)?.activeAt ?? 0;
      const openOnes = listed.filter((room) => room.closed_at === null).sort((a, b) => active(b) - active(a) || b.participants.length - a.participants.length);
      this.chosen = (openOnes[0] ?? listed[0]).name;
    }
    return this.chosen;
  }

  more = async () => {
    const page = await get("/v1/rooms", { limit: 50, cursor: this.state.next });
    this.setState({ listed: [...this.state.listed, ...page.rooms], next: page.next });
  };

  render({ name }, { listed, next, error }) {
    const wide = matchMedia("(min-width: 860px)").matches;
    const shown = name ?? (wide ? this.first(listed) : undefined);
    return html`<div class=${`split ${name ? "has-detail" : ""}`}>
      <nav class="side" aria-label="Rooms">
        <h2>Rooms</h2>
        <${Problem} error=${error} />
        ${listed && !listed.length && html`<${Empty} title="No room yet">Start a call in LiveKit: its rooms appear here as soon as the relay hears them. <code>speech-relay check</code> tells whether it can.<//>`}
        <${RoomList} listed=${listed || []} selected=${shown} />
        ${next && html`<button type="button" class="more" onClick=${this.more}>Older rooms</button>`}
        <${FleetPanel} />
      </nav>
      <div class="detail">
        ${shown ? html`<${RoomPage} key=${shown} name=${shown} listed=${listed?.find((each) => each.name === shown)} />` : listed?.length ? html`<${Empty} title="Choose a room">Its timeline shows who speaks, as it happens.<//>` : null}
      </div>
    </div>`;
  }
}

class RoomList extends Live {
  signals() {
    return [rooms.changed];
  }
  render({ listed, selected }) {
    const known = new Set(listed.map((each) => each.name));
    const fresh = [...rooms.byName.values()].filter((room) => !known.has(room.name) && room.events);
    const all = [...fresh.map((room) => ({ name: room.name, participants: [...room.rows.keys()], closed_at: null })), ...listed];
    return html`<ul class="list">
      ${all.map((each) => html`<${RoomItem} key=${each.name} room=${each} live=${rooms.byName.get(each.name)} selected=${each.name === selected} />`)}
    </ul>`;
  }
}

function RoomItem({ room, live, selected }) {
  const speaking = live?.speaking || 0;
  const open = room.closed_at === null;
  const people = live?.people || room.participants.length;
  const state = speaking ? `${speaking} speaking` : open ? "open" : "ended";
  return html`<li>
    <a href=${roomLink(room.name)} aria-current=${selected ? "page" : undefined}>
      <span class=${`dot ${speaking ? "speaking" : open ? "ok" : ""}`}></span>
      <span class="name">${room.name}</span>
      <span class="meta">${people} ${people === 1 ? "person" : "people"} · ${state}</span>
      <span class="meta when"><${Ago} at=${live?.activeAt || room.closed_at || room.opened_at} /></span>
    </a>
  </li>`;
}

export class RoomPage extends Component {
  state = { error: null, loaded: false };

  constructor(props) {
    super(props);
    rooms.selected = props.name;
    this.room = rooms.room(props.name);
  }

  componentDidMount() {
    if (this.room.loaded) this.setState({ loaded: true });
    else loadRoom(this.room).then(() => this.setState({ loaded: true }), (error) => this.setState({ error, loaded: true }));
  }

  // inside: of another view, which has a heading of its own
  render({ name, listed, inside }, { error, loaded }) {
    return html`<article>
      ${!inside && html`<a class="back" href="#/rooms">← Rooms</a>`}
      <header class="title">
        ${inside ? html`<h2><a href=${roomLink(name)}>${name}</a></h2>` : html`<h1 tabindex="-1">${name}</h1>`}
        ${listed && html`<span class=${`pill ${listed.closed_at ? "" : "ok"}`}>${listed.closed_at ? "ended" : "open"}</span>
          <span class="muted">since <${Ago} at=${listed.opened_at} /> <code class="faint">${listed.sid}</code></span>`}
      </header>
      <${Problem} error=${error} />
      <${Timeline} room=${this.room} />
      <${Lines} room=${this.room} loaded=${loaded} />
    </article>`;
  }
}

class Lines extends Live {
  box = createRef();
  signals() {
    return [this.props.room.changed];
  }
  getSnapshotBeforeUpdate() {
    const box = this.box.current;
    return !box || box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  }
  componentDidMount() {
    super.componentDidMount();
    this.toEnd(true);
  }
  componentDidUpdate(_props, _state, atEnd) {
    this.toEnd(atEnd);
  }
  toEnd(atEnd) {
    if (atEnd && this.box.current) this.box.current.scrollTop = this.box.current.scrollHeight;
  }
  render({ room, loaded }) {
    const lines = room.lines.slice(-LINES);
    return html`<section class="said" aria-label="What was said">
      <h2>What was said</h2>
      ${loaded && !lines.length && html`<${Empty} title="No speech yet">It appears here and on the timeline as soon as a participant speaks.<//>`}
      <div class="lines" ref=${this.box}>
        ${lines.map((bar) => html`<${Line} key=${bar.id} bar=${bar} />`)}
      </div>
    </section>`;
  }
}

function Line({ bar }) {
  const { said, guess } = words(bar);
  const nothing = !said && !guess;
  const note = nothing ? (bar.outcome === "no_transcript" ? "(speech without text)" : bar.closed ? "(waits for its text)" : "(speaking)") : "";
  return html`<a class="line" href=${`#/utterances/${encodeURIComponent(bar.stream)}/${encodeURIComponent(bar.id)}`}>
    <span class="when"><${Ago} at=${bar.start} /></span>
    <span class="who">${bar.row.name}</span>
    <span class="what">${said}${guess && html` <i class="muted">${guess}</i>`}${note && html`<span class="faint">${note}</span>`}</span>
  </a>`;
}
