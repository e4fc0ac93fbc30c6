// Deliveries: every endpoint with its health, and of one, what waits, what is dead, and each attempt.
import { get, post, session } from "./api.js";
import { EndpointActions } from "./actions.js";
import { AttemptTable } from "./attempts.js";
import { Ago, Component, Empty, Poll, Problem, count, html, now, span } from "./lib.js";
import { MINUTES, STEP_S, Sparkline } from "./sparkline.js";

const EVERY_MS = 2500;
const PAGE = 50;

export const endpointLink = (name, tab = "") => `#/deliveries/${encodeURIComponent(name)}${tab && `/${tab}`}`;

export class DeliveriesPage extends Component {
  state = { endpoints: null, periods: new Map(), error: null };

  componentDidMount() {
    this.poll = new Poll(EVERY_MS, async (signal) => {
      try {
        const { endpoints } = await get("/v1/endpoints", undefined, signal);
        this.setState({ endpoints, error: null });
        await this.count(signal);
      } catch (error) {
        if (error.name === "AbortError") throw error;
        this.setState({ error });
      }
    });
  }

  componentWillUnmount() {
    this.poll.stop();
  }

  // Only what has changed is counted again: the newest periods.
  async count(signal) {
    const step = STEP_S * 1000;
    const oldest = now() - MINUTES * 60_000;
    const since = this.counted ? Math.max(oldest, this.counted - step) : oldest;
    const from = Math.floor(since / step) * step;
    const { periods } = await get("/v1/attempts/counts", { since: new Date(from).toISOString(), step: STEP_S }, signal);
    this.counted = Math.floor(now() / step) * step;
    const all = new Map();
    for (const [name, former] of this.state.periods) {
      all.set(name, former.filter((each) => Date.parse(each.at) >= oldest && Date.parse(each.at) < from));
    }
    for (const each of periods) all.set(each.endpoint, [...(all.get(each.endpoint) || []), each]);
    this.setState({ periods: all });
  }

