"""README and the pages of the documents, as the tests read them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {path.stem: path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
"""Name of a page -> its text."""
DOCUMENTS = {"README": README, **PAGES}


def section(text: str, heading: str) -> str:
    """Give the text below a heading of the second level."""
    (found,) = re.findall(rf"(?ms)^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text)
    return str(found)


def tables(text: str) -> list[list[list[str]]]:
    """Give the tables of a text: the rows of each without its header, and the cells of each row."""
    return [
        [re.split(r" ?\| ?", row)[1:-1] for row in table.splitlines()[2:]]
        for table in re.findall(r"(?m)(?:^\|.+\n)+", f"{text}\n")
    ]


def blocks(text: str) -> list[tuple[str, str]]:
    """Give the language and the content of each fenced block."""
    return re.findall(r"(?ms)^```(\S*)[^\n]*\n(.*?)^```$", text)


def prose(text: str) -> str:
    """Give a text without its fenced blocks."""
    return re.sub(r"(?ms)^```.*?^```$", "", text)


def file_name(code: str) -> str | None:
    """Give the name of the file that a snippet is, which its first line says in a comment."""
    named = re.match(r"# (\w+\.py)\n", code)
    return named.group(1) if named else None
