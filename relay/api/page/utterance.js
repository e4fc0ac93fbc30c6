// One utterance on one time axis: from the onset of the voice over interims and finals to each endpoint's 2xx.
import { get } from "./api.js";
import { Outcome } from "./attempts.js";
import { Ago, Component, Empty, Poll, Problem, exactly, html, span } from "./lib.js";
import { plain } from "./model.js";
import { roomLink } from "./rooms.js";

const EVERY_MS = 1000;
const AGAIN = 30;

export class UtterancePage extends Component {
  state = { found: null, error: null, tail: false };

  componentDidMount() {
    let times = 0;
    this.poll = new Poll(EVERY_MS, async (signal) => {
      const { stream, id } = this.props;
      try {
        const found = await get(`/v1/streams/${encodeURIComponent(stream)}/utterances/${encodeURIComponent(id)}`, {}, signal);
        this.setState({ found: measured(found), error: null });
        times += 1;
        const over = found.events.some((each) => each.type === "utterance.completed") && found.deliveries.every((each) => !["pending", "retrying", "parked"].includes(each.state));
        return !over && times < AGAIN;
      } catch (error) {
        if (error.name === "AbortError") throw error;
        this.setState({ error });
        return false;
      }
    });
  }
  componentWillUnmount() {
    this.poll.stop();
  }

  render(_props, { found, error, tail }) {
    if (!found) return html`<div class="page"><a class="back always" href="#/rooms">← Rooms</a>${error ? html`<${Empty} title="Not in the log"><${Problem} error=${error} /><//>` : html`<p class="faint">loading…</p>`}</div>`;
    const from = tail && found.spokenUntil !== null ? found.spokenUntil - 50 : found.from;
    const scale = { from, to: Math.max(found.to, from + 100) };
    return html`<div class="page">
      <a class="back always" href=${roomLink(found.room)}>← ${found.room}</a>
      <header class="title"><h1 tabindex="-1">${found.name}</h1><span class="muted"><${Ago} at=${found.from} /> · <code class="faint">${found.id}</code></span></header>
      <blockquote>${found.text || html`<span class="faint">No text${found.completed ? "" : " yet"}.</span>`}</blockquote>
      <h2>Where the time went</h2>
      <${Summary} found=${found} />
      <div class="toolbar"><h2>Time axis</h2><span class="spacer"></span>
        <div class="choice" role="group" aria-label="Part shown">
          <button type="button" aria-pressed=${String(!tail)} onClick=${() => this.setState({ tail: false })}>Whole utterance</button>
          <button type="button" aria-pressed=${String(tail)} disabled=${found.spokenUntil === null} onClick=${() => this.setState({ tail: true })}>From the end of speech</button>
        </div></div>
      <p class="legend" aria-hidden="true"><span><i class="speech"></i>voice</span><span><i class="detect"></i>detector</span><span><i class="append"></i>relay</span><span><i class="wait"></i>waits</span><span><i class="good"></i>request, 2xx</span><span><i class="bad"></i>request, failed</span></p>
      <div class="waterfall">
        <${Axis} scale=${scale} from=${found.from} />
        ${found.spokenFrom !== null && html`<${Track} label="voice" scale=${scale} parts=${[["speech", found.spokenFrom, found.spokenUntil ?? found.to, "voice"]]} note=${found.spokenUntil === null ? "" : span(found.spokenUntil - found.spokenFrom)} />`}
        ${found.steps.map((step) => html`<${Step} key=${step.id} step=${step} scale=${scale} />`)}
      </div>
    </div>`;
  }
}

// The answer of /v1 with every time in milliseconds.
function measured(answer) {
  const steps = answer.events.map((logged) => {
    const event = logged.event && plain(logged.event);
    const emitted = Date.parse(logged.emitted_at);
    const detected = event ? Date.parse(event.timing.detected_at) : emitted;
    const occurred = event?.timing.occurred_at ? Date.parse(event.timing.occurred_at) : null;
    const tries = answer.attempts.filter((each) => each.event_id === logged.id).map((each) => ({ ...each, from: Date.parse(each.at), to: Date.parse(each.at) + each.elapsed_ms }));
    const deliveries = answer.deliveries.filter((each) => each.event_id === logged.id);
    const to = Math.max(emitted, ...tries.map((each) => each.to));
    return { id: logged.id, type: logged.type, event, emitted, detected, occurred, tries, deliveries, to };
  });
  const times = (type) => steps.filter((each) => each.type === type && each.occurred !== null).map((each) => each.occurred);
  const spokenFrom = [...times("speech.started"), ...times("vad.speech_started")].sort((a, b) => a - b)[0] ?? null;
  const spokenUntil = times("speech.ended").at(-1) ?? times("utterance.completed").at(-1) ?? null;
  const completed = steps.filter((each) => each.type === "utterance.completed" && each.event).at(-1);
  const finals = steps.filter((each) => each.type === "transcript.final" && each.event);
  const interim = steps.filter((each) => each.type === "transcript.interim" && each.event).at(-1);
  const name = steps.find((each) => each.event)?.event.participant?.name;
  return {
    ...answer,
    steps,
    spokenFrom,
    spokenUntil,
    completed,
    name: name || answer.participant,
    text: completed?.event.data.text ?? (finals.map((each) => each.event.data.text).join(" ") || interim?.event.data.text),
    endpoints: [...new Set(answer.deliveries.map((each) => each.endpoint))],
    from: Math.min(spokenFrom ?? Infinity, ...steps.map((each) => each.occurred ?? each.detected)),
    to: Math.max(...steps.map((each) => each.to)),
  };
}

