from __future__ import annotations

from typing import Any

from autogen_agentchat.agents import AssistantAgent
from autogen_core.models import UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient

from integrations import QUESTION, Answer, weather

__all__ = ["OpenAIChatCompletionClient"]


async def ask_async(model: Any) -> Any:
    return (await AssistantAgent("asker", model).run(task=QUESTION)).messages[-1].content


async def stream(model: Any) -> list[str]:
    events = AssistantAgent("asker", model, model_client_stream=True).run_stream(task=QUESTION)
    return [event.content async for event in events if getattr(event, "type", "") == "ModelClientStreamingChunkEvent"]


async def use_tool(model: Any) -> Any:
    asker = AssistantAgent("asker", model, tools=[weather], reflect_on_tool_use=True)
    return (await asker.run(task=QUESTION)).messages[-1].content


async def structure(model: Any) -> Any:
    answer = await model.create([UserMessage(content=QUESTION, source="user")], json_output=Answer)
    return Answer.model_validate_json(answer.content)
