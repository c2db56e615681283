"""How a figure is taken: contestants in fresh interpreters, turn about, round after round."""

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
    from collections.abc import Callable, Mapping, Sequence

_NUMBERS = itertools.count()
_PATH = re.compile(r"[^\s'\"(]*[/\\][^\s'\")]*")  # of this machine, and nobody else's business
# What a library would take from the person who runs this, or tell others about him.
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
"""What each contestant needed, round by round; a text says why there is nothing."""


class NotMeasuredError(Exception):
    """There is no figure; the message says why."""


@dataclass(frozen=True)
class Contestant:
    """Who takes part: a name in the results, a library and the interpreter that has it."""

    name: str
    library: str
    python: str = sys.executable
    rounds: int = sys.maxsize
    """In how many rounds at most."""


class Worker:
    """A fresh interpreter that does one kind of work, a turn at a time."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        """Start it; nothing is measured yet."""
        self._said = folder / f"said-{next(_NUMBERS)}.txt"
        with self._said.open("w") as said:
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": said}
            self._process = subprocess.Popen(command, env=environment, cwd=folder, text=True, **pipes)

    def begin(self) -> None:
        """Have it start a turn."""
        with suppress(BrokenPipeError):  # value() will say it better
            print(file=self._process.stdin, flush=True)

    def value(self) -> float:
        """Wait for the end of the turn.

        Raises:
            NotMeasuredError: The work failed, or there is no such thing in this library.
        """
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            line = json.dumps({"reason": (self._said.read_text().strip() or "the interpreter ended").splitlines()[-1]})
        answer = json.loads(line)
        if "reason" in answer:
            raise NotMeasuredError(_PATH.sub("...", answer["reason"]))
        return float(answer["value"])

    def stop(self) -> None:
        """End the interpreter, whatever it does."""
        with self._process:
            self._process.kill()


class Bench:
    """The server, a certificate that only it uses, and what every contestant runs with."""

    def __init__(self, stack: ExitStack, *, quick: bool = False) -> None:
        """Start the server, on a core of its own where the system can do that.

        Args:
            stack: What ends the server and removes the files, once it is closed.
            quick: Whether one turn is enough for a round.
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

    def worker(self, contestant: Contestant, work: str, options: Mapping[str, Any], port: str) -> Worker:
        """Start an interpreter that does some work; `port` is the server's that it calls."""
        url = f"http{'' if port == 'plain' else 's'}://127.0.0.1:{self._ports[port]}"
        task = {"library": contestant.library, "work": work, "url": url, "options": options, "core": self._core}
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
    progress: Callable[[str], None],
    *,
    work: str,
    turns: int = 1,
    at_once: bool = False,
    port: str = "plain",
    ours: Mapping[str, Any] | None = None,
    **options: Any,
) -> Figures:
    """Measure in rounds: in each, every contestant starts afresh and takes its turns among those of the others.

    Args:
        bench: Where.
        contestants: Who.
        rounds: How often each starts afresh.
        progress: Told of each round.
        work: What is done, a function of `worker`.
        turns: Turns in a round; their median is the round's figure.
        at_once: Whether all take their turn at the same time: when things are counted, not timed.
        port: The server's port that is called.
        ours: Options for our side, where it does the same in another way.
        **options: Options of the work.

    Returns:
        The figures of the rounds.
    """
    figures: Figures = {contestant.name: [] for contestant in contestants}
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        with ExitStack() as stack:
            workers: dict[str, Worker] = {}
            for contestant in contestants:
                if isinstance(figures[contestant.name], list) and number < contestant.rounds:
                    told = options | dict((contestant.library == "ours" and ours) or {})
                    if bench.quick and "count" in told:
                        told["count"] = max(told["count"] // 4, told.get("width", 1))  # or fewer would be under way
                    workers[contestant.name] = bench.worker(contestant, work, told, port)
                    stack.callback(workers[contestant.name].stop)
            taken = _round(workers, 1 if bench.quick else turns, number, at_once=at_once)
        for name, values in taken.items():
            known = figures[name]
            figures[name] = values if isinstance(values, str) else [*known, median(values)]
    return figures


def _round(workers: Mapping[str, Worker], turns: int, number: int, *, at_once: bool) -> Figures:
    """Have everybody take his turns, forwards and backwards by turns; who fails is out."""
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