const TELLING = ["speech.started", "transcript.interim", "transcript.final", "speech.ended", "utterance.completed"];

// Of each kind of event the one that tells most: the first onset, interim and end, the last final and record.
function Summary({ found }) {
  const rows = TELLING.map((type) => {
    const of = found.steps.filter((each) => each.type === type);
    return type === "transcript.final" || type === "utterance.completed" ? of.at(-1) : of[0];
  }).filter(Boolean);
  return html`<div class="wide" tabindex="0" role="region" aria-label="Where the time went"><table class="table summary">
    <thead><tr><th>Event</th><th class="num">Detector</th><th class="num">Relay</th>${found.endpoints.map((name) => html`<th class="num" key=${name}>${name}</th>`)}<th class="num">In all</th></tr></thead>
    <tbody>${rows.map((step) => {
      const parts = [step.occurred === null ? null : step.detected - step.occurred, step.emitted - step.detected];
      for (const name of found.endpoints) {
        const ok = step.tries.find((each) => each.endpoint === name && each.stage === "ok");
        parts.push(ok ? ok.to - step.emitted : (step.deliveries.find((each) => each.endpoint === name)?.state ?? null));
      }
      const numbers = parts.filter((each) => typeof each === "number");
      const most = Math.max(...numbers);
      const until = Math.max(step.emitted, ...step.tries.filter((each) => each.stage === "ok").map((each) => each.to));
      const all = until - (step.occurred ?? step.detected);
      return html`<tr key=${step.id}><td>${step.type}</td>${parts.map((each, n) => html`<td key=${n} class=${`num ${each === most && most > 20 ? "most" : ""}`}>${typeof each === "number" ? span(Math.max(0, each)) : html`<span class="faint">${each === "settled" ? "not sent" : (each ?? "–")}</span>`}</td>`)}<td class="num strong">${span(all)}</td></tr>`;
    })}</tbody></table></div>
    <p class="muted small">Detector: from when it happened to when it was noticed. Relay: until it is in the log. Then for each endpoint, until its 2xx. In all: until the last 2xx. The longest part of each row is marked.</p>`;
}

const place = (scale, at) => Math.min(100, Math.max(0, ((at - scale.from) / (scale.to - scale.from)) * 100));

function Axis({ scale, from }) {
  const total = scale.to - scale.from;
  const step = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 300_000].find((each) => total / each <= 6) ?? 600_000;
  const ticks = [];
  for (let at = Math.ceil((scale.from - from) / step) * step; from + at < scale.to; at += step) ticks.push(at);
  return html`<div class="track axis" aria-hidden="true"><span></span><div class="bar">${ticks.map((at) => html`<span key=${at} class="tick" style=${{ left: `${place(scale, from + at)}%` }}>${at === 0 ? "0" : `${at < 0 ? "−" : "+"}${span(Math.abs(at))}`}</span>`)}</div><span></span></div>`;
}

function Track({ label, href, scale, parts, note, sub }) {
  const shown = parts.filter(([, from, to]) => to >= scale.from && from <= scale.to);
  return html`<div class=${`track ${sub ? "sub" : ""}`}>
    <span class="label">${href ? html`<a href=${href}>${label}</a>` : label}</span>
    <div class="bar">${shown.map(([kind, from, to, what], n) => html`<span key=${n} class=${`part ${kind}`} title=${`${what}: ${exactly(from)}, ${span(to - from)}`} style=${{ left: `${place(scale, from)}%`, width: `${Math.max(0, place(scale, to) - place(scale, from))}%` }}></span>`)}</div>
    <span class="note">${note}</span>
  </div>`;
}

function Step({ step, scale }) {
  const parts = [["append", step.detected, step.emitted, "relay"]];
  if (step.occurred !== null) parts.unshift(["detect", step.occurred, step.detected, "detector"]);
  const text = step.event?.data.text;
  return html`<${Track} label=${step.type} href=${`#/events/${encodeURIComponent(step.id)}`} scale=${scale} parts=${parts} note=${text ?? ""} />
    ${step.deliveries.map((delivery) => {
      const tries = step.tries.filter((each) => each.endpoint === delivery.endpoint);
      if (!tries.length && delivery.state === "settled") return null;
      const requests = [];
      let before = step.emitted;
      for (const each of tries) {
        requests.push(["wait", before, each.from, "waits"], [each.stage === "ok" ? "good" : "bad", each.from, each.to, `attempt ${each.number}`]);
        before = each.to;
      }
      const last = tries.at(-1);
      return html`<${Track} key=${delivery.endpoint} sub label=${delivery.endpoint} href=${`#/events/${encodeURIComponent(step.id)}/${encodeURIComponent(delivery.endpoint)}`} scale=${scale} parts=${requests}
        note=${last ? html`<${Outcome} attempt=${last} /> ${span(last.to - step.emitted)}` : delivery.state} />`;
    })}`;
}
