"""Let the model call Python functions until it has an answer: `python tools.py "Is it warmer in Paris or in Rome?"`."""

import json
import sys
from collections.abc import Callable

import openai

from deepseek_gateway import create_client


def get_temperature(city: str) -> str:
    """Stand in for a weather service."""
    return json.dumps({"city": city, "celsius": 10 + len(city)})


FUNCTIONS: dict[str, Callable[..., str]] = {"get_temperature": get_temperature}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "get_temperature", "description": "The temperature in a city", "parameters": CITY},
    }
]


def result_of(call: object) -> str:
    """Call a function as the model asks. What goes wrong is told to the model, which can correct itself."""
    try:
        return FUNCTIONS[call.function.name](**json.loads(call.function.arguments))
    except (KeyError, TypeError, ValueError) as error:
        return f"Error: {error!r}"


def answer(client: openai.OpenAI, question: str, rounds: int = 8) -> str:
    """Ask, call what the model wants to be called, and ask again with the results."""
    messages = [{"role": "user", "content": question}]
    for _ in range(rounds):
        completion = client.chat.completions.create(model="deepseek-flash", messages=messages, tools=TOOLS)
        message = completion.choices[0].message
        if not message.tool_calls:
            return message.content
        messages.append(message)  # whole, because DeepSeek wants its `reasoning_content` back
        messages += [
            {"role": "tool", "tool_call_id": call.id, "content": result_of(call)} for call in message.tool_calls
        ]
    raise RuntimeError(f"There was no answer after {rounds} rounds of calls.")


if __name__ == "__main__":
    with create_client() as client:
        print(answer(client, sys.argv[1]))
