from __future__ import annotations

from typing import Any

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool

from integrations import QUESTION, Answer, weather

__all__ = ["LLM"]


def agent(model: Any, **options: Any) -> Agent:
    return Agent(role="Asker", goal="Answer questions", backstory="You answer.", llm=model, **options)


def ask(model: Any) -> Any:
    return agent(model).kickoff(QUESTION).raw


async def ask_async(model: Any) -> Any:
    return (await agent(model).kickoff_async(QUESTION)).raw


def stream(model: Any) -> list[str]:
    asker = agent(model)
    task = Task(description=QUESTION, expected_output="An answer", agent=asker)
    return [chunk.content for chunk in Crew(agents=[asker], tasks=[task], stream=True).kickoff()]


def use_tool(model: Any) -> Any:
    return agent(model, tools=[tool(weather)]).kickoff(QUESTION).raw


async def use_tool_async(model: Any) -> Any:
    return (await agent(model, tools=[tool(weather)]).kickoff_async(QUESTION)).raw


def structure(model: Any) -> Any:
    return agent(model).kickoff(QUESTION, response_format=Answer).pydantic


async def structure_async(model: Any) -> Any:
    return (await agent(model).kickoff_async(QUESTION, response_format=Answer)).pydantic
