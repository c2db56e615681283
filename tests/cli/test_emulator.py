"""The command `emulator`. Most tests run it in a new process."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from io import StringIO
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import openai
import pytest
from commands import call

from deepseek_gateway import GatewayConfig, create_client
from deepseek_gateway.cli import emulator as serving
from deepseek_gateway.emulator import Emulator, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = [sys.executable, "-m", "deepseek_gateway", "emulator"]
MESSAGES: Any = [{"role": "user", "content": "Hi"}]


class Process:
    """The running command, and the settings that it printed."""

    def __init__(self, *arguments: str, command: list[str] = COMMAND) -> None:
        self.running = subprocess.Popen(
            [*command, "--port", "0", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.introduction = ""
        while not self.introduction.endswith("Ctrl-C ends the emulator.\n\n"):
            self.introduction += self.line()
        exports = [shlex.split(line)[1] for line in self.introduction.splitlines() if line.startswith("export ")]
        self.settings = dict(export.split("=", 1) for export in exports)

    def line(self) -> str:
        assert self.running.stdout is not None
        line = self.running.stdout.readline()
        assert line, self.running.communicate()
        return line

    def log(self) -> str:
        """Return the next line of the log, without its time of day and duration."""
        line = self.line()
        found = re.fullmatch(r"\d\d:\d\d:\d\d  (.+)  \d+ ms\n", line)
        assert found, line
        return found[1]

    def client(self, *without: str, **overrides: Any) -> openai.OpenAI:
        settings = {name: value for name, value in self.settings.items() if name not in without}
        return create_client(GatewayConfig.from_env(settings, **overrides), max_retries=0)

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Interrupt the command, and return its exit status and its standard error."""
        began = time.monotonic()
        self.running.send_signal(number)
        _, complaints = self.running.communicate(timeout=10)
        assert time.monotonic() - began < 2
        return self.running.returncode, complaints


@contextmanager
def running(*arguments: str, **options: Any) -> Iterator[Process]:
    process = Process(*arguments, **options)
    try:
        yield process
    finally:
        process.running.kill()
        process.running.communicate()


def run(*arguments: str, code: str = "") -> tuple[int, str, str]:
    command = [sys.executable, "-c", code, "emulator"] if code else COMMAND
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=20)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("route", ["compat", "rest"])
def test_emulator_command_prints_the_settings_of_the_route(route: str) -> None:
    with running("--route", route) as process:
        assert process.settings["DEEPSEEK_GATEWAY_ROUTE"] == route
        with process.client() as client:
            client.chat.completions.create(model="deepseek-flash", messages=MESSAGES)
        assert "deepseek/deepseek-flash -> deepseek-flash  200" in process.log()


@pytest.mark.parametrize("option", ["--env-file", "--endpoint"])
def test_emulator_command_refuses_settings(option: str) -> None:
    status, _, err = call("emulator", option, __file__)
    assert status == 2
    assert "takes no settings" in err


def test_printed_settings_reach_the_emulator_and_each_exchange_is_one_line() -> None:
    with running() as process:
        assert list(process.settings) == [
            "DEEPSEEK_GATEWAY_ENDPOINT",
            "CF_AIG_TOKEN",
            "DEEPSEEK_API_KEY",
            "DEEPSEEK_DIRECT_ENDPOINT",
        ]
        with process.client() as client:
            answer = client.chat.completions.create(model="deepseek-flash", messages=MESSAGES)
            assert "emulator" in str(answer.choices[0].message.content)
            assert process.log() == "POST /deepseek/chat/completions  deepseek-flash  200  -"
        with process.client("DEEPSEEK_API_KEY", route="compat") as client:
            for _ in range(2):
                client.chat.completions.create(
                    model="deepseek-flash", messages=MESSAGES, extra_headers={"cf-aig-cache-key": "k"}
                )
            model = "deepseek/deepseek-flash"
            assert process.log() == f"POST /compat/chat/completions  {model} -> deepseek-flash  200  MISS"
            assert process.log() == f"POST /compat/chat/completions  {model}  200  HIT"
        rest = re.search(r"On the rest route the endpoint is (\S+)", process.introduction)
        assert rest is not None
        with process.client(endpoint=rest[1], route="rest") as client:
            client.chat.completions.create(model="deepseek-flash", messages=MESSAGES)
            assert process.log() == f"POST /ai/v1/chat/completions  {model} -> deepseek-flash  200  -"
        assert "\x1b" not in process.introduction
        assert process.end() == (0, "")


def test_settings_are_printed_for_powershell_too() -> None:
    with running() as process:
        for name, value in process.settings.items():
            assert f"$env:{name} = '{value}'\n" in process.introduction


