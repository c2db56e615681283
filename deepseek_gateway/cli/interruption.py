"""Commands that serve until Ctrl-C."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

_T = TypeVar("_T")
_LONGEST_WAIT = 0.2  # seconds; on Windows, Ctrl-C does not end a wait without a timeout


def end_when_interrupted(queue: SimpleQueue[_T | None]) -> None:
    """From now on, put None into the queue when the process is interrupted or asked to terminate."""

    def end(*_: object) -> None:
        queue.put(None)

    for interruption in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interruption, end)


def until_none(queue: SimpleQueue[_T | None]) -> Iterator[_T]:
    """Give what arrives until None does."""
    while True:
        with suppress(Empty):
            item = queue.get(timeout=_LONGEST_WAIT)
            if item is None:
                return
            yield item


def cannot_listen(port: int, error: OSError) -> str:
    """Say why a port cannot be used, and what to do."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"Cannot listen on port {port} of 127.0.0.1 ({reason}); choose another with --port, 0 for any."
