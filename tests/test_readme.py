"""README's promises about itself: its snippets run, its tables are those of the code, its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

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
    for said in re.findall(r"print\(.*\)  # (\S+)", SNIPPETS[number]):
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
