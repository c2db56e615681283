"""README's promises about itself: its snippets run, its tables are those of the code, its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import openai
import pytest
from dotenv import dotenv_values

from deepseek_gateway import create_client, gateway_headers
from deepseek_gateway._config import SETTINGS
from deepseek_gateway.emulator import Emulator

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_runs_as_it_stands(
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


def test_the_first_screen_holds_the_two_set_up_commands() -> None:
    commands = re.findall(r"^    (.*)$", README.partition("\n## ")[0], re.MULTILINE)
    assert commands == [
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[all]' && .venv/bin/deepseek-gateway demo",
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/pytest",
    ], "these are what .ci/run runs"


def test_the_table_of_settings_is_the_codes() -> None:
    rows = [
        f"| {' or '.join(f'`{name}`' for name in setting.variables)} "
        f"| {f'`{setting.default}`' if setting.default else ''} | {setting.meaning} | {setting.source} |"
        for setting in SETTINGS
    ]
    assert "\n".join(rows) in README
    example = dotenv_values(ROOT / ".env.example")
    assert list(example) == [setting.variables[0] for setting in SETTINGS]
    assert [value or None for value in example.values()] == [setting.default for setting in SETTINGS]


def failing_each_time(what: str, emulator: Emulator) -> None:
    """Make the emulator do what a row of README's table says, as often as anybody asks."""
    if "429 or 5xx" in what:
        emulator.fail_next(status=503, times=99)
    elif "cannot be reached" in what:
        emulator.fail_next(unreachable=True, times=99)
    elif "2003" in what:
        emulator.fail_next(2003, times=99)
    elif "is lost after" in what:
        for _ in range(3):  # of each of the SDK's tries the gateway's last one succeeds, and its answer gets lost
            emulator.fail_next(status=503, times=4)
            emulator.fail_next(cut_after=5)
    elif "402" in what:
        emulator.fail_next(status=402, times=99)
    elif "limit, policy or guardrail" in what:
        emulator.fail_next(2045, times=99)
    else:
        pytest.fail(f"no such row is known: {what}")


@pytest.mark.parametrize("column", [0, 1], ids=["alone", "max_attempts"])
@pytest.mark.parametrize("what", re.findall(r"(?m)^\| (.+) \| \d+ \| \d+ \|$", README))
def test_the_table_of_retries_counts_what_reaches_deepseek(
    what: str, column: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (counts,) = re.findall(rf"(?m)^\| {re.escape(what)} \| (\d+) \| (\d+) \|$", README)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the SDK's wait between its tries
    with Emulator() as emulator, create_client(emulator.config()) as client:
        if "is lost after" in what and not column:
            emulator.fail_next(cut_after=5, times=99)
        else:
            failing_each_time(what, emulator)
        options = gateway_headers(max_attempts=5, retry_delay=0) if column else {}
        with pytest.raises(openai.APIError):
            client.chat.completions.create(
                model="deepseek-flash", messages=[{"role": "user", "content": "Hi"}], extra_headers=options
            )
        assert sum(len(request.attempts) for request in emulator.requests) == int(counts[column])


def test_every_promise_names_a_test_that_exists() -> None:
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", README)
    assert len(named) >= 5
    for path, name in named:
        assert re.search(rf"^(def|class) {name}\b", (ROOT / path).read_text("utf-8"), re.MULTILINE), name


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_the_command_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "deepseek_gateway", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "demo" in done.stdout
