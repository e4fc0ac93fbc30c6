// What an operator may do with an endpoint: enable, disable, and send a time range again.
import { post } from "./api.js";
import { Component, Problem, count, createRef, html, now, span } from "./lib.js";

export class EndpointActions extends Component {
  state = { error: null, found: null, done: null };
  dialog = createRef();

  set = (what) => async () => {
    try {
      await post(`/v1/endpoints/${encodeURIComponent(this.props.endpoint.name)}/${what}`, {});
      this.setState({ error: null });
    } catch (error) {
      this.setState({ error });
    }
    this.props.changed();
  };

  ping = async () => {
    this.setState({ error: null, pinged: "Waiting for the answer…" });
    try {
      const result = await post(`/v1/endpoints/${encodeURIComponent(this.props.endpoint.name)}/ping`, {});
      this.setState({ pinged: result.taken ? `It answered ${result.status} after ${span(result.elapsed_ms)}.` : `Not taken: ${result.reason}` });
    } catch (error) {
      this.setState({ error, pinged: null });
    }
  };

  open = () => {
    this.setState({ error: null, found: null, done: null });
    this.dialog.current.showModal();
  };

  resend = (dry) => async (event) => {
    event.preventDefault();
    const form = new FormData(this.dialog.current.querySelector("form"));
    const order = {
      since: new Date(now() - Number(form.get("minutes")) * 60_000).toISOString(),
      type: form.get("type") || "*",
      room: form.get("room") || "*",
      dry_run: dry,
    };
    try {
      const result = await post(`/v1/endpoints/${encodeURIComponent(this.props.endpoint.name)}/resend`, order);
      this.setState({ error: null, found: dry ? result : null, done: dry ? null : result });
    } catch (error) {
      this.setState({ error, found: null });
    }
    this.props.changed();
  };

  render({ endpoint }, { error, found, done, pinged }) {
    const off = endpoint.state === "disabled";
    const changed = () => this.setState({ found: null, done: null });
    return html`<div class="buttons"><span class="muted" role="status">${pinged}</span>
      <button type="button" onClick=${this.ping}>Ping</button>
      <button type="button" onClick=${this.open}>Resend…</button>
      <button type="button" class=${off ? "" : "danger"} onClick=${this.set(off ? "enable" : "disable")}>${off ? "Enable" : "Disable"}</button>
      ${!this.dialog.current?.open && html`<${Problem} error=${error} />`}
      <dialog ref=${this.dialog} aria-label="Resend">
        <form onSubmit=${this.resend(true)} onInput=${changed}>
          <h2>Send again to ${endpoint.name}</h2>
          <p class="muted">What was delivered goes out once more: the same ids and bytes, in order, with <code>relay-resend: true</code>.</p>
          <label>Of the last <select name="minutes"><option value="15">15 minutes</option><option value="60">hour</option><option value="1440">day</option><option value="10080">week</option></select></label>
          <label>Types <input name="type" placeholder="*" maxlength="256" /></label>
          <label>Rooms <input name="room" placeholder="*" maxlength="256" /></label>
          <${Problem} error=${error} />
          <p class="notice" role="status">${found && `${count(found.events)} events of ${count(found.streams)} streams.`}${done && `${count(done.events)} events are sent again.`}</p>
          <div class="buttons">
            <button type="button" onClick=${() => this.dialog.current.close()}>Close</button>
            <button type="submit">Count</button>
            <button type="button" class="primary" disabled=${!found?.events} onClick=${this.resend(false)}>Resend</button>
          </div>
        </form>
      </dialog>
    </div>`;
  }
}
