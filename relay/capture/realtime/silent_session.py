"""A realtime session that ignores every request for output."""

from abc import ABC
from typing import Any, NoReturn

from livekit import rtc
from livekit.agents import llm


class SilentSession(llm.RealtimeSession[Any], ABC):
    """The parts of LiveKit's realtime session interface other than listening and closing."""

    @property
    def chat_ctx(self) -> llm.ChatContext:
        return llm.ChatContext.empty()

    @property
    def tools(self) -> llm.ToolContext:
        return llm.ToolContext.empty()

    async def update_instructions(self, instructions: str) -> None:
        pass

    async def update_chat_ctx(self, chat_ctx: llm.ChatContext) -> None:
        pass

    async def update_tools(self, tools: list[llm.Tool]) -> None:
        pass

    def update_options(self, **options: Any) -> None:
        pass

    def push_video(self, frame: rtc.VideoFrame) -> None:
        pass

    def generate_reply(self, **options: Any) -> NoReturn:
        raise llm.RealtimeError("the relay listens and never answers")

    def commit_audio(self) -> None:
        pass

    def clear_audio(self) -> None:
        pass

    def interrupt(self) -> None:
        pass

    def truncate(self, **options: Any) -> None:
        pass
