"""README is true: its snippets and commands run, its tables match the code, and its links resolve."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import integrations
import openai
import programs
import pytest
from dotenv import dotenv_values

from benchmarks.report import judged, markdown
from deepseek_gateway import create_client, gateway_headers
from deepseek_gateway._settings import SETTINGS, Setting
from deepseek_gateway.emulator import Emulator

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet_runs_unchanged_and_prints_its_comments(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Emulator() as emulator:
        config = emulator.config()
        endpoint = config.endpoint or ""
        monkeypatch.setenv("DEEPSEEK_GATEWAY_ENDPOINT", endpoint)
        monkeypatch.setenv("DEEPSEEK_API_KEY", config.api_key or "")
        monkeypatch.setenv("CF_AIG_TOKEN", config.gateway_token or "")
        exec(compile(SNIPPETS[number], f"README snippet {number}", "exec"), {})
    printed = capsys.readouterr().out
    for said in re.findall(r"print\(.*\)  # (.+)", SNIPPETS[number]):
        assert said in printed
    assert bool(printed.strip()) == ("print(" in SNIPPETS[number])


def test_introduction_has_the_two_set_up_commands() -> None:
    commands = re.findall(r"^    (.*)$", README.partition("\n## ")[0], re.MULTILINE)
    assert commands == [
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[all]' && .venv/bin/deepseek-gateway demo",
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/pytest",
    ], ".ci/run runs these two commands"


def default_of(setting: Setting) -> str | None:
    """Give the default of a setting as a variable spells it."""
    spelled = {True: "on", False: "off", None: None}
    return setting.default if isinstance(setting.default, str) else spelled[setting.default]


def test_settings_table_and_env_example_match_the_code() -> None:
    rows = [
        f"| {' or '.join(f'`{name}`' for name in setting.variables)} "
        f"| {f'`{text}`' if (text := default_of(setting)) else ''} | {setting.meaning} | {setting.source} |"
        for setting in SETTINGS
    ]
    assert "\n".join(rows) in README
    example = dotenv_values(ROOT / ".env.example")
    assert list(example) == [setting.variables[0] for setting in SETTINGS]
    assert [value or None for value in example.values()] == [default_of(setting) for setting in SETTINGS]


def fail_always(what: str, emulator: Emulator) -> None:
    """Make every request fail as a row of README's table describes."""
    if "429 or 5xx" in what:
        emulator.fail_next(status=503, times=99)
    elif "cannot be reached" in what:
        emulator.fail_next(unreachable=True, times=99)
    elif "2003" in what:
        emulator.fail_next(2003, times=99)
    elif "is lost after" in what:
        for _ in range(3):  # in each of the SDK's tries, the gateway's last attempt succeeds and its answer is lost
            emulator.fail_next(status=503, times=4)
            emulator.fail_next(cut_after=5)
    elif "402" in what:
        emulator.fail_next(status=402, times=99)
    elif "limit, policy or guardrail" in what:
        emulator.fail_next(2045, times=99)
    else:
        pytest.fail(f"no rule for this row: {what}")


@pytest.mark.parametrize("column", [0, 1], ids=["alone", "max_attempts"])
@pytest.mark.parametrize("what", re.findall(r"(?m)^\| (.+) \| \d+ \| \d+ \|$", README))
def test_retries_table_counts_the_calls_that_reach_deepseek(
    what: str, column: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (counts,) = re.findall(rf"(?m)^\| {re.escape(what)} \| (\d+) \| (\d+) \|$", README)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the SDK's pause between tries
    with Emulator() as emulator, create_client(emulator.config()) as client:
        if "is lost after" in what and not column:
            emulator.fail_next(cut_after=5, times=99)
        else:
            fail_always(what, emulator)
        options = gateway_headers(max_attempts=5, retry_delay=0) if column else {}
        with pytest.raises(openai.APIError):
            client.chat.completions.create(
                model="deepseek-flash", messages=[{"role": "user", "content": "Hi"}], extra_headers=options
            )
        assert sum(len(request.attempts) for request in emulator.requests) == int(counts[column])


def test_every_promise_names_an_existing_test() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", README)
    assert len(named) >= 5
    for path, name in named:
        assert re.search(rf"^(def|class) {name}\b", (ROOT / path).read_text("utf-8"), re.MULTILINE), name


def test_relative_links_resolve() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_every_library_in_the_integrations_table_has_a_test() -> None:
    assert list(integrations.WRITTEN) == list(integrations.LIBRARIES)


def test_programs_table_has_seven_commands_that_nox_runs() -> None:
    assert len(programs.WRITTEN) == 7
    assert all("deepseek-gateway run -- " in command for command in programs.WRITTEN.values())


PROGRAM = """
import openai
messages = [{"role": "user", "content": "Hi"}]
print(openai.OpenAI().chat.completions.create(model="deepseek-flash", messages=messages).choices[0].message.content)
"""
COMMANDS = re.findall(r"(?m)^    (deepseek-gateway .*|git diff .*)$", README)


@pytest.mark.skipif(shutil.which("bash") is None or shutil.which("git") is None, reason="needs bash and git")
@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs_unchanged(command: str, tmp_path: Path) -> None:
    (tmp_path / "my_program.py").write_text(PROGRAM)
    subprocess.run("git init -q . && echo a > a && git add a && echo b > a", shell=True, check=True, cwd=tmp_path)
    for name, arguments in {"deepseek-gateway": " -m deepseek_gateway", "python": ""}.items():
        shim = tmp_path / "bin" / name
        shim.parent.mkdir(exist_ok=True)
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        shim.chmod(0o755)
    serves = command.split()[1] in {"emulator", "serve"}
    if serves:
        command = f"exec {command} --port 0"
    with Emulator() as emulator:
        environment = os.environ | emulator.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", command],
            env=environment | {"PYTHONUNBUFFERED": "1"},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        printed = ""
        if serves:
            assert process.stdout
            printed = process.stdout.readline()  # the emulator is running now
            process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
        printed += rest
    assert (process.returncode, bool(printed)) == (0, True), errors
    assert "Traceback" not in errors


def test_commands_cover_ask_doctor_emulator_run_and_serve() -> None:
    assert len(COMMANDS) == 7
    assert {command.split("deepseek-gateway ", 1)[1].split()[0] for command in COMMANDS} == {
        "ask",
        "doctor",
        "emulator",
        "run",
        "serve",
    }


def test_speed_table_matches_stored_results_and_targets() -> None:
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text("utf-8"))
    assert markdown(judged(results)) in README, "benchmarks/README.md says how to update it"


def test_command_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "deepseek_gateway", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "demo" in done.stdout
