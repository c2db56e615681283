"""One call after the other: each is chosen by chance, made, judged, and written down."""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import openai

from tests.chaos.answering import IS_HASTY, WARM_UP
from tests.chaos.asking import KINDS, WORDS, Ask
from tests.chaos.gateway import FORBIDDEN

if TYPE_CHECKING:
    from pathlib import Path

PATIENT, HASTY, HUNG = 3.0, 0.25, 40.0
"""Seconds: the timeout of a patient call, of a hasty call, and how long no call may take with all its tries."""

WEIGHTS = {"raw": 10, "emulator": 5, "dead": 1, "outage": 2, "fallback": 3}
"""How often a destination is called."""


class Calls:
    """Makes calls by chance, judges each, and writes a line for each to a file that several processes share."""

    def __init__(self, name: str, seed: str, folder: Path, clients: dict[str, Any]) -> None:
        self._name, self._seed, self._clients = name, seed, clients
        self._lock = threading.Lock()
        self._log = os.open(folder / "outcomes.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.begin("parent")

    def begin(self, process: str) -> None:
        """Make other calls from here on than any other process."""
        self._process, self._count, self._chance = process, 0, random.Random(f"{self._seed} {process}")

    def _next(self, first: str | None) -> tuple[Any, Ask, dict[str, Any]]:
        """Choose the next call: the client, what to ask, and the beginning of its line in the file.

        The kind of one of the first calls is given, and the raw server answers it without a fault.
        """
        with self._lock:
            self._count += 1
            number, chance = self._count, random.Random(self._chance.random())
        hasty = chance.random() < 0.3 and not first
        marker = f"chaos-{self._name}-{self._process}-{number}{WARM_UP if first else IS_HASTY if hasty else ''}"
        where = "raw" if first else chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        words = [chance.choice(("What", "is", "Cloudflare?", "你好", "-" * 9)) for _ in range(chance.randint(1, 25))]
        question = " ".join((marker, *words, *([FORBIDDEN] if chance.random() < 0.05 else [])))
        ask = Ask(kind := first or chance.choice(KINDS), question, chance.choice(list(WORDS)), chance.randint(1, 9))
        retries = chance.choice((0, 1, 2))
        client = self._clients[where].with_options(timeout=HASTY if hasty else PATIENT, max_retries=retries)
        line = {"marker": marker, "caller": self._name, "where": where, "kind": kind}
        return client, ask, line | {"patient": not hasty, "tries": retries + 1}

    def make(self, first: str | None = None) -> None:
        client, ask, line = self._next(first)
        began = time.monotonic()
        error: Exception | None = None
        try:
            ask.sync(client)
        except Exception as raised:  # noqa: BLE001  # it is judged
            error = raised
        self._judge(line, ask, error, time.monotonic() - began)

    async def make_async(self, first: str | None = None, *, cancel_after: float | None = None) -> None:
        client, ask, line = self._next(first)
        began = time.monotonic()
        error: Exception | None = None
        try:
            async with asyncio.timeout(cancel_after or HUNG):
                await ask.asynchronous(client)
        except TimeoutError as raised:
            error = None if cancel_after else raised
            line["cancelled"] = cancel_after is not None
        except Exception as raised:  # noqa: BLE001  # it is judged
            error = raised
        self._judge(line, ask, error, time.monotonic() - began)

    def _judge(self, line: dict[str, Any], ask: Ask, error: Exception | None, seconds: float) -> None:
        """Say how a call ended: with its whole answer, left by its caller, with a typed error, or with a defect."""
        text = "".join(ask.got)
        if ask.wrong:
            line |= {"outcome": "defect", "detail": f"wrong text: {text!r} in place of {ask.right!r}"}
        elif seconds > HUNG:
            line |= {"outcome": "defect", "detail": f"took {seconds:.0f} s"}
        elif isinstance(error, openai.APIStatusError) and "x-emulator-fault" in error.response.headers:
            line |= {"outcome": "defect", "detail": f"the emulator itself failed: {error}"}
        elif isinstance(error, openai.OpenAIError):
            line |= {"outcome": type(error).__name__}
        elif error is not None:
            line |= {"outcome": "raw", "detail": f"{type(error).__name__}: {error}"[:200]}
        elif line.get("cancelled"):
            line |= {"outcome": "cancelled"}
        elif not ask.whole:
            line |= {"outcome": "left"}
        elif text != ask.right:
            line |= {"outcome": "defect", "detail": f"part of the text without an error: {text!r}"}
        else:
            line |= {"outcome": "result"}
        os.write(self._log, json.dumps(line | {"seconds": round(seconds, 3)}).encode() + b"\n")
