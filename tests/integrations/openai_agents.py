from __future__ import annotations

from typing import Any

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from agents.tracing import flush_traces

from integrations import QUESTION, Answer, weather

__all__ = ["OpenAIChatCompletionsModel", "set_tracing_disabled"]


def ask(model: Any) -> Any:
    answer = Runner.run_sync(Agent(name="Asker", model=model), QUESTION).final_output
    flush_traces()  # tracing would report the run now
    return answer


async def ask_async(model: Any) -> Any:
    return (await Runner.run(Agent(name="Asker", model=model), QUESTION)).final_output


async def stream(model: Any) -> list[str]:
    events = Runner.run_streamed(Agent(name="Asker", model=model), QUESTION).stream_events()
    return [
        event.data.delta
        async for event in events
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]


def use_tool(model: Any) -> Any:
    return Runner.run_sync(Agent(name="Asker", model=model, tools=[function_tool(weather)]), QUESTION).final_output


def structure(model: Any) -> Any:
    return Runner.run_sync(Agent(name="Asker", model=model, output_type=Answer), QUESTION).final_output
