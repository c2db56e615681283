"""How tests call the command line: in a process of its own where that matters, else inside of this one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from typer.testing import CliRunner

from deepseek_gateway.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from deepseek_gateway import GatewayConfig

COMMAND = [sys.executable, "-m", "deepseek_gateway"]


def run(*arguments: str, **options: Any) -> tuple[int, str, str]:
    """Run it as a process; standard input is empty unless `input` is given."""
    options = {"stdin": subprocess.DEVNULL} | options if "input" not in options else options
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, **options)
    return done.returncode, done.stdout, done.stderr


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start it as a process that can be interrupted, also where the tests themselves run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # one that ignores SIGINT would pass that on
    try:
        with subprocess.Popen(
            [*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            yield process
    finally:
        signal.signal(signal.SIGINT, before)


def call(*arguments: str, given: str = "") -> tuple[int, str, str]:
    """Call it in this process, which is faster."""
    result = CliRunner().invoke(app, arguments, input=given, prog_name="deepseek-gateway")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def set_up(monkeypatch: pytest.MonkeyPatch, config: GatewayConfig) -> None:
    """Put the settings into the environment."""
    monkeypatch.setenv("DEEPSEEK_GATEWAY_ROUTE", config.route)
    monkeypatch.setenv("CLOUDFLARE_AI_GATEWAY_ID", config.gateway_id)
    for name, value in (
        ("DEEPSEEK_GATEWAY_ENDPOINT", config.endpoint),
        ("DEEPSEEK_API_KEY", config.api_key),
        ("CF_AIG_TOKEN", config.gateway_token),
    ):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


def pieces(*texts: str, thinking: str = "", end: bool = True) -> tuple[bytes, ...]:
    """Write a stream of DeepSeek's that says these texts, one after the other."""

    def event(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "deepseek-flash"}
        return b"data: %s\n\n" % json.dumps(chunk | {"choices": [choice]}).encode()

    events = [event({"content": None, "reasoning_content": thinking})] if thinking else []
    events += [event({"content": text}) for text in texts]
    return (*events, event({"content": ""}, "stop"), b"data: [DONE]\n\n") if end else tuple(events)
