// A frontend as one writes it with LiveKit's React components: what the agent is doing, and what everyone has said.
// Whatever it shows goes to the test that serves it, in order, over one socket.
import {
  SessionProvider,
  useAgent,
  useParticipants,
  useSession,
  useTranscriptions,
  useVoiceAssistant,
} from "@livekit/components-react";
import { RoomEvent, TokenSource } from "livekit-client";
import { useEffect } from "react";
import { createRoot } from "react-dom/client";

const socket = new WebSocket("/shown");
await new Promise((resolve) => (socket.onopen = resolve));
const tell = (message) => socket.send(JSON.stringify(message));
const fail = (error) => tell({ error: `${error?.stack ?? error}` });
window.onerror = (message) => fail(message);
window.onunhandledrejection = ({ reason }) => fail(reason);

const { serverUrl, participantToken } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
const tokens = TokenSource.literal({ serverUrl, participantToken });

function Call() {
  const session = useSession(tokens);
  useEffect(() => {
    session.room.on(RoomEvent.TranscriptionReceived, (segments, participant) => {
      for (const { id, text, final } of segments) tell({ event: { segment: id, who: participant?.identity, text, final } });
    });
    session.start().catch(fail);
  }, []);
  return (
    <SessionProvider session={session}>
      <Agent />
      <Transcript />
    </SessionProvider>
  );
}

function Agent() {
  return <output data-state={useAgent().state} data-assistant={useVoiceAssistant().state} />;
}

function Transcript() {
  const names = new Map(useParticipants().map(({ identity, name }) => [identity, name]));
  return (
    <ol>
      {useTranscriptions().map(({ text, participantInfo: { identity }, streamInfo: { attributes } }, place) => (
        <li
          key={place}
          data-segment={attributes["lk.segment_id"]}
          data-final={attributes["lk.transcription_final"]}
          data-track={attributes["lk.transcribed_track_id"]}
        >
          <b>{names.get(identity) ?? identity}</b> <q>{text}</q>
        </li>
      ))}
    </ol>
  );
}

const root = document.getElementById("root");
new MutationObserver(() =>
  tell({
    agent: { ...root.querySelector("output").dataset },
    rows: [...root.querySelectorAll("li")].map((row) => ({
      ...row.dataset,
      name: row.querySelector("b").textContent,
      text: row.querySelector("q").textContent,
    })),
  }),
).observe(root, { attributes: true, characterData: true, childList: true, subtree: true });
createRoot(root).render(<Call />);
