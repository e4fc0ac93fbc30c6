"""A voice agent whose users' speech also goes out as signed webhooks.

pip install '.[openai]'    # in a clone of speech-relay
speech-relay init          # writes config.yaml: where to send, and what
export LIVEKIT_URL=… LIVEKIT_API_KEY=… LIVEKIT_API_SECRET=… DEEPGRAM_API_KEY=… OPENAI_API_KEY=…
python voice_agent.py dev
"""

from typing import Any

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, llm, stt, tts, vad
from livekit.plugins import deepgram, openai, silero

from relay import SpeechRelay

server = AgentServer()


class Assistant(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="You are a friendly assistant. Answer in one or two short sentences.")

    async def on_enter(self) -> None:
        await self.session.say("Hello! How can I help you?")


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    await converse(
        ctx,
        vad=silero.VAD.load(),
        stt=deepgram.STT(model="nova-3"),
        llm=openai.LLM(model="gpt-4.1-mini"),
        tts=openai.TTS(voice="ash"),
    )


async def converse(ctx: JobContext, *, vad: vad.VAD, stt: stt.STT[Any], llm: llm.LLM[Any], tts: tts.TTS[Any]) -> None:
    relay = SpeechRelay("config.yaml")
    session: AgentSession[None] = AgentSession(
        vad=relay.vad(vad),
        stt=relay.stt(stt),
        llm=llm,
        tts=tts,
        turn_handling={"turn_detection": "vad"},
    )
    relay.attach(session, ctx)
    await session.start(Assistant(), room=ctx.room)


if __name__ == "__main__":
    cli.run_app(server)
