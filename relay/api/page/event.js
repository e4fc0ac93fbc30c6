// One event: its JSON as an endpoint gets it, and every attempt with its answer.
import { get, post, session } from "./api.js";
import { Outcome } from "./attempts.js";
import { Ago, Component, Empty, Poll, Problem, html, span } from "./lib.js";
import { plain } from "./model.js";

const EVERY_MS = 2500;

export class EventPage extends Component {
  state = { event: null, delivery: null, error: null, gone: null, done: null };

  componentDidMount() {
    this.poll = new Poll(EVERY_MS, async (signal) => {
      const { id, endpoint } = this.props;
      try {
        if (!this.state.event) this.setState({ event: await this.content(id, endpoint, signal) });
        this.setState({ delivery: await get(`/v1/deliveries/${encodeURIComponent(id)}`, { endpoint }, signal), error: null });
      } catch (error) {
        if (error.name === "AbortError") throw error;
        this.setState(error.status === 404 ? { gone: error } : { error });
        return error.status !== 404;
      }
      return true;
    });
  }
  componentWillUnmount() {
    this.poll.stop();
  }

  // An endpoint that is not configured any more cannot say in which form it was sent.
  async content(id, endpoint, signal) {
    const path = `/v1/events/${encodeURIComponent(id)}`;
    try {
      return await get(path, { endpoint }, signal);
    } catch (error) {
      if (error.status !== 404 || !endpoint) throw error;
      return get(path, {}, signal);
    }
  }

  act = (what, endpoint) => async () => {
    try {
      await post(`/v1/deliveries/${encodeURIComponent(this.props.id)}/${what}`, { endpoint });
      this.setState({ error: null, done: what === "retry" ? "It is tried again now." : "Discarded." });
    } catch (error) {
      this.setState({ error });
    }
    this.poll.run();
  };

  render({ id, endpoint }, { event, delivery, error, gone, done }) {
    const back = endpoint ? html`<a class="back always" href=${`#/deliveries/${encodeURIComponent(endpoint)}`}>← ${endpoint}</a>` : html`<a class="back always" href="#/deliveries">← Deliveries</a>`;
    if (gone) return html`<div class="page">${back}<${Empty} title="Not in the log">${gone.detail}<//></div>`;
    if (!event) return html`<div class="page">${back}<${Problem} error=${error} /><p class="faint">loading…</p></div>`;
    const body = event.event && plain(event.event);
    return html`<div class="page">${back}
      <header class="title"><h1 tabindex="-1">${event.type}</h1><span class="muted"><${Ago} at=${event.emitted_at} /> · <code class="faint">${id}</code></span></header>
      <p class="muted">${event.room}${event.participant && ` · ${event.participant}`} · #${event.sequence} of its stream${body?.utterance ? html` · <a href=${`#/utterances/${encodeURIComponent(event.stream_id)}/${encodeURIComponent(body.utterance.id)}`}>its utterance</a>` : null}</p>
      <${Problem} error=${error} /><p class="notice" role="status">${done}</p>
      ${(delivery?.deliveries || []).map((each) => html`<${Delivery} key=${each.endpoint} of=${each} attempts=${delivery.attempts.filter((one) => one.endpoint === each.endpoint)} act=${this.act} />`)}
      ${delivery && !delivery.deliveries.length && html`<${Empty} title="No delivery">No endpoint gets this event.<//>`}
      <h2>Request</h2>
      ${event.event ? html`<${Request} event=${event} id=${id} endpoint=${endpoint} />` : html`<${Empty} title="Its content is gone">An interim that is over, or removed.<//>`}
    </div>`;
  }
}

function Request({ event, id, endpoint }) {
  return html`${endpoint ? html`<p class="muted small">The body that ${endpoint} gets, with <code>webhook-id: ${id}</code> and a signature over both and the time of sending.</p>` : html`<p class="muted small">As it stands in the log. An endpoint's <code>include</code> may leave parts out.</p>`}
    <pre class="code" tabindex="0" aria-label="The event as JSON">${JSON.stringify(event.event, null, 2)}</pre>`;
}

function Delivery({ of, attempts, act }) {
  const tone = { delivered: "ok", dead: "bad", retrying: "warn", parked: "warn" }[of.state] || "";
  const may = session.about?.may_change;
  return html`<section class="card">
    <header><h2><a href=${`#/deliveries/${encodeURIComponent(of.endpoint)}`}>${of.endpoint}</a></h2><span class=${`pill ${tone}`}>${of.state === "settled" ? "not sent" : of.state}</span>
      <span class="meta">${of.next_attempt ? html`next attempt <${Ago} at=${of.next_attempt} />` : of.reason}</span><span class="spacer"></span>
      ${may && ["dead", "parked", "retrying"].includes(of.state) && html`<button type="button" onClick=${act("retry", of.endpoint)}>Retry</button>`}
      ${may && of.state === "dead" && html`<button type="button" class="danger" onClick=${act("discard", of.endpoint)}>Discard</button>`}</header>
    ${attempts.length ? html`<div class="wide" tabindex="0" role="region" aria-label=${`Attempts to ${of.endpoint}`}><table class="table"><thead><tr><th>Attempt</th><th>When</th><th>Answer</th><th class="num">Time</th></tr></thead>
      <tbody>${attempts.map((each) => html`<tr key=${each.number + each.at}><td>${each.number}</td><td><${Ago} at=${each.at} /></td><td><${Outcome} attempt=${each} />${each.answer && html`<pre class="answer">${each.answer}</pre>`}</td><td class="num">${span(each.elapsed_ms)}</td></tr>`)}</tbody></table></div>` : null}
  </section>`;
}
