"""`deepseek-gateway doctor`, the checks: each is broken in turn, and fails alone with its remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from calling import KEY
from commands import assert_breaks, examine, named, set_up

from deepseek_gateway._settings import OPENAI_VARIABLES
from deepseek_gateway.cli.doctor import NETWORK_CHECKS
from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

ROUTES = ("provider", "compat", "rest")


class TestAgainstTheEmulator:
    @pytest.mark.parametrize("route", ROUTES)
    def test_all_is_well_for_one_completion(
        self, route: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_up(monkeypatch, emulator.config(route=route))
        emulator.fail_next(keep_alive=2, latency=0.05)  # or a busy computer may see all of it at once
        results = examine()
        assert {name for name, result in results.items() if result.verdict != "pass"} <= {"clock"}
        assert "no date" in results["clock"].found or results["clock"].verdict == "pass"
        (request,) = emulator.requests
        assert len(request.attempts) == 1
        assert request.json["max_tokens"] <= 16
        assert request.json["stream"] is True

    @pytest.mark.usefixtures("emulator")
    def test_a_key_stored_at_cloudflare_will_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DEEPSEEK_API_KEY")
        results = examine()
        assert not named(results, "fail")
        assert "stored at Cloudflare" in results["DeepSeek key"].found

    def test_a_gateway_without_authentication_needs_no_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Emulator(authenticated=False) as emulator:
            set_up(monkeypatch, emulator.config())
            monkeypatch.delenv("CF_AIG_TOKEN")
            results = examine()
        assert not named(results, "fail")
        assert results["gateway authentication"].found == "the gateway asks for none"

    def test_offline_connects_to_nothing(self, emulator: Emulator) -> None:
        results = examine(offline=True)
        assert emulator.requests == []
        assert {name for name, result in results.items() if result.verdict == "skip"} == set(NETWORK_CHECKS)
        assert results["TLS certificate"].found == "--offline was given"

    def test_a_cache_status_is_told(self, emulator: Emulator) -> None:
        emulator.fail_next(headers={"cf-aig-cache-status": "MISS"})
        assert examine()["cache status"].found == "MISS"


class TestSettings:
    @pytest.mark.parametrize(
        ("environ", "found", "remedy"),
        [
            ({}, "CLOUDFLARE_ACCOUNT_ID is not set", "set what is missing"),
            (
                {"CLOUDFLARE_ACCOUNT_ID": "a/b", "DEEPSEEK_API_KEY": KEY},
                "CLOUDFLARE_ACCOUNT_ID holds '/'",
                "correct it",
            ),
            ({"CLOUDFLARE_ACCOUNT_ID": "abc"}, "neither DEEPSEEK_API_KEY nor CF_AIG_TOKEN", "set what is missing"),
        ],
    )
    def test_missing_or_malformed(self, environ: Any, found: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        results = examine()
        assert_breaks(results, "settings", remedy)
        assert found in results["settings"].found
        assert {results[name].verdict for name in set(NETWORK_CHECKS)} == {"skip"}

    def test_a_working_directory_that_is_gone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (gone := tmp_path / "gone").mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        assert_breaks(examine(), "settings", "no .env file was read")

    def test_the_environment_hides_the_file(self, emulator: Emulator, tmp_path: Path) -> None:
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
    def test_stray_variables(self, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(variable, "x-stray: stray-value")
        results = examine(offline=True)
        assert_breaks(results, "OPENAI_* variables", f"unset {variable}", "warn")
        assert "stray-value" not in str(results)

    @pytest.mark.usefixtures("emulator")
    def test_a_retired_model_in_a_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_MODEL", "deepseek/deepseek-reasoner")
        results = examine(offline=True)
        assert_breaks(results, "model name", "use deepseek-flash", "warn")
        assert "MY_MODEL" in results["model name"].found

    def test_a_model_of_another_route(self, emulator: Emulator) -> None:
        assert_breaks(examine(model="dynamic/support"), "model name", "Use the compat route")
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
    def test_versions_that_do_not_go_together(self, versions: Any, found: str, emulator: Emulator) -> None:
        results = examine(versions=versions)
        assert_breaks(results, "versions", "openai>=1.66,<4")
        assert found in results["versions"].found
        assert emulator.requests == []
