"""The command `run`: what the program gets, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from commands import COMMAND, call, run

from deepseek_gateway.cli.run import environment, execute

if TYPE_CHECKING:
    from pathlib import Path

    from deepseek_gateway.emulator import Emulator

ASK = """
import openai
messages = [{"role": "user", "content": "Hi"}]
print(openai.OpenAI().chat.completions.create(model="deepseek-flash", messages=messages).choices[0].message.content)
"""
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


def run_python(code: str, *options: str, **others: Any) -> tuple[int, str, str]:
    return run("run", *options, "--", sys.executable, "-c", code, **others)


class TestEnvironment:
    def test_program_asks_through_the_gateway_with_a_stored_key(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("DEEPSEEK_API_KEY")
        status, out, err = run_python(ASK)
        assert (status, err) == (0, "")
        assert "emulator" in out
        (request,) = emulator.requests
        assert "authorization" not in request.headers

    def test_program_gets_the_forwarder_and_no_openai_identity(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert emulator.url  # its settings are in the environment
        identity = ["OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS"]
        for name in (*identity, "OPENAI_API_KEY", "OPENAI_BASE_URL"):
            monkeypatch.setenv(name, "mine")
        status, out, _ = run_python(SHOW)
        seen = {name: value for name, value in json.loads(out).items() if name.startswith("OPENAI_")}
        assert status == 0
        assert seen.keys() == {"OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_API_KEY"}
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", seen["OPENAI_BASE_URL"])
        assert seen["OPENAI_API_BASE"] == seen["OPENAI_BASE_URL"]
        assert seen["OPENAI_API_KEY"].startswith("sk-local-")

    @pytest.mark.parametrize(
        ("given", "excepted"),
        [
            ({"HTTPS_PROXY": "http://proxy"}, "127.0.0.1"),
            ({"http_proxy": "http://proxy", "NO_PROXY": "a,b"}, "a,b,127.0.0.1"),
            ({"ALL_PROXY": "http://proxy", "no_proxy": "a", "NO_PROXY": "b"}, "a,127.0.0.1"),
        ],
    )
    def test_program_behind_a_proxy_reaches_the_forwarder_directly(self, given: dict[str, str], excepted: str) -> None:
        made = environment(given, {})
        assert (made["NO_PROXY"], made["no_proxy"]) == (excepted, excepted)

    @pytest.mark.parametrize("given", [{}, {"NO_PROXY": "a"}, {"HTTP_PROXY": "http://proxy", "NO_PROXY": "*"}])
    def test_exceptions_stay_where_no_proxy_is_used(self, given: dict[str, str]) -> None:
        assert environment(given, {}) == given


@pytest.mark.usefixtures("emulator")
class TestStreams:
    def test_standard_streams_are_the_programs(self) -> None:
        code = "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.stderr.write('complaint')"
        assert run_python(code, input="text") == (0, "TEXT", "complaint")

    def test_log_option_prints_a_line_for_each_call_to_stderr(self) -> None:
        _, out, err = run_python(ASK, "--log")
        assert "emulator" in out
        assert re.fullmatch(r"[\d:]+  POST /chat/completions  deepseek-flash  200  -  .+ tokens  \d+ ms\n", err)

    def test_options_after_the_program_are_the_programs(self) -> None:
        status, out, _ = run("run", sys.executable, "-c", "import sys; print(sys.argv[1:])", "--log", "--route", "x")
        assert (status, out) == (0, "['--log', '--route', 'x']\n")


@pytest.mark.usefixtures("emulator")
class TestExitStatus:
    @pytest.mark.parametrize("status", [0, 1, 7, 255])
    def test_exit_status_is_the_programs(self, status: int) -> None:
        assert execute([sys.executable, "-c", f"raise SystemExit({status})"], os.environ) == status

    @POSIX
    def test_program_that_a_signal_ends_gives_128_and_the_signal(self) -> None:
        code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
        assert execute([sys.executable, "-c", code], os.environ) == 128 + signal.SIGKILL

    def test_program_that_is_not_found_gives_127(self) -> None:
        status, out, err = run("run", "--", "no-such-program")
        assert (status, out, err) == (127, "", "no-such-program was not found.\n")

    @POSIX
    def test_program_that_cannot_be_run_gives_126(self, tmp_path: Path) -> None:
        (tmp_path / "plain").write_text("text")
        status, out, err = run("run", "--", str(tmp_path / "plain"))
        assert (status, out, err) == (126, "", f"{tmp_path / 'plain'} cannot be run: Permission denied.\n")

    def test_debug_option_shows_the_traceback(self) -> None:
        assert run("run", "--debug", "--", "no-such-program")[2].startswith("Traceback")


def test_missing_settings_give_1_and_the_program_is_not_run() -> None:
    status, out, err = call("run", "--", "no-such-program")
    assert (status, out) == (1, "")
    assert "CLOUDFLARE_ACCOUNT_ID" in err


def test_run_without_a_program_is_wrong_usage() -> None:
    assert call("run")[0] == 2


@POSIX
@pytest.mark.usefixtures("emulator")
class TestSignals:
    # A program that waits, and ends with 5 after one SIGINT or SIGTERM.
    WAIT = (
        "import signal, sys, time\n"
        "def end(number, frame):\n    print(number, flush=True); sys.exit(5)\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, end)\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )

    def waiting(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, "run", "--", sys.executable, "-c", self.WAIT],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    def test_ctrl_c_in_the_terminal_goes_to_the_program_once(self) -> None:
        with self.waiting() as process:
            os.killpg(process.pid, signal.SIGINT)  # what a terminal does
            out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (5, f"{signal.SIGINT:d}\n", "")

    def test_request_to_terminate_is_passed_on_to_the_program(self) -> None:
        with self.waiting() as process:
            process.terminate()
            out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (5, f"{signal.SIGTERM:d}\n", "")
