from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI

from integrations import QUESTION, Answer, weather

__all__ = ["ChatOpenAI"]

MESSAGES = {"messages": [("user", QUESTION)]}


def ask(model: Any) -> Any:
    return create_agent(model).invoke(MESSAGES)["messages"][-1].content


async def ask_async(model: Any) -> Any:
    return (await create_agent(model).ainvoke(MESSAGES))["messages"][-1].content


def stream(model: Any) -> list[str]:
    pieces = create_agent(model).stream(MESSAGES, stream_mode="messages")
    return [message.content for message, _ in pieces if message.content]


async def stream_async(model: Any) -> list[str]:
    pieces = create_agent(model).astream(MESSAGES, stream_mode="messages")
    return [message.content async for message, _ in pieces if message.content]


def use_tool(model: Any) -> Any:
    return create_agent(model, [weather]).invoke(MESSAGES)["messages"][-1].content


async def use_tool_async(model: Any) -> Any:
    return (await create_agent(model, [weather]).ainvoke(MESSAGES))["messages"][-1].content


def structure(model: Any) -> Any:
    return create_agent(model, response_format=Answer).invoke(MESSAGES)["structured_response"]


async def structure_async(model: Any) -> Any:
    return (await create_agent(model, response_format=Answer).ainvoke(MESSAGES))["structured_response"]
