// The attempts of an endpoint, newest first.
import { get } from "./api.js";
import { Ago, Component, Empty, Poll, Problem, html, span } from "./lib.js";

const PAGE = 50;
const EVERY_MS = 2500;

export const eventLink = (attempt) => `#/events/${encodeURIComponent(attempt.event_id)}/${encodeURIComponent(attempt.endpoint)}`;

export const Outcome = ({ attempt }) =>
  html`<span class=${`pill ${attempt.stage === "ok" ? "ok" : "bad"}`}>${attempt.status ?? attempt.stage}</span>${attempt.stage !== "ok" && attempt.status ? html` <span class="meta">${attempt.stage}</span>` : null}`;

export class AttemptTable extends Component {
  state = { found: null, next: null, error: null, outcome: "" };

  componentDidMount() {
    this.poll = new Poll(EVERY_MS, async (signal) => {
      if (this.state.found?.length > PAGE) return; // one looks at older ones: let them stand
      await this.load(null, signal);
    });
  }
  componentWillUnmount() {
    this.poll.stop();
  }
  async load(cursor, signal) {
    const { endpoint } = this.props;
    try {
      const page = await get("/v1/attempts", { endpoint, outcome: this.state.outcome, limit: PAGE, cursor }, signal);
      this.setState({ found: cursor ? [...this.state.found, ...page.attempts] : page.attempts, next: page.next, error: null });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      this.setState({ error });
    }
  }
  choose = (event) => this.setState({ outcome: event.target.value, found: null }, () => this.load(null));

  render(_props, { found, next, error, outcome }) {
    return html`<section>
      <div class="toolbar"><label>Show <select value=${outcome} onChange=${this.choose}><option value="">all attempts</option><option value="failed">failed ones</option><option value="ok">successful ones</option></select></label></div>
      <${Problem} error=${error} />
      ${found && !found.length && !next && html`<${Empty} title="No attempt yet">Each request to this endpoint is listed here, with its answer and the time it took.<//>`}
      ${found?.length ? html`<div class="wide"><table class="table">
        <thead><tr><th>When</th><th>Event</th><th>Answer</th><th class="num">Time</th><th class="num">Attempt</th></tr></thead>
        <tbody>${found.map((each) => html`<tr key=${`${each.at}${each.event_id}${each.number}`}>
          <td><${Ago} at=${each.at} /></td><td><a href=${eventLink(each)}>${each.type}</a></td>
          <td><${Outcome} attempt=${each} /></td><td class="num">${span(each.elapsed_ms)}</td><td class="num">${each.number}</td></tr>`)}</tbody>
      </table></div>` : null}
      ${next && html`<button type="button" class="more" onClick=${() => this.load(next)}>Older</button>`}
    </section>`;
  }
}
