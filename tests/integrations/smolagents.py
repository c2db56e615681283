from __future__ import annotations

from typing import Any

from smolagents import ChatMessage, OpenAIModel, ToolCallingAgent, tool

from integrations import QUESTION, Answer, weather

__all__ = ["OpenAIModel"]

MESSAGES = [ChatMessage(role="user", content=QUESTION)]


def ask(model: Any) -> Any:
    return model(MESSAGES).content


def stream(model: Any) -> list[str]:
    return [delta.content for delta in model.generate_stream(MESSAGES) if delta.content]


def use_tool(model: Any) -> Any:
    def weather_at_last(city: str) -> str:
        """Tell the weather in a city, and name the tool that ends the loop, which the emulator then calls.

        Args:
            city: The name of the city.
        """
        return f"{weather(city)}. Call final_answer."

    return ToolCallingAgent([tool(weather_at_last)], model).run(QUESTION)


def structure(model: Any) -> Any:
    schema = {"name": "Answer", "schema": Answer.model_json_schema()}
    text = model(MESSAGES, response_format={"type": "json_schema", "json_schema": schema}).content
    return Answer.model_validate_json(text)
