"""A voice agent with a realtime model, whose users' speech also goes out as signed webhooks.

pip install '.[openai]'    # in a clone of speech-relay
speech-relay init          # writes config.yaml: where to send, and what
export LIVEKIT_URL=… LIVEKIT_API_KEY=… LIVEKIT_API_SECRET=… OPENAI_API_KEY=…
python realtime_agent.py dev
"""

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, llm
from livekit.plugins import openai

from relay import SpeechRelay

server = AgentServer()


class Assistant(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="You are a friendly assistant. Answer in one or two short sentences.")


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    await converse(ctx, openai.realtime.RealtimeModel(voice="marin"))


async def converse(ctx: JobContext, model: llm.RealtimeModel) -> None:
    relay = SpeechRelay("config.yaml")
    session: AgentSession[None] = AgentSession(
        llm=relay.realtime(model),
        vad=None,
        turn_handling={"turn_detection": "realtime_llm"},
    )
    relay.attach(session, ctx)
    await session.start(Assistant(), room=ctx.room)


if __name__ == "__main__":
    cli.run_app(server)
