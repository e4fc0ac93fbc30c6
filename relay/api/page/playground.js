// Joins a room with this browser's microphone. LiveKit's client is loaded only here.
import { get, post } from "./api.js";
import { Outcome, eventLink } from "./attempts.js";
import { feed } from "./feed.js";
import { Ago, Component, Empty, Poll, Problem, createRef, html, span } from "./lib.js";
import { plain } from "./model.js";
import { RoomPage } from "./rooms.js";

const CLIENT = "/page/vendor/livekit-client.js";
const MOST_EVENTS = 500;

let loading;
function client() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = CLIENT;
    script.onload = () => resolve(window.LivekitClient);
    script.onerror = () => reject(new Error("LiveKit's client cannot be loaded."));
    document.head.append(script);
  });
  return loading;
}

const WHY = {
  NotAllowedError: "The browser does not let this page use the microphone.",
  NotFoundError: "This browser has no microphone.",
};

export class PlaygroundPage extends Component {
  state = { phase: "out", error: null, pass: null, muted: false };
  meter = createRef();

  componentWillUnmount() {
    this.gone = true;
    this.leave();
  }

  join = async (event) => {
    event.preventDefault();
    const name = new FormData(event.target).get("room").trim();
    this.setState({ phase: "joining", error: null });
    try {
      const pass = await post("/v1/playground/join", { room: name });
      const { Room, RoomEvent } = await client();
      if (this.gone) return; // one went to another view meanwhile
      const call = new Room();
      this.call = call;
      call.on(RoomEvent.Disconnected, (reason) => this.call === call && this.left(reason));
      await call.connect(pass.url, pass.token, { autoSubscribe: false });
      this.setState({ pass });
      await call.localParticipant.setMicrophoneEnabled(true);
      this.setState({ phase: "in", muted: false });
      this.listen();
    } catch (error) {
      await this.leave();
      const detail = WHY[error.name] || error.detail || `The room cannot be joined: ${error.message}`;
      this.setState({ phase: "out", error: { detail } });
    }
  };

  // Shows how loud it is: a silent microphone explains why nothing is heard.
  listen() {
    const track = this.call?.localParticipant.audioTrackPublications.values().next().value?.track;
    if (!track) return;
    this.audio = new AudioContext();
    const analyser = this.audio.createAnalyser();
    this.audio.createMediaStreamSource(new MediaStream([track.mediaStreamTrack])).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    const measure = () => {
      if (!this.audio) return;
      analyser.getFloatTimeDomainData(samples);
      const loud = Math.sqrt(samples.reduce((sum, each) => sum + each * each, 0) / samples.length);
      if (this.meter.current) this.meter.current.value = Math.min(1, loud * 6);
      requestAnimationFrame(measure);
    };
    measure();
  }

  mute = async () => {
    const muted = !this.state.muted;
    await this.call.localParticipant.setMicrophoneEnabled(!muted);
    this.setState({ muted });
  };

  leave = async () => {
    const call = this.call;
    this.call = null;
    this.audio?.close();
    this.audio = null;
    if (this.state.phase === "in") this.setState({ phase: "out" });
    await call?.disconnect();
  };

  left() {
    this.leave();
    this.setState({ error: { detail: "The connection to the LiveKit server has ended." } });
  }

  render(_props, { phase, error, pass, muted }) {
    return html`<div class="page playground">
      <header class="title"><h1 tabindex="-1">Playground</h1></header>
      <${Problem} error=${error} />
      ${phase === "in"
        ? html`<div class="facts"><span><span class=${`dot ${muted ? "" : "speaking"}`}></span> In <strong>${pass.room}</strong> as ${pass.identity}</span>
            <label class="meter">Microphone <meter ref=${this.meter} min="0" max="1" value="0"></meter></label><span class="spacer"></span>
            <button type="button" aria-pressed=${String(muted)} onClick=${this.mute}>Mute</button><button type="button" class="danger" onClick=${this.leave}>Leave</button></div>
          ${!pass.heard && html`<p class="problem">The relay does not listen in this room: <code>capture.rooms</code> does not include it.</p>`}`
        : html`<form class="card join" onSubmit=${this.join}>
            <p>Join a room of your LiveKit server with this browser's microphone, speak, and see what the relay makes of it: your speech, its text, and each webhook.</p>
            <label>Room <span class="prefix"><code>playground-</code><input name="room" placeholder="something new" pattern="[a-z0-9\\-]*" maxlength="32" autocomplete="off" /></span></label>
            <button type="submit" class="primary" disabled=${phase === "joining"}>${phase === "joining" ? "Joining…" : "Join and speak"}</button>
          </form>`}
      ${pass && html`<${RoomPage} key=${pass.room} name=${pass.room} inside /><${Webhooks} key=${`w${pass.room}`} room=${pass.room} />`}
    </div>`;
  }
}

class Webhooks extends Component {
  state = { found: [] };
  ids = new Set();

  componentDidMount() {
    this.take = (raw) => {
      const event = plain(raw);
      if (event.room?.name !== this.props.room) return;
      this.ids.add(event.id);
      if (this.ids.size > MOST_EVENTS) this.ids.delete(this.ids.values().next().value);
    };
    feed.listeners.add(this.take);
    this.poll = new Poll(700, async (signal) => {
      const { attempts } = await get("/v1/attempts", { limit: 100 }, signal);
      this.setState({ found: attempts.filter((each) => this.ids.has(each.event_id)).slice(0, 40) });
    });
  }
  componentWillUnmount() {
    feed.listeners.delete(this.take);
    this.poll.stop();
  }

  render(_props, { found }) {
    return html`<section class="said" aria-label="Webhooks"><h2>Webhooks</h2>
      ${!found.length && html`<${Empty} title="No webhook yet">Say something: each request to an endpoint shows here.<//>`}
      ${found.length ? html`<div class="wide"><table class="table"><thead><tr><th>When</th><th>Event</th><th>Endpoint</th><th>Answer</th><th class="num">Time</th></tr></thead>
        <tbody>${found.map((each) => html`<tr key=${each.event_id + each.endpoint + each.number}><td><${Ago} at=${each.at} /></td><td><a href=${eventLink(each)}>${each.type}</a></td><td>${each.endpoint}</td><td><${Outcome} attempt=${each} /></td><td class="num">${span(each.elapsed_ms)}</td></tr>`)}</tbody></table></div>` : null}
    </section>`;
  }
}
