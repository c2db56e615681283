"""The tables of the documents match the code and its measurements."""

from __future__ import annotations

import inspect
import json
import re
import time
import tomllib
from contextlib import suppress
from typing import Any

import integrations
import openai
import programs
import pytest
from documents import DOCUMENTS, PAGES, README, ROOT, section, tables
from dotenv import dotenv_values
from typer.testing import CliRunner

from benchmarks.report import judged, markdown
from deepseek_gateway import create_client, gateway_headers
from deepseek_gateway._codes import CODES
from deepseek_gateway._settings import ROUTES, SETTINGS, Setting
from deepseek_gateway.cli.app import app
from deepseek_gateway.emulator import Emulator
from deepseek_gateway.testing import plugin


def column(text: str, heading: str, number: int = 0) -> list[str]:
    """Give a column of the only table of a section, without backticks."""
    (table,) = tables(section(text, heading))
    return [row[number].strip("`") for row in table]


class TestSettings:
    @staticmethod
    def default_of(setting: Setting) -> str | None:
        """Give the default of a setting as a variable spells it."""
        spelled = {True: "on", False: "off", None: None}
        return setting.default if isinstance(setting.default, str) else spelled[setting.default]

    def test_table_matches_the_code(self) -> None:
        rows = [
            f"| {' or '.join(f'`{name}`' for name in setting.variables)} "
            f"| {f'`{text}`' if (text := self.default_of(setting)) else ''} | {setting.meaning} | {setting.source} |"
            for setting in SETTINGS
        ]
        assert "\n".join(rows) in README

    def test_env_example_matches_the_code(self) -> None:
        example = dotenv_values(ROOT / ".env.example")
        assert list(example) == [setting.variables[0] for setting in SETTINGS]
        assert [value or None for value in example.values()] == [self.default_of(setting) for setting in SETTINGS]


def test_extras_table_and_install_commands_name_existing_extras() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert {*column(PAGES["getting-started"], "Extras"), "test"} == extras.keys()
    for text in DOCUMENTS.values():
        for named in re.findall(r"pip install (?:-q -e )?'\.\[(.+?)\]'", text):
            assert set(named.split(",")) <= extras.keys()


def test_command_table_names_every_command() -> None:
    (commands,) = tables(PAGES["command-line"].partition("\n## ")[0])
    registered = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
    assert sorted(row[0].strip("`") for row in commands) == sorted(registered)


def test_json_of_doctor_has_the_names_that_the_page_lists() -> None:
    done = CliRunner().invoke(app, ["doctor", "--offline", "--json"])
    report = json.loads(done.stdout)
    listed = dict(re.findall(r"(?m)^- `(settings|checks)`: (.+) of each", section(PAGES["command-line"], "doctor")))
    assert report.keys() == {*listed, "summary", "exit_status"}
    for name, fields in listed.items():
        assert list(report[name][0]) == re.findall("`(.+?)`", fields)


def test_fixture_table_names_every_fixture_of_the_plugin() -> None:
    fixtures = re.findall(r"@pytest\.fixture\ndef (\w+)", inspect.getsource(plugin))
    assert column(PAGES["testing"], "The emulator") == fixtures


class TestRoutes:
    CREDENTIALS = section(PAGES["routes"], "Which credential goes where")

    def test_tables_name_every_route(self) -> None:
        (routes,) = tables(PAGES["routes"].partition("\n## ")[0])
        assert tuple(row[0].strip("`") for row in routes) == ROUTES
        assert re.findall(r"(?m)^- `(\w+)`", section(README, "Routes")) == list(ROUTES)

    @pytest.mark.parametrize("route", ROUTES)
    def test_credentials_arrive_in_the_header_that_the_table_names(self, route: Any) -> None:
        ((_, token, key),) = [row for table in tables(self.CREDENTIALS) for row in table if f"`{route}`" in row[0]]
        with Emulator() as emulator, create_client(emulator.config(route)) as client:
            with suppress(openai.APIError):  # the rest route has no list of models
                client.models.list()
            headers = emulator.requests[0].headers
            for secret, cell in ((emulator.gateway_token, token), (emulator.api_key, key)):
                holding = {name for name, value in headers.items() if secret in value}
                assert holding == {name.lower() for name in re.findall("`(.+?)`", cell)}


CANDIDATES = (1, 60, True, "constant", {"total_cost": 1}, "a" * 32, "b" * 16)


def test_options_table_names_each_argument_with_its_header() -> None:
    (table,) = tables(PAGES["options"].partition("\n## ")[0])
    written = {row[0].strip("`"): row[1].strip("`") for row in table}
    assert list(written) == list(inspect.signature(gateway_headers).parameters)
    for name, header in written.items():
        made = set[str]()
        for value in CANDIDATES:
            with suppress(ValueError):
                options: Any = {name: value}
                made |= gateway_headers(**options).keys()
        assert made == {header}


def test_codes_table_matches_the_code() -> None:
    spelled = {True: "yes", False: "no", None: "as the status says"}
    rows = [[number, code.meaning, spelled[code.retry]] for number, code in CODES.items()]
    assert tables(section(PAGES["errors"], "Codes of the gateway")) == [rows]


RETRIES = {what: counts for ((what, *counts),) in [(row,) for row in tables(section(PAGES["errors"], "Retries"))[0]]}


def fail_always(what: str, emulator: Emulator) -> None:
    """Make every request fail as a row of the table describes."""
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
@pytest.mark.parametrize("what", RETRIES)
def test_retries_table_counts_the_calls_that_reach_deepseek(
    what: str, column: int, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        assert sum(len(request.attempts) for request in emulator.requests) == int(RETRIES[what][column])


def test_every_promise_names_an_existing_test() -> None:
    promises = tables(section(PAGES["security"], "Promises"))[0]
    assert len(promises) >= 17
    for _, shown_by in promises:
        path, _, name = shown_by.removeprefix("[`").partition("`]")[0].partition("::")
        text = (ROOT / path).read_text("utf-8")
        assert not name or re.search(rf"^(def|class) {name}\b", text, re.MULTILINE), shown_by


def test_every_library_in_the_integrations_table_has_a_test() -> None:
    assert list(integrations.WRITTEN) == list(integrations.LIBRARIES)


def test_programs_table_has_seven_commands_that_nox_runs() -> None:
    assert len(programs.WRITTEN) == 7
    assert all("deepseek-gateway run -- " in command for command in programs.WRITTEN.values())


def test_tables_of_speed_match_stored_results_and_targets() -> None:
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text("utf-8"))
    for part in markdown(judged(results)).split("\n\n"):
        assert part in PAGES["performance"], "benchmarks/README.md says how to update it"
