"""A stream is whole or raises."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from ._response import Fault, hidden_fault, may_hold_a_fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._codes import RequestFacts

_LONGEST_ERROR = 65_536


class StreamCheck:
    """Whether an event stream came to its end, found without reading its events.

    A chat stream ends with `data: [DONE]`, one of `/responses` with a terminal event, which holds the whole answer and
    may span many network chunks. A gateway error in the place of the first event is explained like any other.
    """

    __slots__ = ("_held", "_hint", "_marks", "_on_fault", "_sent", "_started", "_tail", "arrived", "end", "seen")

    _KEPT = 128
    _DONE = re.compile(rb"\ndata: ?\[DONE\]")
    _TERMINAL = re.compile(rb'"type": ?"response\.(?:completed|failed|incomplete)"|\nevent: ?error\s')
    _FILLER = re.compile(rb"(?:\s|:[^\n]*\n)*")
    _FIRST = re.compile(rb"(?:(?:event|id|retry):[^\n]*\n)*data: ?(\{[^\n]*\})\r?\n\r?\n")

    def __init__(
        self, sent: Callable[[], RequestFacts], on_fault: Callable[[Fault], object], *, expects_response: bool
    ) -> None:
        """Begin before the first byte.

        Args:
            sent: Tells of the request, should that be needed.
            on_fault: Is told of a gateway error in the place of the first event.
            expects_response: Whether it is a stream of `/responses`, and not one of chat.
        """
        self.arrived = 0
        self.end = "its last event" if expects_response else "[DONE]"
        self._sent = sent
        self._on_fault = on_fault
        self._marks = self._TERMINAL if expects_response else self._DONE
        self._hint = b"" if expects_response else b"[DONE]"  # a regular expression is slow to say no
        self._started = False
        self.seen = False
        self._held = b""
        self._tail = b"\n"

    def feed(self, chunk: bytes) -> bytes:
        """Look at a network chunk and give what to pass on: the chunk itself, but for an error at the start."""
        self.arrived += len(chunk)
        window = self._tail + chunk
        if not self.seen and self._hint in window:
            self.seen = bool(self._marks.search(window))
        self._tail = window[-self._KEPT :]
        return chunk if self._started else self._first(chunk)

    def rest(self) -> bytes:
        """Give what is still held back when the body has ended."""
        held, self._held = self._held, b""
        return self._explained(held + b"\n\n") if held.strip() else held

    @property
    def complete(self) -> bool:
        """Whether the end has been seen; a terminal event must have come whole."""
        whole = self._marks is self._DONE or self._tail.replace(b"\r", b"").endswith(b"\n\n")
        return self.seen and whole

    def cut(self, reason: str) -> str:
        """Say that the stream is not whole."""
        return (
            f"The stream {reason} before {self.end}, after {self.arrived:,} bytes; what came until then was delivered."
        )

    def _first(self, chunk: bytes) -> bytes:
        """Hold back what may be an error until it is there whole; anything else passes at once."""
        self._held += chunk
        filler = self._FILLER.match(self._held)
        begun = self._held[filler.end() :] if filler else self._held
        whole = b"\n\n" in begun or b"\r\n\r\n" in begun
        if not whole and len(begun) < _LONGEST_ERROR and (len(begun) < self._KEPT or may_hold_a_fault(begun)):
            return b""
        self._started = True
        held, self._held = self._held, b""
        return self._explained(held)

    def _explained(self, held: bytes) -> bytes:
        filler = self._FILLER.match(held)
        start = filler.end() if filler else 0
        event = self._FIRST.match(held, start)
        if not event or not may_hold_a_fault(event.group(1)):
            return held
        fault = hidden_fault(event.group(1).decode("utf-8", "replace"), self._sent())
        if not fault or fault.type != "ai_gateway_error":
            return held
        self._on_fault(fault)
        return b"data: " + json.dumps(fault.body).encode() + b"\n\n" + held[event.end() :]
