"""Chunks of a chat stream that have already arrived, handed on as one, so that the SDK builds fewer objects."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

_CHUNK = {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
_CHOICE = {"index", "delta", "finish_reason", "logprobs"}


class _Text(NamedTuple):  # of a chunk that holds nothing else: the rest of the chunk, the place of the text, its parts
    chunk: dict[str, Any]
    holder: dict[str, Any]
    name: str
    texts: list[str]

    def joined(self) -> bytes:
        self.holder[self.name] = "".join(self.texts)
        return b"data: " + json.dumps(self.chunk).encode()


def _text_in(event: bytes) -> _Text | None:
    try:
        chunk = json.loads(event[6:].decode() if event.startswith(b"data: {") else "")
        (choice,) = chunk["choices"]
        holder: dict[str, Any] = choice["delta"]
        (name,) = [key for key, value in holder.items() if value]
        plain = name in {"content", "reasoning_content"}
        if name == "tool_calls":
            (call,) = holder[name]
            holder, name = call["function"], "arguments"
            plain = call.keys() <= {"index", "function"} and holder.keys() == {name}
        nothing = (chunk.get("usage"), choice.get("finish_reason"), choice.get("logprobs")) == (None, None, None)
        known = chunk.keys() <= _CHUNK and choice.keys() <= _CHOICE
        text, holder[name] = holder[name], ""
        return _Text(chunk, holder, name, [text]) if plain and nothing and known and text.encode() else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # half a character has no encoding
        return None


def _merged(events: list[bytes]) -> list[bytes]:
    kept: list[tuple[bytes, _Text | None]] = [(b"", None)]
    for event in events:
        found, before = _text_in(event), kept[-1][1]
        if found and before and found.chunk == before.chunk:
            before.texts.extend(found.texts)
        else:
            kept.append((event, found))
    return [text.joined() if text and len(text.texts) > 1 else event for event, text in kept[1:]]


class MergedChunks:
    """Puts consecutive chunks of one network read together if they differ in their text alone.

    Other events pass as the same bytes. An event is passed on when it is whole. After a CR, all passes as it comes.
    """

    def __init__(self, pause: float = 0) -> None:
        self.pause = pause  # seconds to wait before an asynchronous stream is read again
        self._begun: bytes | None = b""

    def feed(self, data: bytes, *, last: bool) -> bytes:
        """Give the events that are whole. What has only begun is kept, unless this is the last of the stream."""
        if self._begun is None or b"\r" in data:
            data, self._begun = (self._begun or b"") + data, None
            return data
        whole, end, self._begun = (self._begun + data).rpartition(b"\n\n")
        merged = b"\n\n".join(_merged(whole.split(b"\n\n"))) if b"\n\n" in whole else whole
        return merged + end + self._begun if last else merged + end
