"""Each example runs unchanged, in a process of its own, against the emulator."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from deepseek_gateway.emulator import Emulator

    Started = Callable[..., AbstractContextManager[subprocess.Popen[str]]]

FOLDER = Path(__file__).parents[2] / "examples"


@pytest.fixture
def started(gateway_emulator: Emulator) -> Started:
    """Start an example, as in `started("chat.py")`, or a module, as in `started("-m", "uvicorn", ...)`."""

    @contextmanager
    def start(*command: str | Path) -> Iterator[subprocess.Popen[str]]:
        program = [FOLDER / command[0], *command[1:]] if str(command[0]).endswith(".py") else command
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child process inherits an ignored SIGINT
        pythonpath = os.pathsep.join(filter(None, (str(FOLDER), os.environ.get("PYTHONPATH"))))
        environment = os.environ | {
            "PYTHONPATH": pythonpath,
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            "COLUMNS": "120",
        }
        pipe = subprocess.PIPE
        try:
            with subprocess.Popen(
                [sys.executable, *map(str, program)], env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
            ) as process:
                try:
                    yield process
                finally:
                    process.kill()
        finally:
            signal.signal(signal.SIGINT, before)

    return start


@pytest.fixture
def run(started: Started) -> Callable[..., str]:
    """Run a program to its end, which must be a good one, and return what it printed."""

    def to_its_end(*command: str | Path, given: str = "", code: int = 0) -> str:
        with started(*command) as process:
            printed, errors = process.communicate(given, timeout=240)
        assert process.returncode == code, errors
        assert "Traceback" not in errors
        return printed if code == 0 else errors

    return to_its_end
