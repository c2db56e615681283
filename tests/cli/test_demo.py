"""`deepseek-gateway demo`: one screen on the emulator, and with `--live` the routes that the settings reach."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest
from calling import KEY, TOKEN
from commands import call, run, set_up
from loopback import Answer, Loopback

from deepseek_gateway.cli import demo
from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepseek_gateway import GatewayConfig

ROUTES = ("provider", "compat", "rest", "direct")


@pytest.fixture(scope="module")
def shown() -> str:
    """The output of the demo on a screen of 100 columns."""
    status, out, err = run("demo", env=os.environ | {"COLUMNS": "100"})
    assert (status, err) == (0, "")
    return out


class TestOnTheEmulator:
    def test_demo_fits_on_one_screen_and_breaks_no_word(self, shown: str) -> None:
        lines = shown.splitlines()
        assert len(lines) <= 40
        assert max(map(len, lines)) <= 100
        assert "This is a canned answer from the local AI Gateway emulator. You asked" in " ".join(shown.split())

    def test_demo_shows_what_each_route_sends(self, shown: str) -> None:
        sent = [line.partition(":")[0].strip() for line in shown.splitlines() if ", with " in line]
        assert sent == [
            "deepseek-flash, with Authorization and cf-aig-authorization",
            "deepseek/deepseek-flash, with Authorization and cf-aig-authorization",
            "deepseek/deepseek-flash, with Authorization",
            "deepseek-flash, with Authorization",
        ]
        assert [route for route in ROUTES if f'create_client(route="{route}")' in shown] == list(ROUTES)

    @pytest.mark.parametrize(
        "text",
        [
            " chunks: This is",
            "MISS, then HIT",
            "this gateway asks for authentication (2009 Unauthorized); set CF_AIG_TOKEN to a token",
            "400 and then 200",
            "Company(name='Cloudflare', founded=2009); translated: model, json_schema",
            "9 of 9 steps succeeded.",
        ],
    )
    def test_demo_shows_stream_cache_error_retry_and_structured_output(self, shown: str, text: str) -> None:
        assert text in " ".join(shown.split())

    def test_demo_ends_with_the_settings_to_go_live(self, shown: str) -> None:
        ending = shown.partition("To go live")[2]
        assert all(name in ending for name in ("CLOUDFLARE_ACCOUNT_ID", "DEEPSEEK_API_KEY", "CF_AIG_TOKEN", "--live"))

    def test_demo_shows_no_secret(self, shown: str) -> None:
        secrets = Emulator()
        assert secrets.api_key not in shown
        assert secrets.gateway_token not in shown

    def test_demo_without_live_refuses_settings(self) -> None:
        status, _, err = call("demo", "--route", "compat")
        assert status == 2
        assert "need --live" in err


class TestLive:
    @pytest.mark.parametrize("route", ROUTES)
    def test_live_demo_makes_a_call_and_a_stream_on_the_route_of_the_settings(
        self, route: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Emulator() as emulator:
            set_up(monkeypatch, emulator.config(route))
            monkeypatch.setenv("DEEPSEEK_DIRECT_ENDPOINT", emulator.direct_url)
            status, out, _ = call("demo", "--live")
            assert [request.route for request in emulator.requests] == [route, route]
        assert status == 0
        assert "2 of 2 steps succeeded." in out

    def test_live_demo_takes_the_route_of_the_option(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Emulator() as emulator:
            set_up(monkeypatch, emulator.config())
            assert call("demo", "--live", "--route", "compat")[0] == 0
            assert {request.route for request in emulator.requests} == {"compat"}

    def test_live_demo_without_settings_exits_with_one_message_and_status_1(self) -> None:
        status, out, err = run("demo", "--live")
        assert (status, out) == (1, "")
        assert "CLOUDFLARE_ACCOUNT_ID is not set" in err
        assert "Traceback" not in err

    @pytest.mark.parametrize(
        ("answer", "trouble"),
        [
            (Answer({"error": {"message": f"no {KEY}", "code": "c", "type": "t"}}, 401), "AuthenticationError: "),
            (Answer({"choices": []}), "ValueError: the answer is empty"),
        ],
        ids=["error", "nothing"],
    )
    def test_failed_step_fails_the_demo_without_showing_secrets(
        self,
        gateway: Loopback,
        config_at: Callable[..., GatewayConfig],
        answer: Answer,
        trouble: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        gateway.answer = lambda _: answer
        config = replace(config_at(gateway), route="compat")
        assert demo.run_live(config) == 1
        text = capsys.readouterr().out
        assert f"FAILED  {trouble}" in text
        assert "of 2 steps" in text
        assert all(secret not in text for secret in (KEY, TOKEN, *filter(None, (asdict(config)["api_key"],))))
