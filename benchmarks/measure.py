"""Measurement: contestants in fresh interpreters take turns, in several rounds."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import trustme

from .libraries import KEY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NUMBERS = itertools.count()
_PATH = re.compile(r"[^\s'\"(]*[/\\][^\s'\")]*")  # results must not contain paths of this machine
# Variables that would change what a library does, or make it report to a service.
_UNWANTED = (
    *("OPENAI_", "DEEPSEEK_", "CLOUDFLARE_", "CF_AIG_", "SSL_CERT_"),
    *("LANGCHAIN_", "LANGSMITH_", "LITELLM_", "LOGFIRE_", "OTEL_", "PORTKEY_"),
)
_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
_SETTINGS = {
    "CLOUDFLARE_ACCOUNT_ID": "acct",
    "DEEPSEEK_API_KEY": KEY,
    "DO_NOT_TRACK": "1",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "OPENAI_API_KEY": KEY,
    "OTEL_SDK_DISABLED": "true",
    "PYTHONPATH": str(Path(__file__).parents[1]),
}

Figures = dict[str, list[Any] | str]
"""The figure of each round for each contestant, or the reason why there is none."""


class NotMeasuredError(Exception):
    """There is no figure. The message says why."""


@dataclass(frozen=True)
class Contestant:
    """A name in the results, a library, and the interpreter that has it installed."""

    name: str
    library: str
    python: str = sys.executable
    rounds: int = sys.maxsize
    """The largest number of rounds that this contestant takes part in."""


class Worker:
    """A fresh interpreter that does one kind of work, one turn at a time."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        """Start the interpreter without measuring anything."""
        self._log = folder / f"log-{next(_NUMBERS)}.txt"
        with self._log.open("w") as log:
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
            self._process = subprocess.Popen(command, env=environment, cwd=folder, text=True, **pipes)

    def begin(self) -> None:
        """Start a turn."""
        with suppress(BrokenPipeError):  # value() reports the reason
            print(file=self._process.stdin, flush=True)

    def value(self) -> float:
        """Wait for the end of the turn and return its figure.

        Raises:
            NotMeasuredError: The work failed, or the library does not offer it.
        """
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            line = json.dumps({"reason": (self._log.read_text().strip() or "the interpreter ended").splitlines()[-1]})
        answer = json.loads(line)
        if "reason" in answer:
            raise NotMeasuredError(_PATH.sub("...", answer["reason"]))
        return float(answer["value"])

    def stop(self) -> None:
        """Kill the interpreter."""
        with self._process:
            self._process.kill()


class Bench:
    """The server, its certificate, and the environment of the workers."""

    def __init__(self, stack: ExitStack, *, quick: bool = False) -> None:
        """Start the server, on its own core if the system supports that.

        Args:
            stack: Stops the server and removes its files when the stack is closed.
            quick: Whether a round has only one turn.
        """
        self.quick = quick
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
        self._core: int | None = cores[1] if len(cores) > 1 else None
        server_core = None if self._core is None else cores[0]
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        (self._folder / ".env").write_text(f"# Settings of the deployment\nCF_AIG_TOKEN={KEY}\nLOG_LEVEL='info'\n")
        authority, certificate = trustme.CA(), self._folder / "server.pem"
        authority.cert_pem.write_to_path(self._folder / "authority.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        command = [sys.executable, "-m", "benchmarks.server", json.dumps([str(certificate), server_core])]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        server = subprocess.Popen(command, env=_environment(), cwd=self._folder, **pipes)
        stack.enter_context(server)
        stack.callback(server.kill)
        self._ports = json.loads(server.stdout.readline() if server.stdout else "")

    def worker(
        self, contestant: Contestant, work: str, options: Mapping[str, Any], port: str = "plain", *, pinned: bool = True
    ) -> Worker:
        """Start an interpreter for a kind of work against one of the server's ports, on the core of the workers."""
        url = f"http{'' if port == 'plain' else 's'}://127.0.0.1:{self._ports[port]}"
        task = {"library": contestant.library, "work": work, "url": url, "options": options}
        task["core"] = self._core if pinned else None
        environment = _environment() | {"BENCHMARKS_CONTROL": str(self._ports["plain"])}
        if port != "plain":
            environment["SSL_CERT_FILE"] = str(self._folder / "authority.pem")
        return Worker([contestant.python, "-m", "benchmarks.worker", json.dumps(task)], environment, self._folder)


def _environment() -> dict[str, str]:
    names = [name for name in os.environ if not name.startswith(_UNWANTED) and name.upper() not in _PROXIES]
    return {name: os.environ[name] for name in names} | _SETTINGS


def by_turns(
    bench: Bench,
    contestants: Sequence[Contestant],
    rounds: int,
    *,
    work: str,
    turns: int = 1,
    at_once: bool = False,
    port: str = "plain",
    ours: Mapping[str, Any] | None = None,
    **options: Any,
) -> Figures:
    """Measure in rounds. In each round every contestant starts a fresh interpreter, and they take turns.

    Args:
        bench: The server and the environment.
        contestants: The libraries to measure.
        rounds: The number of rounds.
        work: The name of a function in `worker`.
        turns: The number of turns in a round. Their median is the figure of the round.
        at_once: Whether all contestants take their turn at the same time. For work that counts and measures no time.
        port: The port of the server.
        ours: Options for our client that differ from the others' options.
        **options: Options of the work.

    Returns:
        The figures of the rounds.
    """
    figures: Figures = {contestant.name: [] for contestant in contestants}
    for number in range(rounds):
        with ExitStack() as stack:
            workers: dict[str, Worker] = {}
            for contestant in contestants:
                if isinstance(figures[contestant.name], list) and number < contestant.rounds:
                    own = options | dict((contestant.library == "ours" and ours) or {})
                    if bench.quick and "count" in own:
                        own["count"] = max(own["count"] // 4, own.get("width", 1))  # enough calls to fill the width
                    workers[contestant.name] = bench.worker(contestant, work, own, port)
                    stack.callback(workers[contestant.name].stop)
            taken = _round(workers, 1 if bench.quick else turns, number, at_once=at_once)
        for name, values in taken.items():
            known = figures[name]
            figures[name] = values if isinstance(values, str) else [*known, median(values)]
    return figures


def _round(workers: Mapping[str, Worker], turns: int, number: int, *, at_once: bool) -> Figures:
    """Let the workers take turns, forwards and backwards in alternation. A worker that fails drops out."""
    taken: Figures = {name: [] for name in workers}
    for worker in workers.values() if at_once else ():
        worker.begin()
    for turn in range(turns):
        order = list(workers.items())
        for name, worker in order if (number + turn) % 2 else reversed(order):
            if isinstance(values := taken[name], list):
                if not at_once:
                    worker.begin()
                try:
                    values.append(worker.value())
                except NotMeasuredError as error:
                    taken[name] = str(error)
    return taken
