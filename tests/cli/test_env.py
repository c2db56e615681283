"""`deepseek-gateway env`: what it prints works where it is meant for, and shows no secret unless asked to."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from io import StringIO
from typing import TYPE_CHECKING, Any

import openai
import pytest
from commands import call, run, set_up, started
from dotenv import dotenv_values

from deepseek_gateway import GatewayConfig
from deepseek_gateway.cli.environment import CUSTOM_HEADERS_SINCE, PROGRAMS
from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROUTES = ("provider", "compat", "rest")
TARGETS = (*PROGRAMS, "curl")
FORMATS = ("shell", "dotenv", "json")
SENDS_HEADERS = tuple(map(int, openai.VERSION.split("."))) >= CUSTOM_HEADERS_SINCE
ODD_KEY, ODD_TOKEN = r"""a'b"c\d!e#f%`g""", r"""t$HOME'"\n;&|*"""


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


def odd_config(route: Any = "provider") -> GatewayConfig:
    """Settings whose secrets hold all that a shell could trip over."""
    return GatewayConfig(account_id="acct", gateway_id="g", api_key=ODD_KEY, gateway_token=ODD_TOKEN, route=route)


def expected(config: GatewayConfig) -> dict[str, str]:
    """What the openai package reads."""
    headers = "\n".join(f"{name}: {value}" for name, value in config.headers.items())
    return {
        "OPENAI_BASE_URL": config.base_url,
        "OPENAI_API_KEY": config.bearer or "",
        "OPENAI_CUSTOM_HEADERS": headers,
    }


def set_up_odd(monkeypatch: pytest.MonkeyPatch, route: Any) -> GatewayConfig:
    config = odd_config(route)
    set_up(monkeypatch, config)
    monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", "acct")
    return config


