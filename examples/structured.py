"""Get an answer as a pydantic object: `python structured.py "Wendy and Sam meet for lunch on Friday."`."""

import sys

import openai
import pydantic

from deepseek_gateway import create_client


class Event(pydantic.BaseModel):
    """What the answer must hold."""

    name: str
    day: str
    people: list[str] = pydantic.Field(description="first names, in the order of the text")


def event_in(client: openai.OpenAI, text: str, tries: int = 3) -> Event:
    """Read an event from a text. DeepSeek is asked for the schema but not bound by it, so ask again if it is broken."""
    messages = [{"role": "system", "content": "Extract the event."}, {"role": "user", "content": text}]
    for _ in range(tries):
        try:
            completion = client.chat.completions.parse(model="deepseek-flash", messages=messages, response_format=Event)
        except pydantic.ValidationError as error:
            messages = [*messages[:2], {"role": "user", "content": f"Your last answer was wrong. {error}"}]
        else:
            return completion.choices[0].message.parsed
    raise RuntimeError(f"No answer held an event in {tries} tries.")


if __name__ == "__main__":
    with create_client() as client:
        print(event_in(client, sys.argv[1]).model_dump_json(indent=2))
