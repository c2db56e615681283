"""Call the command line, in a new process or in the process of the tests."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from typer.testing import CliRunner

from deepseek_gateway._config import look_up
from deepseek_gateway.cli.app import app
from deepseek_gateway.cli.doctor import FALLBACK_CHECK, LOCAL_CHECKS, NETWORK_CHECKS, Case, diagnose

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from deepseek_gateway import GatewayConfig
    from deepseek_gateway.cli.computer import Judgement

COMMAND = [sys.executable, "-m", "deepseek_gateway"]


def run(*arguments: str, **options: Any) -> tuple[int, str, str]:
    """Run the command in a new process. Standard input is empty unless `input` is given."""
    options = {"stdin": subprocess.DEVNULL} | options if "input" not in options else options
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, **options)
    return done.returncode, done.stdout, done.stderr


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the command in a process that SIGINT interrupts, even if the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child process inherits an ignored SIGINT
    try:
        with subprocess.Popen(
            [*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            yield process
    finally:
        signal.signal(signal.SIGINT, before)


def call(*arguments: str, given: str = "") -> tuple[int, str, str]:
    """Call the command in this process, which is faster."""
    result = CliRunner().invoke(app, arguments, input=given, prog_name="deepseek-gateway")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def set_up(monkeypatch: pytest.MonkeyPatch, config: GatewayConfig) -> None:
    """Set the environment variables of a configuration."""
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


def examine(**options: Any) -> dict[str, Judgement]:
    """Run every check of `doctor` with the settings in the environment."""
    settings, env_file = options.pop("settings", {}), options.pop("env_file", ...)
    results = diagnose(Case(findings=look_up(env_file=env_file, **settings), **options))
    assert list(results) == [*LOCAL_CHECKS, *NETWORK_CHECKS, FALLBACK_CHECK]
    return results


def named(results: dict[str, Judgement], verdict: str) -> set[str]:
    """Return the names of the checks that have this verdict."""
    return {name for name, result in results.items() if result.verdict == verdict}


def assert_breaks(results: dict[str, Judgement], name: str, remedy: str, verdict: str = "fail") -> None:
    """Assert that one check has the verdict and the remedy, no other check failed, and later checks were skipped."""
    assert (results[name].verdict, remedy in results[name].remedy) == (verdict, True), results[name]
    assert named(results, "fail") == ({name} if verdict == "fail" else set())
    if verdict == "fail":
        reason = "valid settings are needed" if name == "settings" else f"{name} failed"
        checks = list(NETWORK_CHECKS)
        later = checks[checks.index(name) + 1 :] if name in NETWORK_CHECKS else checks
        assert {results[each].found for each in later} <= {reason}
        assert set(later) <= named(results, "skip")


def pieces(*texts: str, thinking: str = "", end: bool = True) -> tuple[bytes, ...]:
    """Return the events of a DeepSeek stream that holds these texts."""

    def event(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "deepseek-flash"}
        return b"data: %s\n\n" % json.dumps(chunk | {"choices": [choice]}).encode()

    events = [event({"content": None, "reasoning_content": thinking})] if thinking else []
    events += [event({"content": text}) for text in texts]
    return (*events, event({"content": ""}, "stop"), b"data: [DONE]\n\n") if end else tuple(events)
