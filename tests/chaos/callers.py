"""The callers. Each is a process that makes calls in rounds, then closes its clients and reports what it has left.

Each round ends with no call under way, so that memory is compared at rest. A round of the asynchronous callers is one
`asyncio.run()` with the same clients. A round of the caller that forks is one generation of children.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import json
import logging
import os
import random
import sys
import threading
import time
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import openai

from deepseek_gateway import GatewayConfig, create_async_client, create_client
from tests.chaos.asking import KINDS
from tests.chaos.calls import Calls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

GRACE = 240
"""Seconds after the end of the run in which every caller must have ended."""

_CHILD_FAILED = 70
_FEWEST_ROUNDS = 3  # also on a slow machine, so that there is growth to compare


def configs(ports: dict[str, int], route: Literal["provider", "compat", "rest"]) -> dict[str, GatewayConfig]:
    """Return the configurations by destination. `calls.WEIGHTS` has a weight for each.

    In an outage the raw server plays DeepSeek itself.
    """
    path = "client/v4/accounts/acct/ai" if route == "rest" else "v1/acct/my-gateway"
    raw: dict[str, Any] = {"route": route, "gateway_id": "my-gateway", "api_key": "deepseek-test-key"}
    raw["gateway_token"] = "cloudflare-test-token"
    emulated: dict[str, Any] = {"api_key": "emulator-deepseek-key", "gateway_token": "emulator-gateway-token"}
    at = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    direct: dict[str, Any] = {"fallback": "direct", "direct_endpoint": at["raw"]}
    return {
        "raw": GatewayConfig(endpoint=f"{at['raw']}/{path}", **raw),
        "emulator": GatewayConfig(endpoint=f"{at['emulator']}/v1/{'e' * 32}/emulator-gateway", **emulated),
        "dead": GatewayConfig(endpoint=f"{at['dead']}/{path}", **raw),
        "outage": GatewayConfig(endpoint=f"{at['dead']}/{path}", **direct, **raw),
        "fallback": GatewayConfig(endpoint=f"{at['emulator']}/v1/{'e' * 32}/emulator-gateway", **direct, **emulated),
    }


class Caller(Protocol):
    """Makes calls. Each method returns how many tasks were left when its event loops ended."""

    def warm_up(self) -> int: ...
    def round(self) -> int: ...
    def close(self) -> int: ...


class Threads:
    """Several threads share synchronous clients."""

    def __init__(self, name: str, seed: str, folder: Path, settings: dict[str, GatewayConfig]) -> None:
        self._clients = {name: create_client(config) for name, config in settings.items()}
        self.calls = Calls(name, seed, folder, self._clients)

    def warm_up(self) -> int:
        for kind in KINDS:
            self.calls.make(kind)
        return 0

    def round(self) -> int:
        threads = [threading.Thread(target=self._several, args=(2,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return 0

    def few(self) -> int:
        self._several(4)
        return 0

    def close(self) -> int:
        for client in self._clients.values():
            client.close()
        return 0

    def _several(self, calls: int) -> None:
        for _ in range(calls):
            self.calls.make()


class Tasks:
    """Many tasks share asynchronous clients, and some are cancelled. Each round has an event loop of its own."""

    def __init__(self, transport: Any, name: str, seed: str, folder: Path, settings: dict[str, GatewayConfig]) -> None:
        self._clients = {name: create_async_client(config, transport=transport) for name, config in settings.items()}
        self.calls = Calls(name, seed, folder, self._clients)
        self._chance = random.Random(seed)

    def warm_up(self) -> int:
        return self._run(self.calls.make_async(kind) for kind in KINDS)

    def round(self) -> int:
        return self._run(self._several(2) for _ in range(16))

    def few(self) -> int:
        return self._run(self._several(1) for _ in range(4))

    def close(self) -> int:
        return self._run(client.close() for client in self._clients.values())

    async def _several(self, calls: int) -> None:
        for _ in range(calls):
            cancelled = self._chance.random() < 0.2
            await self.calls.make_async(cancel_after=self._chance.uniform(0.001, 0.2) if cancelled else None)

    def _run(self, work: Any) -> int:
        return asyncio.run(_together(work))


async def _together(work: list[Awaitable[object]]) -> int:
    """Do everything at once, and return the number of tasks that are left afterwards."""
    await asyncio.gather(*work)
    gc.collect()  # streams that were dropped
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=1)
    return len(left)


class Forks:
    """Synchronous and asynchronous clients are used before `fork()`, and then in the parent and in its children."""

    def __init__(self, name: str, seed: str, folder: Path, settings: dict[str, GatewayConfig]) -> None:
        asynchronous = Tasks("httpx", f"{name}_async", seed, folder, settings)
        self._callers = Threads(name, seed, folder, settings), asynchronous
        self._children = 0

    def warm_up(self) -> int:
        return sum(caller.warm_up() for caller in self._callers)

    def round(self) -> int:
        left = self._few()
        children = [self._child(closing=closing) for closing in (False, True)]
        left += self._few()
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert not any(code < 0 or code >= _CHILD_FAILED for code in codes), f"children ended with {codes}"
        return left + sum(codes)

    def close(self) -> int:
        return sum(caller.close() for caller in self._callers)

    def _few(self) -> int:
        return sum(caller.few() for caller in self._callers)

    def _child(self, *, closing: bool) -> int:
        """Make calls in a child, which ends with the number of tasks that it has left."""
        self._children += 1
        if child := os.fork():
            return child
        code = _CHILD_FAILED
        try:
            for caller in self._callers:
                caller.calls.begin(f"child{self._children}")
            code = min(self._few() + (self.close() if closing else 0), _CHILD_FAILED - 1)
        except BaseException:  # noqa: BLE001  # no exception may reach the code of the parent
            traceback.print_exc()
        finally:
            os._exit(code)


def _tasks(transport: str) -> Callable[..., Caller]:
    return lambda *arguments: Tasks(transport, *arguments)


CALLERS: dict[str, tuple[Callable[..., Caller], Literal["provider", "compat", "rest"]]] = {
    "threads": (Threads, "provider"),
    "httpx": (_tasks("httpx"), "compat"),
    "aiohttp": (_tasks("aiohttp"), "rest"),
    "forks": (Forks, "provider"),
}


def available() -> list[str]:
    """List the callers that this openai has. Old versions have no aiohttp client."""
    return [name for name in CALLERS if name != "aiohttp" or hasattr(openai, "DefaultAioHttpClient")]


class Noise(logging.Handler):
    """Keeps the exceptions that no caller was given: those of threads, destructors and event loops."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []
        logging.getLogger("asyncio").addHandler(self)
        logging.getLogger("deepseek_gateway").addHandler(logging.NullHandler())
        sys.unraisablehook = lambda raised: self.heard.append(f"{raised.err_msg}: {raised.exc_value!r} {raised.object}")
        threading.excepthook = lambda raised: self.heard.append(f"in a thread: {raised.exc_value!r}")

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(f"{record.getMessage()} {record.exc_info and record.exc_info[1]!r}")


