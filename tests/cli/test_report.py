"""`deepseek-gateway doctor`, the report: as text and as JSON, without secrets."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from calling import KEY, TOKEN
from commands import COMMAND, call

from deepseek_gateway._config import look_up
from deepseek_gateway.cli import report
from deepseek_gateway.cli.doctor import Case, diagnose

if TYPE_CHECKING:
    from pathlib import Path

    from deepseek_gateway.emulator import Emulator


CHECKS = [
    ("settings", "settings"),
    ("hidden values", "settings"),
    ("OPENAI_* variables", "settings"),
    ("model name", "settings"),
    ("translation", "settings"),
    ("fallback", "settings"),
    ("versions", "this computer"),
    ("proxies", "this computer"),
    ("trusted certificates", "this computer"),
    ("name resolution", "connection"),
    ("TCP connection", "connection"),
    ("TLS certificate", "connection"),
    ("gateway", "gateway"),
    ("clock", "connection"),
    ("gateway authentication", "gateway"),
    ("DeepSeek reached", "DeepSeek"),
    ("DeepSeek key", "DeepSeek"),
    ("DeepSeek balance", "DeepSeek"),
    ("model accepted", "DeepSeek"),
    ("cache status", "gateway"),
    ("streaming", "DeepSeek"),
    ("fallback reached", "DeepSeek"),
]
"""Programs read these names, so they are only added, never changed."""


class TestSettings:
    def test_settings_are_shown_with_their_origins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / ".env").write_text(
            f"# mine\nCLOUDFLARE_ACCOUNT_ID=old\n\nexport CLOUDFLARE_ACCOUNT_ID = 'acct'\nDEEPSEEK_TOKEN={KEY}\n"
        )
        monkeypatch.setenv("CF_AIG_TOKEN", f" {TOKEN} ")
        findings = look_up(route="compat")
        shown = {value.name: str(value) for value in report.shown_settings(findings)}
        assert shown == {
            "account_id": f"acct (.env line 4 of {tmp_path}/.env)",
            "gateway_id": "default (default)",
            "api_key": f"present, {len(KEY)} characters (.env line 5 of {tmp_path}/.env)",
            "gateway_token": f"present, {len(TOKEN)} characters (environment CF_AIG_TOKEN)",
            "route": "compat (argument --route)",
            "endpoint": "absent",
            "model": "absent",
            "thinking": "absent",
            "adapt": "on (default)",
            "fallback": "absent",
            "direct_endpoint": "https://api.deepseek.com (default)",
        }

    def test_secret_in_the_wrong_setting_is_redacted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DEEPSEEK_API_KEY", KEY)
        monkeypatch.setenv("CLOUDFLARE_AI_GATEWAY_ID", KEY)
        monkeypatch.setenv("DEEPSEEK_GATEWAY_ENDPOINT", "https://user:pass-word@ai.example.com/?key=hidden")
        case = Case(findings=look_up())
        text = report.as_json(case.findings, diagnose(case))
        assert KEY not in text
        assert "pass-word" not in text
        assert "key=hidden" not in text
        assert "https://***@ai.example.com/?***" in text


class TestCommand:
    def test_text_report_groups_what_passed_and_shows_no_secrets(self, emulator: Emulator) -> None:
        emulator.fail_next(keep_alive=2, latency=0.05)  # without pauses, the whole stream may arrive at once
        status, out, err = call("doctor")
        assert (status, err) == (0, "")
        titles = [line for line in out.splitlines() if line and not line.startswith(" ")]
        groups = [f"Passed: {group}" for group in ("settings", "this computer", "connection", "gateway", "DeepSeek")]
        assert titles[:6] == ["Settings", *groups]
        assert "\N{CHECK MARK} model accepted: deepseek-flash answered" in out
        assert ", 0 failed, " in out.splitlines()[-1]
        assert "\x1b" not in out
        assert emulator.api_key not in out
        assert emulator.gateway_token not in out

    def test_failures_come_first_and_then_warnings_each_with_its_remedy(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setenv("OPENAI_ORG_ID", "org")
        emulator.fail_next(status=402)
        status, out, err = call("doctor")
        assert (status, err) == (1, "")
        failed, _, others = out.partition("\n\n")
        assert failed.splitlines()[:2] == [
            "Failed",
            "  \N{BALLOT X} DeepSeek balance: 402 from DeepSeek: Insufficient Balance",
        ]
        assert failed.splitlines()[2].startswith("    the balance of the DeepSeek account is used up")
        assert others.startswith("Warnings\n  ! OPENAI_* variables: ")

    def test_missing_settings_are_one_line_and_their_remedy_says_where_to_find_them(self) -> None:
        status, out, _ = call("doctor", "--json")
        settings = next(each for each in json.loads(out)["checks"] if each["name"] == "settings")
        assert status == 1
        assert settings["found"] == (
            "CLOUDFLARE_ACCOUNT_ID is not set or blank; "
            "neither DEEPSEEK_API_KEY nor CF_AIG_TOKEN is set (blank is unset); give at least one"
        )
        where, *variables = settings["remedy"].splitlines()
        assert where.startswith("set what is missing")
        names = [line.partition(":")[0] for line in variables]
        assert names == ["CLOUDFLARE_ACCOUNT_ID", "DEEPSEEK_API_KEY", "CF_AIG_TOKEN"]

    @pytest.mark.usefixtures("emulator")
    def test_debug_prints_the_traceback_without_secrets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DEEPSEEK_API_KEY", "another-deepseek-key-wxyz")
        status, out, err = call("doctor", "--debug")
        assert status == 1
        assert "Traceback" not in out
        assert "AuthenticationError" in err
        assert "wxyz" not in out + err
        assert call("doctor", "--debug", "--offline")[::2] == (0, "")

    @pytest.mark.usefixtures("emulator")
    def test_json_report_holds_every_setting_and_check(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DEEPSEEK_API_KEY", "another-deepseek-key-wxyz")
        status, out, _ = call("doctor", "--json")
        shown = json.loads(out)
        assert list(shown) == ["settings", "checks", "summary", "exit_status"]
        assert {tuple(value) for value in shown["settings"]} == {
            ("name", "variable", "secret", "value", "length", "origin")
        }
        assert {tuple(each) for each in shown["checks"]} == {("name", "group", "verdict", "found", "remedy")}
        assert [(each["name"], each["group"]) for each in shown["checks"]] == CHECKS
        assert shown["exit_status"] == status == 1
        secret = next(value for value in shown["settings"] if value["name"] == "api_key")
        assert (secret["value"], secret["length"]) == (None, len("another-deepseek-key-wxyz"))

    @pytest.mark.usefixtures("emulator")
    def test_doctor_options_reach_the_settings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("DEEPSEEK_API_KEY", "CF_AIG_TOKEN"):
            monkeypatch.delenv(name)
        (tmp_path / "my.env").write_text(f"DEEPSEEK_API_KEY={KEY}\n")
        options = ["--route", "compat", "--endpoint", "https://ai.example.com", "--env-file", str(tmp_path / "my.env")]
        status, out, _ = call("doctor", "--json", "--offline", "--model", "dynamic/support", *options)
        assert status == 0
        assert "https://ai.example.com/compat" in out
        assert f"my.env line 1 of {tmp_path}" in out

    def test_wrong_doctor_option_exits_with_status_2(self) -> None:
        assert call("doctor", "--model")[0] == 2

    def test_doctor_with_wrong_settings_does_not_import_openai(self) -> None:
        code = (
            "import sys\nfrom deepseek_gateway.__main__ import main\nsys.argv = ['x', 'doctor']\n"
            "try:\n    main()\nexcept SystemExit as end:\n    assert 'openai' not in sys.modules\n    raise\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.startswith("Failed\n")

    def test_checks_skipped_for_the_same_reason_share_a_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "100")
        status, out, _ = call("doctor")
        assert status == 1
        assert out.count("Not tried, because ") == 1
        assert "Not tried, because valid settings are needed: model name, translation, fallback, proxies, " in out

    @pytest.mark.usefixtures("emulator")
    @pytest.mark.parametrize(("encoding", "symbol"), [("utf-8", "\N{CHECK MARK} versions"), ("latin-1", "+ versions")])
    def test_symbols_are_ascii_if_the_encoding_has_no_others(
        self, encoding: str, symbol: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONIOENCODING", encoding)
        done = subprocess.run([*COMMAND, "doctor", "--offline"], capture_output=True, check=False)
        assert symbol in done.stdout.decode(encoding)
