"""`deepseek-gateway demo`: the output of each step, and the steps that `--live` takes with the user's settings."""

from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from calling import KEY, TOKEN
from commands import call, run, set_up
from loopback import Answer, Loopback
from rich.console import Console

from deepseek_gateway.cli import demo
from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepseek_gateway import GatewayConfig

ROUTES = ("provider", "compat", "rest")


class TestDemo:
    def test_demo_takes_every_step_on_the_emulator_and_names_the_emulator(self) -> None:
        status, out, err = run("demo")
        assert (status, err) == (0, "")
        steps = re.findall(r"(?m)^ ?\d+/20  (.+)$", out)
        keys = {"provider": ("own DeepSeek key", "key stored at Cloudflare"), "rest": ("key stored at Cloudflare",)}
        assert steps == [
            f"{route} route, {key}, {flavour}, {form}"
            for route in ROUTES
            for key in keys.get(route, keys["provider"])
            for flavour in ("sync", "async")
            for form in ("plain", "streamed")
        ]
        assert out.count("sent       POST http://127.0.0.1:") == len(steps) == 20
        assert out.count("thinking   ") == out.count("answer     ") == 20
        assert out.count("with Authorization and cf-aig-authorization; model deepseek-flash\n") == 4
        assert out.count("with cf-aig-authorization; model deepseek-flash\n") == 4
        assert out.count("with Authorization and cf-aig-authorization; model deepseek/deepseek-flash\n") == 4
        assert out.count("with cf-aig-authorization; model deepseek/deepseek-flash\n") == 4
        assert out.count("with Authorization; model deepseek/deepseek-flash\n") == 4
        assert "A local emulator" in out
        assert "20 of 20 steps succeeded." in out
        ending = out.partition("To go live")[2]
        assert all(name in ending for name in ("CLOUDFLARE_ACCOUNT_ID", "DEEPSEEK_API_KEY", "CF_AIG_TOKEN", "--live"))
        secrets = Emulator()
        assert secrets.api_key not in out
        assert secrets.gateway_token not in out

    @pytest.mark.parametrize(
        ("settings", "walked", "left_out"),
        [
            ({"gateway_token": None}, {"provider", "compat"}, "rest, which needs CF_AIG_TOKEN"),
            ({"api_key": None}, {"provider", "compat"}, "rest, because DEEPSEEK_GATEWAY_ENDPOINT"),
            ({"route": "rest"}, {"rest"}, "provider and compat"),
            ({}, {"provider", "compat"}, "used when DEEPSEEK_API_KEY is not set"),
        ],
    )
    def test_live_demo_skips_routes_that_the_settings_do_not_reach(
        self, settings: dict[str, Any], walked: set[str], left_out: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Emulator(authenticated=settings.get("gateway_token", "") is not None) as emulator:
            config = emulator.config(**settings)
            if settings == {"gateway_token": None}:
                monkeypatch.setattr(demo, "replace", lambda _, route: emulator.config(route=route, **settings))
                config = replace(config, endpoint=None, account_id="acct")
            console = Console(file=StringIO(), soft_wrap=True)
            assert demo.run_live(config, console) == 0
            paths = {request.path for request in emulator.requests}
        routes = {"provider": "/deepseek/", "compat": "/compat/", "rest": "/client/"}
        assert {route for route, part in routes.items() if any(part in path for path in paths)} == walked
        assert left_out in console.file.getvalue()  # type: ignore[attr-defined]

    def test_live_demo_without_settings_exits_with_one_message_and_status_1(self) -> None:
        status, out, err = run("demo", "--live")
        assert (status, out) == (1, "")
        assert "CLOUDFLARE_ACCOUNT_ID is not set" in err
        assert "Traceback" not in err

    def test_live_demo_with_a_route_takes_only_its_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Emulator() as emulator:
            set_up(monkeypatch, emulator.config())
            status, out, _ = call("demo", "--live", "--route", "compat")
            assert (status, len(emulator.requests)) == (0, 4)
        assert "Skipped" not in out

    def test_demo_without_live_refuses_settings(self) -> None:
        status, _, err = call("demo", "--route", "compat")
        assert status == 2
        assert "need --live" in err

    @pytest.mark.parametrize(
        ("answer", "trouble"),
        [
            (lambda _: Answer({"error": {"message": "no", "code": "c", "type": "t"}}, 401), "AuthenticationError: "),
            (lambda _: Answer({"choices": []}), "the answer is empty"),
            (lambda _: Answer([]), "the answer is empty"),
        ],
        ids=["error", "nothing", "empty stream"],
    )
    def test_failed_step_fails_the_demo_without_showing_secrets(
        self,
        gateway: Loopback,
        config_at: Callable[..., GatewayConfig],
        answer: Any,
        trouble: str,
    ) -> None:
        gateway.answer = answer
        streamed = isinstance(answer(None).body, list)
        console = Console(file=StringIO(), soft_wrap=True)
        assert demo.walk([demo.Step(config_at(gateway), "sync", streamed)], console) == 1
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert f"FAILED     {trouble}" in text
        assert "0 of 1 steps" in text
        assert KEY not in text
        assert TOKEN not in text

    def test_unexpected_credential_or_model_on_the_wire_fails_a_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(demo, "expected_request", lambda _: (("Authorization",), "deepseek-flash"))
        with Emulator() as emulator:
            demo.take(step := demo.Step(emulator.config(), "async", streamed=True))
        assert "sent ('Authorization', 'cf-aig-authorization')" in step.failure
