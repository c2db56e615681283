"""`deepseek-gateway doctor`, the checks: each check fails alone and names its remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from calling import KEY
from commands import assert_breaks, examine, named, set_up

from deepseek_gateway._settings import OPENAI_VARIABLES
from deepseek_gateway.cli.doctor import FALLBACK_CHECK, NETWORK_CHECKS
from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

ROUTES = ("provider", "compat", "rest")


class TestAgainstTheEmulator:
    @pytest.mark.parametrize("route", ROUTES)
    def test_every_check_passes_with_a_single_completion(
        self, route: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_up(monkeypatch, emulator.config(route=route))
        emulator.fail_next(keep_alive=2, latency=0.05)  # without pauses, the whole stream may arrive at once
        results = examine()
        assert {name for name, result in results.items() if result.verdict != "pass"} <= {"clock", FALLBACK_CHECK}
        assert "no date" in results["clock"].found or results["clock"].verdict == "pass"
        (request,) = emulator.requests
        assert len(request.attempts) == 1
        assert request.json["max_tokens"] <= 16
        assert request.json["stream"] is True

    @pytest.mark.usefixtures("emulator")
    def test_stored_key_passes_every_check(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DEEPSEEK_API_KEY")
        results = examine()
        assert not named(results, "fail")
        assert "stored at Cloudflare" in results["DeepSeek key"].found

    def test_open_gateway_passes_without_a_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Emulator(authenticated=False) as emulator:
            set_up(monkeypatch, emulator.config())
            monkeypatch.delenv("CF_AIG_TOKEN")
            results = examine()
        assert not named(results, "fail")
        assert results["gateway authentication"].found == "the gateway asks for none"

    def test_offline_opens_no_connection_and_skips_network_checks(self, emulator: Emulator) -> None:
        results = examine(offline=True)
        assert emulator.requests == []
        assert {name for name, result in results.items() if result.verdict == "skip"} == {
            *NETWORK_CHECKS,
            FALLBACK_CHECK,
        }
        assert results["TLS certificate"].found == "--offline was given"

    def test_cache_status_is_reported(self, emulator: Emulator) -> None:
        emulator.fail_next(headers={"cf-aig-cache-status": "MISS"})
        assert examine()["cache status"].found == "MISS"


class TestSettings:
    @pytest.mark.parametrize(
        ("environ", "found", "remedy"),
        [
            ({}, "CLOUDFLARE_ACCOUNT_ID is not set", "set what is missing"),
            (
                {"CLOUDFLARE_ACCOUNT_ID": "a/b", "DEEPSEEK_API_KEY": KEY},
                "CLOUDFLARE_ACCOUNT_ID='a/b' holds '/'",
                "correct it",
            ),
            ({"CLOUDFLARE_ACCOUNT_ID": "abc"}, "neither DEEPSEEK_API_KEY nor CF_AIG_TOKEN", "set what is missing"),
        ],
    )
    def test_missing_or_malformed_setting_fails_and_skips_network_checks(
        self, environ: Any, found: str, remedy: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        results = examine()
        assert_breaks(results, "settings", remedy)
        assert found in results["settings"].found
        assert {results[name].verdict for name in set(NETWORK_CHECKS)} == {"skip"}

    def test_deleted_working_directory_fails_only_the_settings_check(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (gone := tmp_path / "gone").mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        assert_breaks(examine(), "settings", "no .env file was read")

    def test_variable_that_hides_a_value_in_the_file_is_a_warning(self, emulator: Emulator, tmp_path: Path) -> None:
        (tmp_path / "other.env").write_text(f"DEEPSEEK_TOKEN={KEY}\nCF_AIG_TOKEN={emulator.gateway_token}\n")
        results = examine(env_file=str(tmp_path / "other.env"), offline=True)
        assert_breaks(results, "hidden values", "unset the variable", "warn")
        found = results["hidden values"].found
        assert f"DEEPSEEK_API_KEY in the environment hides another value of DEEPSEEK_TOKEN in {tmp_path}" in found
        assert "CF_AIG_TOKEN" not in found
        assert KEY not in found

    @pytest.mark.usefixtures("emulator")
    @pytest.mark.parametrize(
        "variable",
        OPENAI_VARIABLES,
    )
    def test_openai_variable_is_a_warning_without_its_value(
        self, variable: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(variable, "x-stray: stray-value")
        results = examine(offline=True)
        assert_breaks(results, "OPENAI_* variables", f"unset {variable}", "warn")
        assert "stray-value" not in str(results)

    @pytest.mark.usefixtures("emulator")
    @pytest.mark.parametrize(
        ("environ", "found"),
        [
            ({}, "on; OpenAI's model names are kept; thinking as each call says"),
            ({"DEEPSEEK_MODEL": "deepseek-v4-pro"}, "OpenAI's model names become deepseek-v4-pro"),
            ({"DEEPSEEK_THINKING": "off"}, "thinking off by default"),
            ({"DEEPSEEK_GATEWAY_ADAPT": "off"}, "DEEPSEEK_GATEWAY_ADAPT is off"),
        ],
    )
    def test_translation_check_says_what_the_settings_do(
        self, environ: dict[str, str], found: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        judgement = examine(offline=True)["translation"]
        assert judgement.verdict == "pass"
        assert found in judgement.found

    @pytest.mark.usefixtures("emulator")
    def test_model_and_thinking_without_translation_are_a_warning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in (("ADAPT", "off"), ("MODEL", "deepseek-flash"), ("THINKING", "on")):
            monkeypatch.setenv(f"DEEPSEEK_{'GATEWAY_' if name == 'ADAPT' else ''}{name}", value)
        results = examine(offline=True)
        assert_breaks(results, "translation", "unset DEEPSEEK_GATEWAY_ADAPT", "warn")
        assert results["translation"].found.startswith("DEEPSEEK_MODEL and DEEPSEEK_THINKING without effect")

    def test_model_name_of_openai_is_asked_under_the_configured_name(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DEEPSEEK_MODEL", "deepseek-v4-pro")
        results = examine(model="gpt-4o")
        assert results["model name"].found == "gpt-4o is sent as deepseek-v4-pro"
        assert results["model accepted"].verdict == "pass"
        assert emulator.requests[0].model == "deepseek-v4-pro"

    @pytest.mark.usefixtures("emulator")
    def test_retired_model_in_a_variable_is_a_warning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_MODEL", "deepseek/deepseek-reasoner")
        results = examine(offline=True)
        assert_breaks(results, "model name", "use deepseek-flash", "warn")
        assert "MY_MODEL" in results["model name"].found

    def test_model_of_another_route_fails_without_a_request(self, emulator: Emulator) -> None:
        assert_breaks(examine(model="dynamic/support"), "model name", "Use the compat or rest route")
        assert emulator.requests == []

    @pytest.mark.parametrize(
        ("versions", "found"),
        [
            ({}, "openai is not installed"),
            ({"openai": "1.65.5", "httpx": "0.28.1", "httpcore": "1.0"}, "not supported"),
            ({"openai": "4.0.0", "httpx2": "3.0", "httpcore2": "3.0"}, "not supported"),
            ({"openai": "3.1.0", "httpx": "0.28.1", "httpcore": "1.0"}, "httpx2 is missing, httpcore2 is missing"),
            ({"openai": "2.1.0", "httpx": "0.28.1"}, "httpcore is missing"),
        ],
    )
    def test_unsupported_or_incomplete_versions_fail_without_a_request(
        self, versions: Any, found: str, emulator: Emulator
    ) -> None:
        results = examine(versions=versions)
        assert_breaks(results, "versions", "openai>=1.66,<4")
        assert found in results["versions"].found
        assert emulator.requests == []


class TestFallback:
    @pytest.fixture
    def fallback(self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
        monkeypatch.setenv("DEEPSEEK_GATEWAY_FALLBACK", "direct")
        monkeypatch.setenv("DEEPSEEK_DIRECT_ENDPOINT", emulator.direct_url)
        return emulator

    def test_fallback_is_tried_without_a_second_completion(self, fallback: Emulator) -> None:
        results = examine()
        assert "past its policies and its log" in results["fallback"].found
        assert results[FALLBACK_CHECK].found == f"{fallback.direct_url} accepted the key"
        completion, models = fallback.requests
        assert (completion.route, models.route, models.path) == ("provider", "direct", "/direct/models")

    def test_gateway_that_is_down_fails_although_the_fallback_would_answer(self, fallback: Emulator) -> None:
        fallback.fail_next(status=502)
        results = examine()
        assert named(results, "fail") == {"gateway"}
        assert results[FALLBACK_CHECK].verdict == "pass"
        assert [request.route for request in fallback.requests] == ["provider", "direct"]

    @pytest.mark.usefixtures("fallback")
    def test_fallback_that_cannot_be_reached_fails_with_its_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DEEPSEEK_DIRECT_ENDPOINT", "http://127.0.0.1:9")
        results = examine()
        assert named(results, "fail") == {FALLBACK_CHECK}
        assert "could not be reached" in results[FALLBACK_CHECK].found
        assert "DEEPSEEK_DIRECT_ENDPOINT" in results[FALLBACK_CHECK].remedy

    @pytest.mark.parametrize(
        ("name", "value", "remedy"),
        [
            ("DEEPSEEK_API_KEY", None, "set DEEPSEEK_API_KEY"),
            ("DEEPSEEK_GATEWAY_ROUTE", "direct", "unset DEEPSEEK_GATEWAY_FALLBACK"),
        ],
    )
    def test_fallback_without_effect_is_a_warning_and_is_not_tried(
        self, name: str, value: str | None, remedy: str, fallback: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
        results = examine()
        assert_breaks(results, "fallback", remedy, "warn")
        assert results[FALLBACK_CHECK].found == "no fallback is in use"
        assert len(fallback.requests) == 1

    @pytest.mark.usefixtures("emulator")
    def test_fallback_that_is_off_passes(self) -> None:
        assert examine(offline=True)["fallback"].found == "off: while the gateway is down, calls fail"


class TestDirect:
    GATEWAY = {"gateway", "gateway authentication", "cache status"}

    @pytest.fixture
    def direct(self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
        monkeypatch.setenv("DEEPSEEK_GATEWAY_ROUTE", "direct")
        monkeypatch.setenv("DEEPSEEK_DIRECT_ENDPOINT", emulator.direct_url)
        return emulator

    def test_direct_route_is_checked_at_deepseek_and_skips_the_checks_of_the_gateway(self, direct: Emulator) -> None:
        results = examine()
        assert named(results, "fail") == set()
        assert named(results, "skip") - {"clock", FALLBACK_CHECK} == self.GATEWAY
        assert {results[name].found for name in self.GATEWAY} == {"the direct route has no gateway"}
        assert direct.url in results["settings"].found
        assert [request.route for request in direct.requests] == ["direct"]

    def test_wrong_key_fails_the_key_check(self, direct: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DEEPSEEK_API_KEY", "another-deepseek-key-wxyz")
        results = examine()
        assert named(results, "fail") == {"DeepSeek key"}
        assert results["DeepSeek key"].remedy == "check DEEPSEEK_API_KEY"
        assert len(direct.requests) == 1

    @pytest.mark.parametrize(
        "fault", [{"reset": True}, {"status": 404, "body": b"nothing"}], ids=["reset", "not found"]
    )
    def test_what_a_gateway_would_fail_with_is_a_failure_to_reach_deepseek(self, fault: Any, direct: Emulator) -> None:
        direct.fail_next(**fault)
        results = examine()
        assert named(results, "fail") == {"DeepSeek reached"}
        assert "DEEPSEEK_DIRECT_ENDPOINT" in results["DeepSeek reached"].remedy
        assert results["DeepSeek key"].found == "DeepSeek reached failed"
