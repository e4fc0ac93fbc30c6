// The page: its frame, what is shown at which address, and the token.
import { hasToken, learnAbout, session, useToken } from "./api.js";
import { DeliveriesPage } from "./deliveries.js";
import { EventPage } from "./event.js";
import { feed, lookThrough, startFeed } from "./feed.js";
import { Component, Live, Poll, Problem, html, render } from "./lib.js";
import { PlaygroundPage } from "./playground.js";
import { RoomsPage } from "./rooms.js";
import { UtterancePage } from "./utterance.js";

const STATES = { live: ["ok", "Live"], connecting: ["warn", "Reconnecting"], paused: ["", "Paused"], off: ["bad", "No live events"] };

function here() {
  const [view = "rooms", ...rest] = location.hash.replace(/^#\//, "").split("/");
  let parts;
  try {
    parts = rest.map(decodeURIComponent);
  } catch {
    parts = [];
  }
  return { view: view || "rooms", parts };
}

function Shown({ view, parts }) {
  const key = parts.join("/");
  switch (view) {
    case "deliveries":
      return html`<${DeliveriesPage} key="deliveries" name=${parts[0]} tab=${parts[1]} />`;
    case "events":
      return html`<${EventPage} key=${key} id=${parts[0]} endpoint=${parts[1]} />`;
    case "utterances":
      return html`<${UtterancePage} key=${key} stream=${parts[0]} id=${parts[1]} />`;
    case "playground":
      return html`<${PlaygroundPage} key="playground" />`;
    default:
      return html`<${RoomsPage} key="rooms" name=${parts[0]} />`;
  }
}

class Connection extends Live {
  state = { waits: null };
  signals() {
    return [feed.changed];
  }
  componentDidMount() {
    super.componentDidMount();
    this.poll = new Poll(10_000, async (signal) => {
      const response = await fetch("/readyz", { signal, credentials: "omit" });
      const { checks } = await response.json();
      this.setState({ waits: Object.values(checks).filter(Boolean) });
    });
  }
  componentWillUnmount() {
    super.componentWillUnmount();
    this.poll.stop();
  }
  render(_props, { waits }) {
    const [tone, text] = STATES[feed.state];
    return html`<span class="connection" role="status" title=${feed.detail || undefined}>
      ${waits?.length ? html`<span class="pill warn" title=${waits.join("; ")}>not ready</span>` : null}
      <span class=${`dot ${tone}`}></span><span class="words">${text}</span>
    </span>`;
  }
}

class TokenForm extends Component {
  state = { error: null };
  submit = async (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    useToken(form.get("token").trim(), form.get("keep") === "on");
    try {
      await learnAbout();
      startFeed();
    } catch (error) {
      useToken(null);
      this.setState({ error: error.status === 401 ? { detail: "The relay does not know this token." } : error });
    }
  };
  render(_props, { error }) {
    return html`<main class="token" id="main"><form onSubmit=${this.submit}>
      <h1 tabindex="-1">This relay asks for a token</h1>
      <p class="muted">One of <code>api.tokens</code> in its config.yaml.</p>
      <label>Token <input type="password" name="token" required autocomplete="off" autofocus /></label>
      <label class="check"><input type="checkbox" name="keep" /> Keep it until this tab is closed</label>
      <${Problem} error=${error} />
      <button type="submit" class="primary">Continue</button>
    </form></main>`;
  }
}

class App extends Component {
  state = { ...here(), error: null };

  componentDidMount() {
    window.addEventListener("hashchange", () => {
      const before = this.state.view + this.state.parts[0];
      const place = here();
      this.setState(place, () => {
        if (before === place.view + place.parts[0]) return;
        document.querySelector("h1")?.focus({ preventScroll: true });
        scrollTo(0, 0);
      });
    });
    session.changed.subscribe(() => this.setState({}));
    this.poll = new Poll(30_000, async () => {
      try {
        const first = !session.about;
        await learnAbout();
        if (first) startFeed();
        this.setState({ error: null });
      } catch (error) {
        if (error.status !== 401) this.setState({ error: error.status ? error : { detail: "The relay does not answer." } });
        else if (hasToken()) useToken(null);
        return error.status !== 401;
      }
      return true;
    });
  }

  leave = () => {
    useToken(null);
    location.reload();
  };

  render(_props, { view, parts, error }) {
    const { about, refused } = session;
    const tab = (name, text, also = []) => html`<a href=${`#/${name}`} aria-current=${[name, ...also].includes(view) ? "page" : undefined}>${text}</a>`;
    return html`<a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to content</a>
      <header class="top">
        <a class="brand" href="#/rooms"><img src="/page/icon.svg" alt="" width="20" height="20" />speech-relay</a>
        ${about && !refused && html`<nav aria-label="Views">${tab("rooms", "Rooms", ["utterances"])}${tab("deliveries", "Deliveries", ["events"])}${about.playground && tab("playground", "Playground")}</nav>
          <span class="spacer"></span>
          ${about.endpoint && html`<span class="pill" title="This token sees what one endpoint gets">${about.endpoint}</span>`}
          ${session.choices.length > 1 && html`<select aria-label="Look through this endpoint" value=${session.scope} onChange=${(event) => lookThrough(event.target.value)}>${session.choices.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select>`}
          ${!about.may_change && html`<span class="pill">read-only</span>`}
          <${Connection} />
          ${hasToken() && html`<button type="button" class="quiet" onClick=${this.leave}>Sign out</button>`}`}
      </header>
      ${refused ? html`<${TokenForm} />` : html`<main id="main" tabindex="-1"><${Problem} error=${error} />${about && html`<${Shown} key=${session.scope} view=${view} parts=${parts} />`}</main>`}`;
  }
}

render(html`<${App} />`, document.getElementById("app"));
