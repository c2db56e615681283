"""The command line as a whole: help, usage errors, versions, missing extras and the options of every command."""

from __future__ import annotations

import re
import subprocess
import sys

import openai
import pytest
from commands import call


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("typer", [], "cli"),
        ("rich", ["demo"], "cli"),
        ("uvicorn", ["demo"], "emulator"),
        ("uvicorn", ["run", "--endpoint", "http://127.0.0.1:9", "--", "true"], "cli"),
        ("starlette", ["ask", "--emulator", "Why?"], "emulator"),
    ],
)
def test_command_without_its_extra_names_the_package_to_install(
    missing: str, arguments: list[str], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "key")
    code = f"import sys; sys.modules[{missing!r}] = None; from deepseek_gateway.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"pip install 'deepseek-gateway[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["ask", "--help"], 0),
        (["demo", "--help"], 0),
        (["serve", "--help"], 0),
        (["run", "--help"], 0),
        (["no-such-command"], 2),
    ],
)
def test_help_fits_80_columns_and_unknown_command_exits_with_status_2(
    arguments: list[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    got, out, err = call(*arguments)
    assert got == status
    assert all(len(line) <= 80 for line in (out + err).splitlines())
    assert "..." not in re.sub(r"\[ARGS\]\.\.\.|\{?PROGRAM\}?\.\.\.|log_id \.\.\.", "", out), "a sentence was cut off"


def test_version_names_openai_and_python() -> None:
    status, out, _ = call("--version")
    assert status == 0
    assert re.fullmatch(rf"deepseek-gateway .+, openai {openai.__version__}, Python 3\.\d+\.\d+\n", out)


@pytest.mark.parametrize("command", ["ask", "serve", "run", "demo"])
def test_every_command_has_the_options_for_settings(command: str) -> None:
    help_text = call(command, "--help")[1]
    assert all(option in help_text for option in ("--route", "--env-file", "--endpoint", "--debug"))