def test_printed_direct_endpoint_answers_as_deepseek_itself() -> None:
    with running() as process:
        url, key = process.settings["DEEPSEEK_DIRECT_ENDPOINT"], process.settings["DEEPSEEK_API_KEY"]
        with openai.OpenAI(base_url=url, api_key=key) as client:
            assert client.models.list().data
        assert process.log() == "GET /direct/models  -  200  -"


def test_printed_curl_command_sets_the_next_answer() -> None:
    with running() as process:
        found = re.search(r"curl (http://\S+) --json '(.+)'$", process.introduction, re.MULTILINE)
        assert found is not None
        request = urllib.request.Request(found[1], found[2].encode())
        assert json.load(urllib.request.urlopen(request)) == {"pending": 1}
        with process.client() as client:
            answer = client.chat.completions.create(model="deepseek-flash", messages=MESSAGES)
        assert answer.choices[0].message.content == json.loads(found[2])["text"]


def test_pace_option_spreads_a_stream() -> None:
    with running("--pace", "0.01") as process, process.client() as client:
        chunks = list(client.chat.completions.create(model="deepseek-flash", messages=MESSAGES, stream=True))
        milliseconds = int(process.line().split()[-2])
    assert milliseconds >= 10 * len(chunks)


def test_emulator_help_names_the_controls() -> None:
    status, out, _ = call("emulator", "--help")
    assert status == 0
    assert all(f"/_emulator/{name}" in out for name in ("answers", "failures", "reset"))


def test_emulator_page_is_at_the_printed_url() -> None:
    with running() as process:
        found = re.search(r"http://(127.0.0.1:\d+)/ ", process.introduction)
        assert found is not None
        connection = http.client.HTTPConnection(found[1], timeout=10)
        connection.request("GET", "/", headers={"accept": "text/html"})
        assert b"<title>AI Gateway emulator</title>" in connection.getresponse().read()
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_the_emulator_at_once_during_an_exchange(number: int) -> None:
    with running("--latency", "60") as process:
        host, _, path = process.settings["DEEPSEEK_GATEWAY_ENDPOINT"].removeprefix("http://").partition("/")
        page, call = (http.client.HTTPConnection(host, timeout=10) for _ in range(2))
        page.request("GET", "/_exchanges")
        page.getresponse().readline()
        headers = {"cf-aig-authorization": f"Bearer {process.settings['CF_AIG_TOKEN']}"}
        body = {"model": "deepseek-flash", "messages": MESSAGES, "stream": True}
        call.request("POST", f"/{path}/deepseek/chat/completions", json.dumps(body), headers)
        assert process.end(number) == (0, "")
        page.close()
        call.close()


def test_sigint_ends_an_emulator_that_was_started_with_sigint_ignored() -> None:
    ignoring = f"import os, signal; signal.signal(2, signal.SIG_IGN); os.execv({sys.executable!r}, {COMMAND!r} + "
    with running(command=[sys.executable, "-c", f"{ignoring} __import__('sys').argv[1:])"]) as process:
        assert process.end() == (0, "")


def test_open_emulator_accepts_calls_without_a_token() -> None:
    with running("--open") as process:
        assert "CF_AIG_TOKEN" not in process.settings
        with process.client() as client:
            assert client.models.list().data


def test_emulator_without_a_stored_key_refuses_a_call_without_a_key() -> None:
    with running("--no-stored-key") as process:
        with process.client("DEEPSEEK_API_KEY") as client, pytest.raises(openai.AuthenticationError):
            client.models.list()
        assert process.log() == "GET /deepseek/models  -  401  -"
        with process.client() as client:
            assert client.models.list().data


def test_fail_options_apply_in_order_and_with_their_counts() -> None:
    with running("--fail", "2003", "--fail", "503:2", "--fail", "524") as process, process.client() as client:
        for status in (429, 503, 503, 524):
            with pytest.raises(openai.APIStatusError) as caught:
                client.models.list()
            assert caught.value.status_code == status
            assert process.log() == f"GET /deepseek/models  -  {status}  -"
        assert client.models.list().data


def test_latency_option_delays_the_answer() -> None:
    with running("--latency", "0.3") as process, process.client() as client:
        client.models.list()
        milliseconds = int(process.line().split()[-2])
    assert 300 <= milliseconds < 5000


