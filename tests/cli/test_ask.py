"""`deepseek-gateway ask`: its output, its request, and its message and status after a failure."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from calling import KEY, TOKEN
from commands import COMMAND, call, pieces, run, started
from loopback import Answer, Loopback

from deepseek_gateway import GatewayCall
from deepseek_gateway.cli import ask as asking

if TYPE_CHECKING:
    from pathlib import Path

    from deepseek_gateway.emulator import Emulator

ANSWER = "This is a canned answer from the local AI Gateway emulator. You asked: {}\n"
THINKING = "No model runs here"
EVENTS = {"content-type": "text/event-stream"}


class TestAnswer:
    @pytest.mark.parametrize(
        ("arguments", "given"), [(["Why?"], "not read"), (["-"], "Why?"), ([], "Why?")], ids=["argument", "-", "stdin"]
    )
    @pytest.mark.usefixtures("emulator")
    def test_stdout_holds_only_the_answer(self, arguments: list[str], given: str) -> None:
        status, out, err = call("ask", *arguments, given=given)
        assert (status, out) == (0, ANSWER.format("Why?"))
        thinking, blank, closing = _three(err)
        assert thinking.startswith(THINKING)
        assert blank == ""
        log_id = r"[0-9a-f-]{36}"
        assert re.fullmatch(
            rf"deepseek-flash: \d+ tokens in \(0 from DeepSeek's own cache\), \d+ out \(\d+ of them thinking\); "
            rf"gateway cache MISS; log {log_id}; \d+\.\d s",
            closing,
        )

    def test_options_appear_in_the_request(self, emulator: Emulator) -> None:
        options = ["--model", "deepseek-v4-pro", "--system", "Be brief.", "--no-thinking", "--skip-cache"]
        status, _, err = call(
            "ask", "Why?", *options, "--metadata", "team=docs", "--metadata", "a=b=c", "--event-id", "e1"
        )
        assert status == 0
        assert THINKING not in err
        request = emulator.requests[-1]
        assert request.json["model"] == "deepseek-v4-pro"
        assert [message["content"] for message in request.json["messages"]] == ["Be brief.", "Why?"]
        assert request.json["thinking"] == {"type": "disabled"}
        assert request.json["stream"] is True
        assert request.headers["cf-aig-skip-cache"] == "true"
        assert json.loads(request.headers["cf-aig-metadata"]) == {"team": "docs", "a": "b=c"}
        assert request.headers["cf-aig-event-id"] == "e1"

    def test_configured_model_is_asked_unless_an_option_names_another(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DEEPSEEK_MODEL", "deepseek-v4-pro")
        assert call("ask", "Why?")[0] == call("ask", "Why?", "--model", "deepseek-flash")[0] == 0
        assert [request.json["model"] for request in emulator.requests[-2:]] == ["deepseek-v4-pro", "deepseek-flash"]

    def test_cache_options_turn_streaming_off_and_hit_the_cache(self, emulator: Emulator) -> None:
        command = ("ask", "Why?", "--cache-key", "why", "--cache-ttl", "60")
        (_, first, miss), (_, second, hit) = call(*command), call(*command)
        assert first == second == ANSWER.format("Why?")
        assert "gateway cache MISS" in miss
        assert "gateway cache HIT" in hit
        assert [bool(request.json.get("stream")) for request in emulator.requests] == [False, False]
        assert emulator.requests[0].headers["cf-aig-cache-ttl"] == "60"

    @pytest.mark.usefixtures("emulator")
    def test_json_holds_answer_thinking_usage_and_call(self) -> None:
        status, out, err = call("ask", "Why?", "--json")
        assert (status, err) == (0, "")
        printed = json.loads(out)
        assert printed["answer"] == ANSWER.format("Why?").rstrip()
        assert printed["thinking"].startswith(THINKING)
        assert printed["usage"]["prompt_cache_hit_tokens"] == 0
        assert (printed["model"], printed["status"], printed["retry"]) == ("deepseek-flash", 200, 0)
        assert printed["log_id"]
        assert printed["elapsed"] > 0

    @pytest.mark.parametrize("route", ["compat", "provider"])
    def test_options_beat_the_environment(
        self, emulator: Emulator, route: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        endpoint = os.environ["DEEPSEEK_GATEWAY_ENDPOINT"]
        for name in ("CF_AIG_TOKEN", "DEEPSEEK_API_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("DEEPSEEK_GATEWAY_ENDPOINT", "https://unreachable.example")
        (tmp_path / "mine.env").write_text(f"CF_AIG_TOKEN={emulator.gateway_token}\n")
        options = ("--route", route, "--endpoint", endpoint, "--env-file", "mine.env")
        assert call("ask", "Why?", *options)[:2] == (0, ANSWER.format("Why?"))
        assert route.replace("provider", "/deepseek/") in emulator.requests[-1].path
        assert "authorization" not in emulator.requests[-1].headers

    def test_emulator_option_needs_no_settings_and_is_announced(self) -> None:
        status, out, err = call("ask", "Why?", "--emulator")
        assert (status, out) == (0, ANSWER.format("Why?"))
        assert err.startswith("A local emulator answers in place of Cloudflare and DeepSeek")

    def test_pipe_gets_the_text_with_its_control_characters(self, server: Loopback) -> None:
        text = "# Not *rendered*\n\x1b[31mnor \x07changed\n"
        server.answer = lambda _: Answer(pieces(text[:9], text[9:]))
        assert call("ask", "Why?")[1] == text

    def test_closing_line_names_missing_values_and_an_early_end(self) -> None:
        answer = asking.Answer(model="deepseek-flash", finish_reason="length")
        call = GatewayCall(status=200, cache_status="HIT", elapsed=1.26)
        assert asking.closing_line(answer, call) == (
            "deepseek-flash: gateway cache HIT; log not reported; 1.3 s; ended early: length"
        )


def _three(err: str) -> list[str]:
    """Return the first line, the second line and the last line."""
    lines = err.rstrip("\n").split("\n")
    return [lines[0], lines[1], lines[-1]]


class TestFailures:
    @pytest.mark.parametrize(
        ("failure", "said"),
        [
            ({"code": 2009}, "401 from AI Gateway, not from DeepSeek: this gateway asks for authentication"),
            ({"status": 401}, "401 from DeepSeek: Authentication Fails"),
            ({"status": 402}, "top it up at platform.deepseek.com"),
            ({"status": 403}, "403 from Cloudflare's edge"),
            ({"code": 2005, "event": 1}, "An error occurred during streaming: [{'code': 2005"),
            ({"cut_after": 900, "clean": True}, "The stream ended before [DONE]"),
            ({"reset": True, "times": 3}, "could not be reached"),
            ({"body": b"data: {no\n\n", "headers": {"content-type": "text/event-stream"}}, "is no JSON"),
            (
                {"body": b"data: []\n\ndata: [DONE]\n\n", "headers": {"content-type": "text/event-stream"}},
                "is no answer",
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    @pytest.mark.parametrize("debug", [False, True])
    def test_error_is_explained_in_the_last_line_with_status_1(
        self, emulator: Emulator, failure: dict[str, Any], said: str, debug: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("time.sleep", lambda _: None)  # the SDK's wait before a retry
        emulator.fail_next(**failure)
        status, _, err = call("ask", "Why?", *(["--debug"] if debug else []))
        assert status == 1
        assert said in err.rstrip("\n").split("\n")[-1]
        assert ("Traceback" in err) == (debug and "is no answer" not in said)
        assert emulator.api_key not in err
        assert emulator.gateway_token not in err

    def test_text_before_a_cut_stays_on_stdout(self, server: Loopback) -> None:
        server.answer = lambda _: Answer(pieces("So ", "far", end=False), ending="broken")
        status, out, err = call("ask", "Why?")
        assert (status, out) == (1, "So far\n")
        assert "before [DONE]" in err

    def test_missing_settings_are_all_named_and_the_emulator_is_offered(self) -> None:
        status, out, err = call("ask", "Why?")
        assert (status, out) == (1, "")
        for said in (
            "CLOUDFLARE_ACCOUNT_ID",
            "DEEPSEEK_API_KEY",
            "CF_AIG_TOKEN",
            "Cloudflare dashboard, Account home",
            "platform.deepseek.com, API keys",
            "ask --emulator",
        ):
            assert said in err
        assert "GatewayConfig" not in err  # this class does not exist on the command line

    def test_secret_repeated_in_an_error_is_redacted(self, server: Loopback) -> None:
        message = f"no \x1b]0;such\x07 key {KEY} or {TOKEN}"
        server.answer = lambda _: Answer({"error": {"message": message, "type": "t", "code": "c"}}, 404)
        status, _, err = call("ask", "Why?", "--debug")
        assert status == 1
        assert not re.search(f"{KEY}|{TOKEN}|\x1b|\x07", err)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["Why?", "--cache-ttl", "5"], "cache_ttl must be whole seconds from 60"),
            (["Why?", "--metadata", "team"], "KEY=VALUE"),
            (["Why?", "--event-id", "ä"], "printable ASCII"),
            (["Why?", "--route", "scenic"], "scenic"),
            (["Why?", "--env-file", "none.env"], "none.env"),
            (["Why?", "--emulator", "--endpoint", "https://example.com"], "--emulator needs no settings"),
            (["  ", "--emulator"], "the prompt is empty"),
            (["-", "--emulator"], "the prompt is empty"),
        ],
    )
    def test_wrong_ask_option_is_reported_with_status_2(self, arguments: list[str], said: str) -> None:
        status, out, err = call("ask", *arguments)
        assert (status, out) == (2, "")
        assert said in err.replace("\n", " ")


class TestProcess:
    @pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["ask", "--help"], ["ask", "Why?"], ["serve"]])
    def test_help_and_missing_settings_do_not_import_openai(self, arguments: list[str]) -> None:
        code = (
            "import sys\nfrom deepseek_gateway.__main__ import main\n"
            "try:\n    main()\nfinally:\n    assert 'openai' not in set(sys.modules)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == (1 if arguments in (["ask", "Why?"], ["serve"]) else 0)
        assert "AssertionError" not in done.stderr

    def test_interrupt_exits_with_130_and_keeps_the_text_so_far(self, server: Loopback) -> None:
        server.answer = lambda _: Answer(pieces("So far", end=False), ending="stall")
        with started("ask", "Why?") as process:
            assert process.stdout
            assert process.stderr
            assert process.stdout.read(6) == b"So far"  # the text arrives before the stream ends
            process.send_signal(signal.SIGINT)
            assert (process.stdout.read(), process.stderr.read()) == (b"\n", b"")
        assert process.returncode == 130

    def test_closed_pipe_exits_with_141_without_a_message(self, server: Loopback) -> None:
        line = "many words " * 1000 + "\n"
        server.answer = lambda _: Answer(pieces(*[line] * 50))
        command = '"$@" | head -1; echo "${PIPESTATUS[0]}"'
        done = subprocess.run(
            ["bash", "-c", command, "bash", *COMMAND, "ask", "Why?"],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert (done.stdout, done.stderr) == (f"{line}141\n", "")

    @pytest.mark.skipif(sys.platform == "win32", reason="arguments are text on Windows")
    def test_prompt_that_is_not_utf8_is_sent_with_replacements(self, server: Loopback) -> None:
        server.answer = lambda _: Answer(pieces("Yes."))
        done = subprocess.run([*COMMAND, "ask", b"caf\xe9?"], capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (0, b"Yes.\n")
        assert server.last.json["messages"][0]["content"] == "caf??"

    def test_character_outside_the_encoding_is_replaced(self, server: Loopback) -> None:
        server.answer = lambda _: Answer(pieces("caf\u00e9 \ud83d."))
        status, out, _ = run("ask", "Why?", env=os.environ | {"PYTHONIOENCODING": "ascii"})
        assert (status, out) == (0, "caf? ?.\n")


class TestTerminal:
    @pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
    def test_terminal_gets_the_same_text_without_control_characters(
        self, server: Loopback, environment: dict[str, str]
    ) -> None:
        pty = pytest.importorskip("pty")
        server.answer = lambda _: Answer(
            pieces("# Ti", "tle\n\n", "**bold** `code` \x1b]0;evil\x07\u202e\u2066", thinking="Hm \x1b[5m")
        )
        ours, theirs = pty.openpty()
        environ = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
        environ |= {"TERM": "xterm-256color", "COLUMNS": "60"} | environment
        with subprocess.Popen(
            [*COMMAND, "ask", "Why?"], stdin=theirs, stdout=theirs, stderr=theirs, env=environ
        ) as process:
            os.close(theirs)
            shown = b""
            try:
                while piece := os.read(ours, 65536):
                    shown += piece
            except OSError:  # Linux reports a closed terminal this way
                pass
        os.close(ours)
        text = shown.decode()
        assert process.returncode == 0
        assert "\x1b]0;" not in text
        assert "\x1b[5m" not in text
        assert ("\x1b[2m" in text) == (environment == {})
        assert "# Title\r\n\r\n**bold** `code` ]0;evil\r\n" in text
        assert text.index("Hm") < text.index("Title") < text.index("bold") < text.index("gateway cache")

    def test_missing_prompt_on_a_terminal_exits_with_status_2(self) -> None:
        pty = pytest.importorskip("pty")
        ours, theirs = pty.openpty()
        status, out, err = run("ask", "--emulator", stdin=theirs)
        os.close(ours)
        os.close(theirs)
        assert (status, out) == (2, "")
        assert "there is no prompt" in err
