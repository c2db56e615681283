"""The documents' table of other libraries, and what the programs of every library share.

Each module of this folder has the programs of one library, and in `__all__` the names that the code of the table uses.
`libraries.py` runs them. A program gets what that code makes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from documents import PAGES
from pydantic import BaseModel

QUESTION = "What is the weather in Lisbon?"
MESSAGES = [{"role": "user", "content": QUESTION}]


class Answer(BaseModel):
    """The structured output that every library asks for."""

    text: str


def weather(city: str) -> str:
    """Tell the weather in a city.

    Args:
        city: The name of the city.
    """
    return f"Sunny in {city}"


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Written(NamedTuple):
    """One row of the table."""

    versions: dict[str, str]
    """The library, the packages that its programs need besides it, and openai, each with its version."""
    code: list[str]
    remarks: str


def written() -> dict[str, Written]:
    """Read the table: the first package of a row -> the row."""
    form = r"(?m)^\| ([\w\[\]-]+ [\d.]+(?:, [\w\[\]-]+ [\d.]+)*) \| ([\d.]+) \| (`.+`) \| (.*) \|$"
    rows = re.findall(form, PAGES["integrations"])
    return {
        packages.split()[0]: Written(
            dict(each.split() for each in f"{packages}, openai {openai}".split(", ")),
            re.findall(r"`(.+?)`", code),
            remarks,
        )
        for packages, openai, code, remarks in rows
    }


WRITTEN = written()
# Distribution name -> the module of this folder with its programs.
LIBRARIES = {
    "openai-agents": "openai_agents",
    "pydantic-ai-slim[openai]": "pydantic_ai",
    "langchain-openai": "langchain",
    "langchain-deepseek": "langchain",
    "langgraph": "langgraph",
    "llama-index-llms-openai-like": "llama_index",
    "smolagents[openai]": "smolagents",
    "agno": "agno",
    "litellm": "litellm",
    "dspy": "dspy",
    "instructor": "instructor",
    "crewai": "crewai",
    "autogen-ext[openai]": "autogen",
    "haystack-ai": "haystack",
    "semantic-kernel": "semantic_kernel",
    "mem0ai": "mem0",
    "outlines": "outlines",
}
