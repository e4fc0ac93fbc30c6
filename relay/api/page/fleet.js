// The relay's processes, where there is more than one: what each does, and what is wrong with it.
import { get, session } from "./api.js";
import { Ago, Component, Poll, html } from "./lib.js";

const EVERY_MS = 5000;
const TONES = { ready: "ok", starting: "warn", "not ready": "warn", lost: "bad" };
const NAMES = { run: "relay", worker: "worker", dispatch: "dispatcher" };

export class FleetPanel extends Component {
  state = { fleet: null };

  componentDidMount() {
    if (session.about.endpoint || session.scope) return; // the processes are for operators
    this.poll = new Poll(EVERY_MS, async (signal) => this.setState({ fleet: await get("/v1/status", {}, signal) }));
  }

  componentWillUnmount() {
    this.poll?.stop();
  }

  render(_props, { fleet }) {
    const running = fleet ? fleet.processes.filter((each) => each.state !== "lost") : [];
    const alone = running.length === 1 && running[0].role === "run";
    if (!fleet || fleet.processes.length < 2 || alone) return null;
    const versions = new Set(running.map((each) => each.version));
    const mine = (id) => Object.keys(fleet.duties).filter((duty) => fleet.duties[duty] === id);
    return html`<section class="fleet" aria-label="Processes">
      <h2>Processes</h2>
      ${versions.size > 1 && html`<p><span class="pill warn">versions ${[...versions].sort().join(", ")}</span></p>`}
      <ul>${fleet.processes.map((each) => html`<${Process} key=${each.id} process=${each} duties=${mine(each.id)} />`)}</ul>
    </section>`;
  }
}

function Process({ process, duties }) {
  const does = [];
  if (process.role !== "dispatch") does.push(`${process.jobs} rooms`, `load ${Math.round(process.cpu_load * 100)} %`);
  if (process.role !== "worker") does.push(`${process.lanes} lanes`);
  const wrong = process.state === "lost" ? html`last seen <${Ago} at=${process.seen_at} />` : process.waits_for;
  return html`<li title=${`process ${process.pid}, version ${process.version}`}>
    <span class=${`dot ${TONES[process.state]}`}></span>
    <div>
      <strong>${NAMES[process.role]} ${process.host.split(" ")[0]}</strong> <span class="muted">${process.state}</span>
      <div class="muted">${[...does, ...duties].join(" · ")}</div>
      ${wrong && html`<div>${wrong}</div>`}
    </div>
  </li>`;
}
