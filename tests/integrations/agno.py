from __future__ import annotations

from typing import Any

from agno.agent import Agent
from agno.models.openai import OpenAIChat

from integrations import QUESTION, Answer, weather

__all__ = ["OpenAIChat"]


def ask(model: Any) -> Any:
    return Agent(model=model).run(QUESTION).content


async def ask_async(model: Any) -> Any:
    return (await Agent(model=model).arun(QUESTION)).content


def stream(model: Any) -> list[str]:
    return [event.content for event in Agent(model=model).run(QUESTION, stream=True) if event.content]


async def stream_async(model: Any) -> list[str]:
    return [event.content async for event in Agent(model=model).arun(QUESTION, stream=True) if event.content]


def use_tool(model: Any) -> Any:
    return Agent(model=model, tools=[weather]).run(QUESTION).content


async def use_tool_async(model: Any) -> Any:
    return (await Agent(model=model, tools=[weather]).arun(QUESTION)).content


def structure(model: Any) -> Any:
    return Agent(model=model, output_schema=Answer).run(QUESTION).content


async def structure_async(model: Any) -> Any:
    return (await Agent(model=model, output_schema=Answer).arun(QUESTION)).content