def sockets() -> int:
    """Count the open sockets of this process."""
    links: list[str] = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the file that lists the folder is closed by now
            links.append(str(entry.readlink()))
    return sum(link.startswith("socket:") for link in links)


def memory() -> Counter[str]:
    """Measure this process at rest."""
    gc.collect()
    objects = gc.get_objects()
    ours = sum(str(type(each).__module__).startswith("deepseek_gateway.") for each in objects)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    kilobytes = pages * os.sysconf("SC_PAGE_SIZE") // 1024
    return Counter({"objects of the package": ours, "objects": len(objects), "kilobytes": kilobytes})


def main(name: str, seed: int, seconds: float, folder: Path, ports: dict[str, int]) -> None:
    """Make calls for some seconds, and write a report. Show where the threads are if this takes far too long."""
    faulthandler.dump_traceback_later(seconds + GRACE - 10)
    noise, sockets_before, threads_before = Noise(), sockets(), threading.active_count()
    make, route = CALLERS[name]
    caller = make(name, f"{seed} {name}", folder, configs(ports, route))
    began, rounds, first = time.monotonic(), 0, Counter[str]()
    tasks = caller.warm_up()
    while time.monotonic() - began < seconds or rounds < _FEWEST_ROUNDS:
        tasks += caller.round()
        rounds += 1
        if not first and time.monotonic() - began > seconds / 4:
            first = memory()
    last = memory()
    tasks += caller.close()
    gc.collect()
    held = sockets() - sockets_before
    del caller
    gc.collect()  # connections of event loops that have ended, which nothing else can close
    report = {
        "rounds": rounds,
        "sockets held by closed clients": held,
        "open sockets": sockets() - sockets_before,
        "tasks": tasks,
        "threads": threading.active_count() - threads_before,
        **{f"more {unit}": last[unit] - first[unit] for unit in last},
        "noise": noise.heard,
    }
    (folder / f"{name}.json").write_text(json.dumps(report), "utf-8")
    faulthandler.cancel_dump_traceback_later()