class TestPrinting:
    @pytest.mark.parametrize("route", ROUTES)
    @pytest.mark.parametrize("secrets", [[], ["--show-secrets"]], ids=["references", "secrets"])
    @pytest.mark.parametrize("quoted", [True, False], ids=["quoted", "unquoted"])
    def test_a_shell_takes_it_as_it_is_meant(
        self, route: str, secrets: list[str], quoted: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = set_up_odd(monkeypatch, route)
        status, out, _ = call("env", *secrets)
        assert status == 0
        if not quoted:
            out = " ".join(out.split("\n"))  # what an `eval` without quotes makes of it
        show = f'{out}\n"{sys.executable}" -c "import json, os; print(json.dumps(dict(os.environ)))"'
        done = subprocess.run(["bash", "-c", show], capture_output=True, text=True, check=True)
        seen = json.loads(done.stdout)
        assert {name: seen[name] for name in expected(config)} == expected(config)

    @pytest.mark.parametrize("route", ROUTES)
    @pytest.mark.parametrize("secrets", [[], ["--show-secrets"]], ids=["references", "secrets"])
    def test_a_dotenv_library_takes_it_as_it_is_meant(
        self, route: str, secrets: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = set_up_odd(monkeypatch, route)
        status, out, _ = call("env", "--format", "dotenv", *secrets)
        assert status == 0
        assert dotenv_values(stream=StringIO(out)) == expected(config)

    @pytest.mark.parametrize("route", ROUTES)
    def test_json(self, route: str, monkeypatch: pytest.MonkeyPatch) -> None:
        config = set_up_odd(monkeypatch, route)
        assert json.loads(call("env", "--format", "json", "--show-secrets")[1]) == expected(config)
        referring = json.loads(call("env", "--format", "json")[1])
        assert referring["OPENAI_API_KEY"] == ("$CF_AIG_TOKEN" if route == "rest" else "$DEEPSEEK_API_KEY")

    @pytest.mark.parametrize("route", ROUTES)
    @pytest.mark.parametrize("target", TARGETS)
    @pytest.mark.parametrize("form", FORMATS)
    def test_no_secret_is_shown(self, target: str, form: str, route: str, monkeypatch: pytest.MonkeyPatch) -> None:
        set_up(monkeypatch, GatewayConfig(endpoint="https://ai.example.com", api_key="sec-ret", gateway_token="tok-en"))
        status, out, err = call("env", "--for", target, "--format", form, "--route", route)
        assert status == (2 if target == "curl" and form != "shell" else 0)
        assert "sec-ret" not in out + err
        assert "tok-en" not in out + err

    @pytest.mark.parametrize(
        ("target", "route", "model"),
        [
            ("openai", "provider", "deepseek-flash"),
            ("openai", "compat", "deepseek/deepseek-flash"),
            ("litellm", "provider", "openai/deepseek-flash"),
            ("litellm", "rest", "openai/deepseek/deepseek-flash"),
            ("langchain", "provider", "deepseek-flash"),
            ("aider", "compat", "openai/deepseek/deepseek-flash"),
        ],
    )
    def test_the_model_is_named_as_the_program_and_the_route_want_it(
        self, target: str, route: str, model: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_up_odd(monkeypatch, route)
        assert f"\n# The model is called {model}.\n" in call("env", "--for", target)[1]
        out, err = call("env", "--for", target, "--format", "json")[1:]
        assert set(PROGRAMS[target].base_url) | set(PROGRAMS[target].api_key) <= set(json.loads(out))
        assert f"The model is called {model}." in err

    def test_what_would_be_sent_along_is_unset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        set_up_odd(monkeypatch, "provider")
        monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
        assert "\nunset OPENAI_ORG_ID\n" in call("env")[1]
        assert "OPENAI_ORG_ID is set here" in call("env", "--format", "json")[2]

    def test_aider_is_told_where_its_header_goes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        set_up_odd(monkeypatch, "provider")
        out = call("env", "--for", "aider")[1]
        assert "#       cf-aig-authorization: Bearer <your CF_AIG_TOKEN>\n" in out
        assert "OPENAI_CUSTOM_HEADERS" not in out
        status, out, err = run("env", "--for", "aider", "true")
        assert (status, out) == (0, "")
        assert "      cf-aig-authorization: Bearer <your CF_AIG_TOKEN>\n" in err

    @pytest.mark.parametrize("target", PROGRAMS)
    @pytest.mark.parametrize("command", [[], ["--", "true"]], ids=["print", "run"])
    def test_with_a_stored_key_a_program_that_sends_one_is_refused(
        self, target: str, command: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_up(monkeypatch, GatewayConfig(endpoint="https://ai.example.com", gateway_token="token"))
        status, out, err = call("env", "--for", target, *command)
        assert (status, out) == (1, "")
        assert all(way in err for way in ("set DEEPSEEK_API_KEY", "--route rest", "create_client()", "--for curl"))
        assert call("env", "--for", target, "--route", "rest")[0] == 0

    def test_the_variable_that_holds_the_key_is_the_one_referred_to(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", "acct")
        monkeypatch.setenv("DEEPSEEK_TOKEN", "other-name")
        (tmp_path / ".env").write_text("CF_AIG_TOKEN=in-a-file\n")
        _, out, err = call("env")
        assert 'OPENAI_API_KEY="$DEEPSEEK_TOKEN"' in out
        assert f"CF_AIG_TOKEN is set in {tmp_path / '.env'} but not in the environment" in err
        assert "DEEPSEEK" not in err
        assert "not in the environment" not in call("env", "--show-secrets")[2]

    def test_an_openai_that_ignores_the_headers_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        set_up_odd(monkeypatch, "provider")
        monkeypatch.setattr("deepseek_gateway.cli.env.metadata.version", lambda _: "2.33.1rc1")
        assert "(2.33.1rc1) ignores OPENAI_CUSTOM_HEADERS: it sends no cf-aig-authorization" in call("env")[2]
        monkeypatch.setattr("deepseek_gateway.cli.env.metadata.version", lambda _: "2.34.0")
        assert "ignores OPENAI_CUSTOM_HEADERS:" not in call("env")[2]

    def test_without_settings_all_is_named(self) -> None:
        status, out, err = call("env")
        assert (status, out) == (1, "")
        assert "CLOUDFLARE_ACCOUNT_ID" in err

    @pytest.mark.parametrize("options", [["--format", "json"], ["--show-secrets"], ["--for", "curl"]], ids=str)
    def test_options_for_printing_do_not_go_with_a_program(self, options: list[str]) -> None:
        assert call("env", *options, "--", "true")[0] == 2


class TestUse:
    @pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
    @pytest.mark.parametrize("secrets", [[], ["--show-secrets"]], ids=["references", "secrets"])
    @pytest.mark.parametrize(
        ("route", "settings"),
        [("provider", {}), ("provider", {"api_key": None}), ("compat", {}), ("rest", {})],
        ids=["provider", "stored key", "compat", "rest"],
    )
    def test_curl_gets_an_answer(
        self, emulator: Emulator, route: Any, settings: Any, secrets: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_up(monkeypatch, emulator.config(route=route, **settings))
        status, out, err = call("env", "--for", "curl", *secrets)
        assert (status, err) == (0, "")
        done = subprocess.run(["bash", "-c", out], capture_output=True, text=True, check=True)
        assert "You asked: What is Cloudflare?" in json.loads(done.stdout)["choices"][0]["message"]["content"]

    @pytest.mark.parametrize("route", ROUTES)
    def test_a_bare_client_gets_an_answer_and_sends_nothing_of_openais(
        self, route: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        code = (
            "import openai, sys\n"
            "messages = [{'role': 'user', 'content': 'Why?'}]\n"
            "create = openai.OpenAI().chat.completions.create\n"
            "print(create(model=sys.argv[1], messages=messages).choices[0].message.content)"
        )
        with Emulator(authenticated=SENDS_HEADERS, gateway_id="default" if route == "rest" else "mine") as emulator:
            set_up(monkeypatch, emulator.config(route=route))
            monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
            model = "deepseek-flash" if route == "provider" else "deepseek/deepseek-flash"
            status, out, err = run("env", "--", sys.executable, "-c", code, model)
            headers = emulator.requests[-1].headers
        assert (status, "You asked: Why?" in out) == (0, True), err
        assert ("cf-aig-authorization" in headers) == (SENDS_HEADERS and route != "rest")
        assert "openai-organization" not in headers
        assert ("ignores OPENAI_CUSTOM_HEADERS" in err) == (not SENDS_HEADERS)

    @pytest.mark.parametrize("command", [["--", "bash", "-c", "exit 7"], ["bash", "-c", "exit 7"]], ids=["--", "bare"])
    def test_the_status_is_the_programs(self, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        set_up_odd(monkeypatch, "provider")
        assert run("env", *command)[0] == 7

    def test_a_program_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        set_up_odd(monkeypatch, "provider")
        status, out, err = run("env", "--", "no-such-program")
        assert (status, out) == (127, "")
        assert err.endswith("no-such-program: no such program was found.\n")
        (tmp_path / "mine").write_text("")
        status, _, err = run("env", "--", "./mine")
        assert status == 126
        assert err.endswith("./mine cannot be run: Permission denied.\n")

    def test_an_interrupt_reaches_the_program_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        set_up_odd(monkeypatch, "provider")
        script = 'trap "echo caught; exit 3" INT; echo ready; while :; do sleep 0.01; done'
        with started("env", "bash", "-c", script) as process:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGINT)
            assert process.stdout.read() == b"caught\n"
        assert process.returncode == 3
