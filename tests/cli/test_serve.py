"""The command `serve`, in a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pytest
from calling import MESSAGES, chat
from commands import call, run

from deepseek_gateway.cli.forwarder import Line
from deepseek_gateway.cli.serve import as_text, introduction
from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLES = ["OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_API_KEY"]


class Process:
    """The command while it runs."""

    def __init__(self, emulator: Emulator, *arguments: str) -> None:
        self.running = subprocess.Popen(
            [sys.executable, "-m", "deepseek_gateway", "serve", "--port", "0", *arguments],
            env=os.environ | emulator.environ | {"OPENAI_ORG_ID": "org-of-mine"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if "--json" in arguments:
            self.variables = json.loads(self.line())
        else:
            self.introduction = "".join(
                iter(self.line, "# The key is new in each run. The calls are shown below; Ctrl-C ends the server.\n")
            )
            assert self.line() == "\n"
            exports = [shlex.split(line)[1] for line in self.introduction.splitlines() if line.startswith("export ")]
            self.variables = dict(export.split("=", 1) for export in exports)

    def line(self) -> str:
        assert self.running.stdout is not None
        line = self.running.stdout.readline()
        assert line, self.running.communicate()
        return line

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(
            api_key=self.variables["OPENAI_API_KEY"], base_url=self.variables["OPENAI_BASE_URL"], max_retries=0
        )

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Interrupt it; give its exit status and what it had to complain."""
        began = time.monotonic()
        self.running.send_signal(number)
        _, complaints = self.running.communicate(timeout=10)
        assert time.monotonic() - began < 2
        return self.running.returncode, complaints


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[Process, Emulator]]:
    with Emulator() as emulator:
        process = Process(emulator, *arguments)
        try:
            yield process, emulator
        finally:
            process.running.kill()
            process.running.communicate()


def test_printed_variables_reach_the_gateway_and_each_call_is_one_line() -> None:
    with serving() as (process, emulator), process.client() as client:
        assert list(process.variables) == VARIABLES
        assert chat(client).choices[0].message.content
        chat(client, extra_headers={"cf-aig-cache-key": "k"})
        text = r"\d\d:\d\d:\d\d  POST /chat/completions  deepseek-flash  200  %s  \d+ \+ \d+ tokens  \d+ ms\n"
        assert re.fullmatch(text % "-", process.line())
        assert re.fullmatch(text % "MISS", process.line())
        assert len(emulator.requests) == 2
        assert "unset OPENAI_ORG_ID\n" in process.introduction
        assert emulator.api_key not in process.introduction
        assert process.end() == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_printed_lines_can_be_pasted_into_a_shell() -> None:
    with serving() as (process, _):
        lines, _, _ = process.introduction.partition("# For PowerShell:")
        done = subprocess.run(
            ["bash", "-euc", f"{lines}\nenv"], capture_output=True, text=True, check=True, env={"OPENAI_ORG_ID": "x"}
        )
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert {name: seen[name] for name in VARIABLES} == process.variables
    assert "OPENAI_ORG_ID" not in seen


def test_introduction_has_the_lines_for_powershell() -> None:
    with Emulator() as emulator:
        lines = list(introduction(emulator.config(), {"OPENAI_API_KEY": "k"}, {"OPENAI_PROJECT_ID": "p"}))
    assert lines[lines.index("\n# For PowerShell:\n") + 1 :][:2] == [
        "$env:OPENAI_API_KEY = 'k'",
        "Remove-Item Env:OPENAI_PROJECT_ID",
    ]


def test_json_lines_have_the_variables_first_and_then_each_call() -> None:
    with serving("--json", "--route", "compat") as (process, _), process.client() as client:
        assert list(process.variables) == VARIABLES
        chat(client, max_completion_tokens=9)
        line = json.loads(process.line())
        with pytest.raises(openai.AuthenticationError):
            chat(client.with_options(api_key="sk-other"))
        refused = json.loads(process.line())
        assert process.end() == (0, "")
    assert line["time"].endswith("+00:00")
    told = {"method": "POST", "path": "/chat/completions", "status": 200, "ending": "complete", "route": "compat"}
    assert told.items() <= line.items()
    assert line["adapted"] == ["max_completion_tokens"]
    assert line["usage"].keys() == {"prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens"}
    assert line["elapsed"] > 0
    assert (refused["status"], "model" in refused) == (401, False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_the_server_at_once_during_a_call(number: int) -> None:
    with Emulator(latency=60) as emulator:
        process = Process(emulator)
        host = process.variables["OPENAI_BASE_URL"].split("/")[2]
        client = http.client.HTTPConnection(host, timeout=10)
        headers = {"authorization": f"Bearer {process.variables['OPENAI_API_KEY']}"}
        client.request("POST", "/v1/chat/completions", json.dumps({"model": "m", "messages": MESSAGES}), headers)
        while not emulator.requests:
            time.sleep(0.01)
        assert process.end(number) == (0, "")
        client.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's peak of resident memory")
@pytest.mark.parametrize("route", ["provider", "compat"])
def test_body_of_100_mb_is_held_once_by_the_forwarder(route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_GATEWAY_ROUTE", route)
    size = 100 * 1024 * 1024

    def peak(process: Process) -> int:
        status = Path(f"/proc/{process.running.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024

    def ask(client: openai.OpenAI, text: str) -> None:
        body = {"model": "deepseek-flash", "messages": [{"role": "user", "content": text}]}
        client.post("/chat/completions", body=body, cast_to=object)

    with serving("--json") as (process, emulator), process.client() as client:
        ask(client, "Hi")
        before = peak(process)
        ask(client, "x" * size)
        assert peak(process) - before < 1.3 * size
        last = emulator.requests[-1]
        assert (last.route, last.model) == (route, "deepseek/deepseek-flash" if route == "compat" else "deepseek-flash")
        emulator.requests.clear()


def test_port_in_use_is_reported_in_one_sentence_with_status_1(emulator: Emulator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, out, err = run("serve", "--port", port)
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"Cannot listen on port {port} of 127.0.0.1 \(.+\); choose another with --port, .+\.\n", err)


def test_missing_settings_are_reported_before_anything_is_served() -> None:
    status, out, err = call("serve")
    assert (status, out) == (1, "")
    assert "CLOUDFLARE_ACCOUNT_ID" in err


def test_line_escapes_control_characters_of_the_caller() -> None:
    line = Line(method="POST", path="/\x1b[2J\n云", status=200, ending="cut off", seconds=0.0124)
    assert as_text(line)[10:] == r"POST /\x1b[2J\n\u4e91  -  200 cut off  -  -  12 ms"
