"""The emulator with random settings and faults."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

FORBIDDEN = "contraband"
"""Guardrails and DLP look for this word. A few questions hold it."""

AT_ONCE = {"retry-after-ms": "20"}
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"latency": 0.02},
    {"cache_ttl": 60},
    {"rate_limit": (20, 0.5)},
    {"spend_limit": (0.001, 1)},
    {"guardrails": (FORBIDDEN,)},
    {"dlp": {FORBIDDEN: "BLOCK"}},
    {"dlp": {FORBIDDEN: "FLAG"}},
)
FAULTS: tuple[Callable[[Random], dict[str, Any]], ...] = (
    lambda chance: {"code": chance.choice((2001, 2003, 2005, 2008, 2009, 2016, 2017, 2021, 2029, 2045))},
    lambda chance: {"code": chance.choice((2003, 2005, 2017)), "shape": "short", "headers": AT_ONCE},
    lambda chance: {"status": chance.choice((400, 401, 402, 422, 429, 500, 503)), "headers": AT_ONCE},
    lambda chance: {"status": chance.choice((403, 502, 520, 524)), "shape": "edge", "headers": AT_ONCE},
    lambda chance: {"status": chance.choice((502, 520, 524)), "shape": "problem", "headers": AT_ONCE},
    lambda chance: {"status": 200, "code": chance.choice((2005, 2017))},
    lambda chance: {"status": chance.choice((403, 429)), "shape": "policy"},
    lambda chance: {"status": 503, "message": "chaos", "event": chance.randint(0, 8)},
    lambda chance: {"code": 2005, "event": chance.randint(0, 3)},
    lambda _: {"unreachable": True},
    lambda _: {"reset": True},
    lambda chance: {"latency": chance.uniform(0, 0.4), "keep_alive": chance.randint(0, 9)},
    lambda chance: {"cut_after": chance.randint(0, 3000)},
    lambda chance: {"cut_after": chance.randint(0, 3000), "clean": True},
    lambda chance: {"stall_after": chance.randint(0, 3000)},
    lambda chance: {"body": chance.choice(("<html>no</html>", "", "no")), "status": chance.choice((200, 429, 502))},
)


def main(seed: int, port: int) -> None:
    """Serve until the process is killed."""
    chance, fault = random.Random(seed), random.Random(seed + 1)

    def plan(_: object) -> None:
        """Ask for the next failure, so that about half of the calls meet one."""
        if not emulator.pending and fault.random() < 0.5:
            emulator.fail_next(**fault.choice(FAULTS)(fault))

    emulator = Emulator(port=port, on_exchange=plan, **chance.choice(SETTINGS))
    with emulator:
        while True:
            time.sleep(0.2)
            emulator.requests.clear()
