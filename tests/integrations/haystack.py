from __future__ import annotations

from typing import Any

from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import create_tool_from_function
from haystack.utils import Secret

from integrations import QUESTION, Answer, weather

__all__ = ["OpenAIChatGenerator", "Secret"]

MESSAGES = [ChatMessage.from_user(QUESTION)]


def ask(model: Any) -> Any:
    return model.run(MESSAGES)["replies"][0].text


async def ask_async(model: Any) -> Any:
    return (await model.run_async(MESSAGES))["replies"][0].text


def stream(model: Any) -> list[str]:
    pieces: list[str] = []
    model.run(MESSAGES, streaming_callback=lambda chunk: pieces.append(chunk.content))
    return pieces


async def stream_async(model: Any) -> list[str]:
    pieces: list[str] = []

    async def collect(chunk: Any) -> None:
        pieces.append(chunk.content)

    await model.run_async(MESSAGES, streaming_callback=collect)
    return pieces


def use_tool(model: Any) -> Any:
    agent = Agent(chat_generator=model, tools=[create_tool_from_function(weather)])
    return agent.run(MESSAGES)["last_message"].text


async def use_tool_async(model: Any) -> Any:
    agent = Agent(chat_generator=model, tools=[create_tool_from_function(weather)])
    return (await agent.run_async(MESSAGES))["last_message"].text


def structure(model: Any) -> Any:
    reply = model.run(MESSAGES, generation_kwargs={"response_format": Answer})["replies"][0]
    return Answer.model_validate_json(reply.text)


async def structure_async(model: Any) -> Any:
    reply = (await model.run_async(MESSAGES, generation_kwargs={"response_format": Answer}))["replies"][0]
    return Answer.model_validate_json(reply.text)
