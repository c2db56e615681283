"""The command: start the servers and the callers, kill the gateway now and then, and report."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import socket
import sys
import time
from contextlib import ExitStack
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import openai

from tests.chaos import callers, gateway, raw_server
from tests.chaos.rules import Run, broken, counts

FORK = multiprocessing.get_context("fork")  # a restarted gateway must be up at once; this process has no threads


def start(target: Any, *values: Any) -> Any:
    process = FORK.Process(target=target, args=values)
    process.start()
    return process


def hold_port(stack: ExitStack) -> int:
    """Hold a free port, on which a server of this run may listen, but no other program."""
    held = stack.enter_context(socket.socket())
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return int(held.getsockname()[1])


def run(seed: int, seconds: float, folder: Path) -> Run:
    chance, kills = random.Random(seed), 0
    with ExitStack() as stack:
        ports = {name: hold_port(stack) for name in ("raw", "emulator", "dead")}
        ready = FORK.Event()
        raw = start(raw_server.main, seed, ports["raw"], folder / "ledger.json", ready)
        serving = start(gateway.main, seed, ports["emulator"])
        ready.wait(60)
        # What openai builds at first use takes seconds of CPU time. Each caller inherits it.
        first = callers.Threads("first", str(seed), folder, callers.configs(ports, "provider"))
        first.warm_up()
        first.close()
        started = {name: start(callers.main, name, seed, seconds, folder, ports) for name in callers.available()}
        deadline = time.monotonic() + seconds + callers.GRACE
        while running := [each.sentinel for each in started.values() if each.is_alive()]:
            if time.monotonic() > deadline:
                break
            wait(running, chance.uniform(1, 6))
            serving.kill()
            serving.join()
            kills += 1
            time.sleep(chance.uniform(0, 0.3))  # the time for which the gateway is down
            serving = start(gateway.main, seed + kills, ports["emulator"])
        raw.terminate()  # it writes its ledger
        raw.join()
        for process in (serving, *started.values()):
            process.kill()
            process.join()
    codes = {name: process.exitcode for name, process in started.items()}
    reports = {name: json.loads((folder / f"{name}.json").read_text()) for name, code in codes.items() if code == 0}
    lines = (folder / "outcomes.jsonl").read_text("utf-8").splitlines()
    ledger = json.loads((folder / "ledger.json").read_text("utf-8"))
    return Run([json.loads(line) for line in lines], ledger, reports, codes, kills)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Make calls under random faults.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    print(f"seed: {options.seed}; openai {openai.__version__}; {options.minutes:g} minutes", flush=True)
    with TemporaryDirectory() as folder:
        ended = run(options.seed, options.minutes * 60, Path(folder))
    for line in counts(ended):
        print(line)
    rules = broken(ended)
    for sentence in rules:
        print(f"BROKEN: {sentence}")
    if not rules:
        print("No rule was broken.")
    return 1 if rules else 0


if __name__ == "__main__":
    sys.exit(main())