  render({ name, tab }, { endpoints, periods, error }) {
    const one = name && endpoints?.find((each) => each.name === name);
    if (name) {
      return html`<div class="page"><a class="back always" href="#/deliveries">← Deliveries</a><${Problem} error=${error} />
        ${endpoints && !one && html`<${Empty} title="No such endpoint">The log does not know it, or this token may not see it.<//>`}
        ${one && html`<${EndpointPage} key=${name} endpoint=${one} periods=${periods.get(name) || []} tab=${tab || (one.dead ? "dead" : "attempts")} changed=${() => this.poll.run()} />`}</div>`;
    }
    return html`<div class="page">
      <header class="title"><h1 tabindex="-1">Deliveries</h1></header>
      <${Problem} error=${error} />
      ${endpoints && !endpoints.length && html`<${Empty} title="No endpoint">Add one to <code>config.yaml</code> under <code>endpoints</code>: the relay reads it again when the file is saved.<//>`}
      ${endpoints?.length ? html`<${EndpointTable} endpoints=${endpoints} periods=${periods} />` : null}
    </div>`;
  }
}

const TONE = { enabled: "ok", resting: "warn", disabled: "bad" };
const tone = (endpoint) => (endpoint.state === "enabled" && endpoint.failing_since ? "warn" : TONE[endpoint.state] || "");
const health = (endpoint) => (endpoint.state === "enabled" && endpoint.failing_since ? "failing" : endpoint.state);

function EndpointTable({ endpoints, periods }) {
  return html`<div class="wide"><table class="table">
    <thead><tr><th>Endpoint</th><th>State</th><th>Last ${MINUTES} min</th><th class="num">Pending</th><th class="num">Lag</th><th class="num">Retrying</th><th class="num">Parked</th><th class="num">Dead</th><th>Last success</th></tr></thead>
    <tbody>
      ${endpoints.map((each) => html`<tr key=${each.name}>
        <td><a class="strong" href=${endpointLink(each.name)}>${each.name}</a>${each.last_error && each.failing_since ? html`<div class="meta bad">${each.last_error}</div>` : null}</td>
        <td><span class=${`pill ${tone(each)}`}>${health(each)}</span></td>
        <td><${Sparkline} periods=${periods.get(each.name) || []} /></td>
        <${Number} of=${each.pending} /><td class="num">${each.lag_ms === null ? html`<span class="faint">–</span>` : span(each.lag_ms)}</td>
        <${Number} of=${each.retrying} tone="warn" /><${Number} of=${each.parked} tone="warn" />
        <td class="num">${each.dead ? html`<a class="bad" href=${endpointLink(each.name, "dead")}>${count(each.dead)}</a>` : html`<span class="faint">0</span>`}</td>
        <td><${Ago} at=${each.last_success} /></td>
      </tr>`)}
    </tbody>
  </table></div>`;
}

const Number = ({ of, tone: how }) => html`<td class="num"><span class=${of ? how || "" : "faint"}>${count(of)}</span></td>`;

const TABS = { attempts: "Attempts", waiting: "Waiting", dead: "Dead letters" };

class EndpointPage extends Component {
  render({ endpoint, periods, tab, changed }) {
    const facts = [
      ["Pending", count(endpoint.pending)],
      ["Lag", endpoint.lag_ms === null ? "–" : span(endpoint.lag_ms)],
      ["Retrying", count(endpoint.retrying)],
      ["Parked", count(endpoint.parked)],
      ["Dead", count(endpoint.dead)],
      ["Last success", html`<${Ago} at=${endpoint.last_success} />`],
      ["Last failure", html`<${Ago} at=${endpoint.last_failure} none="none" />`],
    ];
    if (endpoint.tenant) facts.push(["Tenant", endpoint.tenant]);
    if (endpoint.made_by) facts.push(["Made by", endpoint.made_by]);
    const numbers = { dead: endpoint.dead, waiting: endpoint.retrying + endpoint.parked + endpoint.pending };
    return html`<article>
      <header class="title"><h1 tabindex="-1">${endpoint.name}</h1><span class=${`pill ${tone(endpoint)}`}>${health(endpoint)}</span><span class="spacer"></span>
        ${session.about?.may_change && html`<${EndpointActions} endpoint=${endpoint} changed=${changed} />`}</header>
      ${endpoint.disabled_at && html`<p class="problem">Disabled <${Ago} at=${endpoint.disabled_at} /> (${endpoint.disabled_because}). Its events are kept until it is enabled.</p>`}
      ${endpoint.failing_since && html`<p class="problem">Failing since <${Ago} at=${endpoint.failing_since} />: ${endpoint.last_error}${endpoint.resting_until && html`; the next try is <${Ago} at=${endpoint.resting_until} />`}</p>`}
      <div class="facts"><${Sparkline} periods=${periods} /><dl>${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl></div>
      <nav class="tabs" aria-label="Deliveries of this endpoint">${Object.entries(TABS).map(([key, text]) => html`<a key=${key} href=${endpointLink(endpoint.name, key)} aria-current=${tab === key ? "page" : undefined}>${text}${numbers[key] ? html` <span class="badge">${count(numbers[key])}</span>` : null}</a>`)}</nav>
      ${tab === "attempts" ? html`<${AttemptTable} endpoint=${endpoint.name} />` : html`<${DeliveryTable} key=${tab} endpoint=${endpoint.name} tab=${tab} changed=${changed} />`}
    </article>`;
  }
}

const STATES = { dead: ["dead"], waiting: ["retrying", "parked", "pending"] };

class DeliveryTable extends Component {
  state = { found: null, next: null, error: null, done: null };

  componentDidMount() {
    this.poll = new Poll(EVERY_MS, async (signal) => {
      const { endpoint, tab } = this.props;
      const shown = Math.max(PAGE, this.state.found?.length || 0);
      const page = await get("/v1/deliveries", { endpoint, state: STATES[tab], limit: Math.min(500, shown) }, signal);
      this.setState({ found: page.deliveries, next: page.next });
    });
  }
  componentWillUnmount() {
    this.poll.stop();
  }
  more = async () => {
    const { endpoint, tab } = this.props;
    const page = await get("/v1/deliveries", { endpoint, state: STATES[tab], limit: PAGE, cursor: this.state.next });
    this.setState({ found: [...this.state.found, ...page.deliveries], next: page.next });
  };
  act = (what, delivery) => async () => {
    try {
      await post(`/v1/deliveries/${encodeURIComponent(delivery.event_id)}/${what}`, { endpoint: delivery.endpoint });
      this.setState({ error: null, done: what === "retry" ? "It is tried again now." : "Discarded." });
    } catch (error) {
      this.setState({ error });
    }
    this.poll.run();
    this.props.changed();
  };
  render({ tab }, { found, next, error, done }) {
    const may = session.about?.may_change;
    if (!found) return html`<p class="faint">loading…</p>`;
    return html`<section>
      <${Problem} error=${error} /><p class="notice" role="status">${done}</p>
      ${!found.length && (tab === "dead" ? html`<${Empty} title="No dead letters">An event that has failed for its whole retry schedule is kept here, to be retried or discarded.<//>` : html`<${Empty} title="Nothing waits">Everything that this endpoint asks for has been delivered.<//>`)}
      ${found.length ? html`<div class="wide"><table class="table">
        <thead><tr><th>Event</th><th>Room</th><th>Participant</th><th>State</th><th class="num">Attempts</th><th>Why</th>${tab === "waiting" && html`<th>Next attempt</th>`}${may && html`<th><span class="hidden">Actions</span></th>`}</tr></thead>
        <tbody>${found.map((each) => html`<tr key=${each.event_id}>
          <td><a href=${`#/events/${encodeURIComponent(each.event_id)}/${encodeURIComponent(each.endpoint)}`}>${each.type}</a><div class="meta">#${each.sequence}</div></td>
          <td class="name">${each.room}</td><td class="name">${each.participant}</td>
          <td><span class=${`pill ${each.state === "dead" ? "bad" : each.state === "pending" ? "" : "warn"}`}>${each.state}</span> <span class="meta"><${Ago} at=${each.since} /></span></td>
          <td class="num">${each.attempts}</td><td>${each.reason || html`<span class="faint">–</span>`}</td>
          ${tab === "waiting" && html`<td>${each.next_attempt ? html`<${Ago} at=${each.next_attempt} />` : html`<span class="faint">in turn</span>`}</td>`}
          ${may && html`<td class="buttons">${each.state !== "pending" && html`<button type="button" onClick=${this.act("retry", each)}>Retry</button>`}
            ${each.state === "dead" && html`<button type="button" class="danger" onClick=${this.act("discard", each)}>Discard</button>`}</td>`}
        </tr>`)}</tbody></table></div>` : null}
      ${next && html`<button type="button" class="more" onClick=${this.more}>More</button>`}
    </section>`;
  }
}
