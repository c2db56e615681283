"""`deepseek-gateway doctor`, the report: as text and as JSON, without secrets."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from calling import KEY, TOKEN
from commands import call
from rich.console import Console

from deepseek_gateway._config import look_up
from deepseek_gateway.cli import report
from deepseek_gateway.cli.doctor import LOCAL_CHECKS, NETWORK_CHECKS, Case, diagnose

if TYPE_CHECKING:
    from pathlib import Path

    from deepseek_gateway.emulator import Emulator


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
    def test_text_report_has_three_sections_and_no_secrets(self, emulator: Emulator) -> None:
        status, out, err = call("doctor")
        assert (status, err) == (0, "")
        assert [title for title in ("Settings", "Checks", "Summary") if f"{title}\n" in out] == [
            "Settings",
            "Checks",
            "Summary",
        ]
        assert "pass  model accepted: deepseek-flash answered" in out
        assert ", 0 failed, " in out.splitlines()[-1]
        assert "\x1b" not in out
        assert emulator.api_key not in out
        assert emulator.gateway_token not in out

    def test_failed_check_exits_with_status_1_and_shows_its_remedy(self, emulator: Emulator) -> None:
        emulator.fail_next(status=402)
        status, out, err = call("doctor")
        assert (status, err) == (1, "")
        assert "fail  DeepSeek balance: 402 from DeepSeek: Insufficient Balance\n          remedy: the balance" in out
        assert out.splitlines()[-1].endswith("begin with DeepSeek balance.")

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
        assert {tuple(each) for each in shown["checks"]} == {("name", "verdict", "found", "remedy")}
        assert [each["name"] for each in shown["checks"]] == [*LOCAL_CHECKS, *NETWORK_CHECKS]
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
        assert "begin with settings." in done.stdout

    def test_checks_skipped_for_the_same_reason_share_a_line(self) -> None:
        status, out, _ = call("doctor")
        assert status == 1
        assert "fail  settings: CLOUDFLARE_ACCOUNT_ID is not set" in out
        assert [line for line in out.splitlines() if "skip  " in line] == [
            "  - skip  14 checks were not tried, because valid settings are needed"
        ]

    @pytest.mark.usefixtures("emulator")
    def test_symbols_are_ascii_if_the_encoding_has_no_others(self) -> None:
        case = Case(findings=look_up(), offline=True)

        class Latin(StringIO):
            encoding = "latin-1"

        for kind, symbol in ((StringIO, "\N{CHECK MARK} pass"), (Latin, "+ pass")):
            console = Console(file=kind(), width=80)
            report.print_report(case.findings, diagnose(case), console)
            assert symbol in console.file.getvalue()  # type: ignore[attr-defined]
