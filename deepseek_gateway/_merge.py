"""Chunks of a chat stream that have already arrived, handed on as one, so that the SDK builds fewer objects."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Parts: TypeAlias = tuple[dict[str, Any], dict[str, Any], str, str]  # chunk, where its text belongs, its name, the text
_END_OF_EVENT = re.compile(rb"(\r?\n\r?\n)")
_CHUNK = {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
_CHOICE = {"index", "delta", "finish_reason", "logprobs"}


def _without_text(event: bytes) -> Parts | None:
    """Take the text out of a chunk, if the chunk holds nothing else of its own."""
    if not event.startswith(b"data: {") or b"\\ud" in event.lower():  # half a character may be escaped
        return None
    try:
        chunk = json.loads(event[5:])
        (choice,) = chunk["choices"]
        holder: dict[str, Any] = choice["delta"]
        (name,) = (key for key, value in holder.items() if value)
        plain = name in {"content", "reasoning_content"}
        if name == "tool_calls":
            (call,) = holder[name]
            holder, name = call["function"], "arguments"
            plain = call.keys() <= {"index", "function"} and holder.keys() == {name}
        nothing = (chunk.get("usage"), choice.get("finish_reason"), choice.get("logprobs")) == (None, None, None)
        known = chunk.keys() <= _CHUNK and choice.keys() <= _CHOICE
        return (chunk, holder, name, "" + holder.pop(name)) if plain and nothing and known else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


class MergedChunks:
    """Puts consecutive chunks of one network read together if they differ in their text alone.

    All other events pass as the same bytes. An event is passed on when it is whole.
    """

    def __init__(self) -> None:
        self._begun = b""

    def feed(self, data: bytes, *, last: bool) -> bytes:
        """Give the events that are whole. What has only begun is kept, unless this is the last of the stream."""
        *parts, self._begun = _END_OF_EVENT.split(self._begun + data)
        merged = b"".join(self._merged(zip(parts[::2], parts[1::2], strict=True)))
        if last:
            merged, self._begun = merged + self._begun, b""
        return merged

    def _merged(self, events: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
        held, texts, before = b"", [""], None
        for event, end in events:
            if (parts := _without_text(event)) and before and parts[:3] == before[:3]:
                texts.append(parts[3])
                continue
            yield _joined(before, texts) if before and texts[1:] else held
            held, texts, before = event + end, [parts[3]] if parts else [], parts
        yield _joined(before, texts) if before and texts[1:] else held


def _joined(parts: Parts, texts: list[str]) -> bytes:
    parts[1][parts[2]] = "".join(texts)
    return b"data: %s\n\n" % json.dumps(parts[0], ensure_ascii=False, separators=(",", ":")).encode()