def test_port_in_use_is_reported_in_one_sentence_with_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, out, err = run("--port", port)
        assert (status, out) == (1, "")
        assert re.fullmatch(
            rf"Cannot listen on port {port} of 127.0.0.1 \(.+\); choose another with --port, .+\.\n", err
        )
        status, out, err = run("--port", port, "--debug")
        assert status == 1
        assert err.startswith("Traceback")
        assert err.splitlines()[-1].startswith(f"Cannot listen on port {port}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fail", "1234"], "2001, 2003"),
        (["--fail", "418"], "429, 500, 502"),
        (["--fail", "soon"], "'soon'"),
        (["--fail", "2003:"], "'2003:'"),
        (["--fail", "2003:0"], "503:2"),
        (["--fail", ""], "--fail"),
        (["--port", "65536"], "--port"),
        (["--port", "http"], "--port"),
        (["--latency", "-1"], "--latency"),
        (["--latency", "nan"], "latency"),
        (["--pace", "-1"], "--pace"),
        (["--no-such-option"], "--no-such-option"),
        (["surplus"], "surplus"),
    ],
)
def test_wrong_emulator_option_is_reported_with_status_2(arguments: list[str], message: str) -> None:
    status, out, err = call("emulator", *arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_crash_in_the_emulator_is_reported_at_the_end_with_status_1() -> None:
    code = (
        "import sys\nfrom deepseek_gateway.__main__ import main\n"
        "from deepseek_gateway.emulator._deepseek import DeepSeek\n"
        "DeepSeek.answer = lambda *_: 1 / 0\nsys.argv.insert(1, 'emulator')\nmain()"
    )
    with running(command=[sys.executable, "-c", code]) as process, process.client() as client:
        with pytest.raises(openai.InternalServerError):
            client.models.list()
        assert process.log() == "GET /deepseek/models  -  500  -"
        status, complaint = process.end()
    assert status == 1
    assert "ZeroDivisionError" in complaint
    assert complaint.count("\n") == 1


def test_emulator_help_imports_neither_openai_nor_the_server() -> None:
    code = (
        "import sys\nfrom deepseek_gateway.__main__ import main\nsys.argv = ['x', 'emulator', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    assert not {'openai', 'uvicorn', 'starlette'} & set(sys.modules)\n"
    )
    status, out, err = run(code=code)
    assert (status, err) == (0, "")
    assert "Ctrl-C" in out


def test_emulator_without_its_extra_names_the_package_to_install() -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from deepseek_gateway.__main__ import main; main()"
    status, out, err = run(code=code)
    assert (status, out) == (2, "")
    assert "needs the extra `emulator`: " in err
    assert "Traceback" not in err


def row(**fields: Any) -> Row:
    usual = {"number": 1, "began": 0.0, "method": "POST", "path": "/x", "route": "provider", "endpoint": "/x"}
    usual |= {"asked": "m", "sent": "m", "status": 200, "cache": "", "tokens": None, "streamed": False}
    return Row(**(usual | {"complete": True, "seconds": 0.0124} | fields))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "POST /x  m  200  -  12 ms"),
        ({"status": None, "complete": False, "sent": None}, "POST /x  m  no answer  -  12 ms"),
        ({"complete": False}, "POST /x  m  200 cut off  -  12 ms"),
        ({"asked": "\x1b[2J\r云\n"}, r"POST /x  \x1b[2J\r\u4e91\n -> m  200  -  12 ms"),
        ({"path": "/\x1b]0;title\x07"}, r"POST /\x1b]0;title\x07  m  200  -  12 ms"),
        ({"cache": "HIT", "sent": None}, "POST /x  m  200  HIT  12 ms"),
    ],
)
def test_exchange_line_escapes_control_characters(fields: dict[str, Any], text: str) -> None:
    assert serving.line(row(**fields))[10:] == text


class Screen(StringIO):
    def __init__(self, *, terminal: bool = False) -> None:
        super().__init__()
        self.isatty = lambda: terminal  # type: ignore[method-assign]


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("wish", ["", "1"])
def test_exchange_line_is_coloured_only_on_a_terminal_without_no_color(
    terminal: bool, wish: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", wish)
    monkeypatch.setattr("sys.stdout", Screen(terminal=terminal))
    assert ("\x1b[31m503" in serving.line(row(status=503))) is (terminal and not wish)


def test_emulator_command_keeps_no_exchange_after_printing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: SimpleQueue[Row | None] = SimpleQueue()
    emulator = Emulator(on_exchange=rows.put)
    screen = Screen()
    monkeypatch.setattr("sys.stdout", screen)
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]

    def use() -> None:
        while not screen.getvalue().endswith("\n\n"):
            time.sleep(0.01)
        with create_client(emulator.config()) as client:
            client.models.list()
        while " ms\n" not in screen.getvalue():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    caller = threading.Thread(target=use)
    caller.start()
    try:
        serving.serve(emulator, rows)
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
        caller.join()
    assert screen.getvalue().count(" ms\n") == 1
    assert emulator.requests == []
