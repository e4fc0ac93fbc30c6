// What every view uses: rendering, times, and one clock for all relative times.
import { Component, createRef, h, render } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export const html = htm.bind(h);
export { Component, createRef, render };

// Calls listeners at most once per frame, however often something changes.
export class Signal {
  #listeners = new Set();
  #scheduled = false;

  changed() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const run = () => {
      this.#scheduled = false;
      for (const listener of [...this.#listeners]) listener();
    };
    // A hidden page gets no frames.
    if (document.hidden) setTimeout(run, 1000);
    else requestAnimationFrame(run);
  }

  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

// The difference between this machine's clock and the relay's, in milliseconds.
let skew = 0;
export const now = () => Date.now() + skew;
export function setServerTime(iso) {
  const off = Date.parse(iso) - Date.now();
  skew = Math.abs(off) > 1500 ? off : 0;
}

const everySecond = new Signal();
setInterval(() => everySecond.changed(), 1000);

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
export const timeOfDay = (ms) => clock.format(ms);
export const exactly = (ms) => `${date.format(ms)}, ${clock.format(ms)}.${String(Math.floor(ms) % 1000).padStart(3, "0")}`;

export function ago(ms, at = now()) {
  const s = Math.round((at - ms) / 1000);
  if (s < -1) return `in ${span(-s * 1000)}`;
  if (s < 2) return "now";
  return `${span(s * 1000)} ago`;
}

export function span(ms) {
  const s = ms / 1000;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (s < 10) return `${s.toFixed(1).replace(/\.0$/, "")} s`;
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 129600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

export const count = (n) => n.toLocaleString("en").replace(/,/g, " ");

// A time as people say it; the exact one is shown on hover, and beside it when its row has the focus.
export class Ago extends Component {
  componentDidMount() {
    this.stop = everySecond.subscribe(() => this.setState({}));
  }
  componentWillUnmount() {
    this.stop();
  }
  render({ at, none = "never" }) {
    if (at === null || at === undefined) return html`<span class="faint">${none}</span>`;
    const ms = typeof at === "string" ? Date.parse(at) : at;
    return html`<time datetime=${new Date(ms).toISOString()} title=${exactly(ms)} data-exact=${exactly(ms)}>${ago(ms)}</time>`;
  }
}

// A component that is drawn again whenever its signals say so.
export class Live extends Component {
  signals() {
    return [];
  }
  componentDidMount() {
    this.stops = this.signals().map((signal) => signal.subscribe(() => this.setState({})));
  }
  componentWillUnmount() {
    this.stops.forEach((stop) => stop());
  }
}

// Calls `work` again and again while the page is visible: `everyMs` after it has ended, longer if it takes long.
export class Poll {
  constructor(everyMs, work) {
    this.everyMs = everyMs;
    this.work = work;
    this.abort = new AbortController();
    this.seen = () => !document.hidden && this.run();
    document.addEventListener("visibilitychange", this.seen);
    this.run();
  }
  async run() {
    if (this.busy || this.abort.signal.aborted) return;
    clearTimeout(this.timer);
    this.busy = true;
    const began = performance.now();
    let again = true;
    try {
      again = (await this.work(this.abort.signal)) !== false;
    } catch (error) {
      if (error.name !== "AbortError") console.warn(error.message);
    }
    this.busy = false;
    if (again && !this.abort.signal.aborted && !document.hidden) {
      this.timer = setTimeout(() => this.run(), Math.max(this.everyMs, 10 * (performance.now() - began)));
    }
  }
  stop() {
    clearTimeout(this.timer);
    this.abort.abort();
    document.removeEventListener("visibilitychange", this.seen);
  }
}

export const Empty = ({ title, children }) => html`<div class="empty"><strong>${title}</strong><p>${children}</p></div>`;

export const Problem = ({ error }) =>
  error ? html`<p class="problem" role="alert">${error.detail || error.message}</p>` : null;
