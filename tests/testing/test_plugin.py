"""The pytest plugin: programs under test find the emulator or their cassette without any preparation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest
import vcr  # noqa: F401  # pytester forgets what a run imports, and yaml cannot be imported twice
from calling import chat

from deepseek_gateway import GatewayConfig, create_client
from deepseek_gateway.emulator import Emulator
from deepseek_gateway.testing import plugin

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepseek_gateway.emulator import Emulator as RunningEmulator

    Tests = Callable[..., pytest.RunResult]

EXAMPLE = Path(__file__).parents[2] / "examples" / "testing"
CONFTEST = (EXAMPLE / "tests" / "conftest.py").read_text("utf-8")
PROGRAM = """
from deepseek_gateway import create_client

def ask(**settings):
    with create_client(**settings) as client:
        messages = [{"role": "user", "content": "What is Cloudflare?"}]
        return client.chat.completions.create(model="deepseek-flash", messages=messages).choices[0].message.content
"""
CASSETTE_TEST = """
import pytest, program

@pytest.mark.vcr
def test_program():
    assert program.ask()
"""


@pytest.fixture
def run_tests(pytester: pytest.Pytester) -> Tests:
    """Run the tests of a project of its own, with warnings as errors. A new process takes seconds, so few tests ask."""

    def run(test: str, *options: str, conftest: str = CONFTEST, new_process: bool = False) -> pytest.RunResult:
        pytester.makefile(".ini", pytest="[pytest]")  # otherwise a configuration above the folder would count
        pytester.makepyfile(program=PROGRAM, conftest=conftest, test_program=test)
        run = pytester.runpytest_subprocess if new_process else pytester.runpytest_inprocess
        return run("-W", "error", *options)

    return run


@pytest.fixture
def cassette(pytester: pytest.Pytester) -> Path:
    return pytester.path / "cassettes" / "test_program" / "test_program.yaml"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run what stands for the live service, with its settings in the environment."""
    with Emulator(account_id="live-account", gateway_id="live-gateway", api_key="live" + "-key" * 4) as live:
        for name, value in live.environ.items():
            monkeypatch.setenv(name, value)
        yield live


class TestLoading:
    def test_entry_point_names_the_plugin(self) -> None:
        (entry,) = entry_points(group="pytest11", name="deepseek_gateway")
        assert entry.load() is plugin

    def test_import_loads_no_library_that_only_a_fixture_needs(self) -> None:
        heavy = {"openai", "httpx", "httpx2", "vcr", "yaml", "pytest_recording", "starlette", "uvicorn", "dotenv"}
        program = f"import sys, deepseek_gateway.testing.plugin; print({heavy} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout == "set()\n"

    @pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
    def test_emulator_without_its_extra_fails_and_names_the_extra(self, run_tests: Tests, missing: str) -> None:
        absent = f"import sys; sys.modules[{missing!r}] = None"
        result = run_tests("def test_emulator(gateway_emulator): pass", conftest=absent, new_process=True)
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines("*The emulator is an extra of its own: pip install 'deepseek-gateway?emulator?'")

    def test_tests_without_fixtures_of_the_plugin_run_without_the_other_plugins(self, run_tests: Tests) -> None:
        result = run_tests("def test_nothing(): pass", "-p", "no:recording", conftest="", new_process=True)
        result.assert_outcomes(passed=1)


class TestEmulator:
    def test_client_without_arguments_reaches_the_emulator(self, gateway_emulator: RunningEmulator) -> None:
        with create_client() as client:
            assert chat(client).model == "deepseek-flash"
        (request,) = gateway_emulator.requests
        assert request.headers["cf-aig-authorization"] == f"Bearer {gateway_emulator.gateway_token}"

    def test_configuration_is_that_of_the_emulator(
        self, gateway_config: GatewayConfig, gateway_emulator: RunningEmulator
    ) -> None:
        assert gateway_config == gateway_emulator.config()

    def test_connection_settings_of_the_developer_are_hidden_and_others_are_kept(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("DEEPSEEK_TOKEN", "a-key-of-the-developer")
        monkeypatch.setenv("CLOUDFLARE_GATEWAY_ID", "a-gateway-of-the-developer")
        hidden = "DEEPSEEK_GATEWAY_ENDPOINT=https://ai.example.com\nCF_AIG_TOKEN=a-token\nCLOUDFLARE_ACCOUNT_ID=acct"
        (tmp_path / ".env").write_text(f"{hidden}\nDEEPSEEK_GATEWAY_ROUTE=compat\nDEEPSEEK_THINKING=off\n")
        emulator = request.getfixturevalue("gateway_emulator")
        config = request.getfixturevalue("gateway_config")
        assert config == emulator.config("compat", thinking=False)

    @pytest.mark.parametrize(("route", "path"), [("provider", "/deepseek"), ("compat", "/compat"), ("rest", "/ai/v1")])
    def test_program_reaches_the_emulator_on_the_route_of_its_environment(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, route: str, path: str
    ) -> None:
        monkeypatch.setenv("DEEPSEEK_GATEWAY_ROUTE", route)
        emulator = request.getfixturevalue("gateway_emulator")
        with create_client() as client:
            assert chat(client).choices
        assert emulator.requests[0].path.removesuffix("/chat/completions").endswith(path)

    def test_program_reaches_the_emulator_past_a_proxy(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "example.com")
        client = request.getfixturevalue("gateway_client")
        assert chat(client).choices

    @pytest.mark.parametrize("gateway_emulator", [{"guardrails": ["Cloudflare"]}], indirect=True)
    @pytest.mark.usefixtures("gateway_emulator")
    def test_emulator_takes_settings_from_parametrize(self, gateway_client: openai.OpenAI) -> None:
        with pytest.raises(openai.APIStatusError) as caught:
            chat(gateway_client)
        assert caught.value.code == "2016"

    def test_environment_is_restored_after_the_test(self, run_tests: Tests) -> None:
        test = """
            import os
            before = dict(os.environ)
            def test_emulator(gateway_emulator): assert os.environ != before | {"PYTEST_CURRENT_TEST": ""}
            def test_later(): assert {**os.environ, "PYTEST_CURRENT_TEST": ""} == before | {"PYTEST_CURRENT_TEST": ""}
        """
        run_tests(test).assert_outcomes(passed=2)

    def test_async_client_leaves_no_open_connection_behind(self, run_tests: Tests) -> None:
        test = """
            import asyncio, gc
            async def ask(client):
                messages = [{"role": "user", "content": "Hi"}]
                completion = await client.chat.completions.create(model="deepseek-flash", messages=messages)
                stream = await client.chat.completions.create(model="deepseek-flash", messages=messages, stream=True)
                return completion, [chunk async for chunk in stream]
            def test_client(gateway_async_client):
                for _ in range(2):
                    assert all(asyncio.run(ask(gateway_async_client)))
            def test_later():
                gc.collect()
        """
        run_tests(test, new_process=True).assert_outcomes(passed=2)


class TestCassettes:
    @pytest.mark.parametrize("route", ["provider", "compat", "direct"])
    def test_cassette_is_recorded_with_the_settings_of_the_environment_and_replayed_without_any(
        self, run_tests: Tests, service: RunningEmulator, cassette: Path, monkeypatch: pytest.MonkeyPatch, route: str
    ) -> None:
        monkeypatch.setenv("DEEPSEEK_GATEWAY_ROUTE", route)
        run_tests(CASSETTE_TEST, "--record-mode=rewrite").assert_outcomes(passed=1)
        assert len(service.requests) == 1
        recorded = cassette.read_text("utf-8")
        secrets = (service.account_id, service.gateway_id, service.api_key, service.gateway_token)
        assert not [secret for secret in secrets if secret in recorded]
        assert service.url not in recorded
        assert "x-recorded-from" not in recorded
        for name in service.environ:
            monkeypatch.delenv(name)
        run_tests(CASSETTE_TEST).assert_outcomes(passed=1)
        assert len(service.requests) == 1

    @pytest.mark.parametrize("mode", ["rewrite", "once", "new_episodes"])
    def test_recording_without_settings_fails_and_names_them(self, run_tests: Tests, cassette: Path, mode: str) -> None:
        result = run_tests(CASSETTE_TEST, f"--record-mode={mode}")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(
            ["*Recording a cassette needs the settings of the live service.", "*CLOUDFLARE_ACCOUNT_ID is not set*"]
        )
        assert not cassette.exists()

    def test_record_mode_once_replays_a_cassette_that_exists(self, run_tests: Tests, cassette: Path) -> None:
        with Emulator() as live, pytest.MonkeyPatch.context() as environment:
            for name, value in live.environ.items():
                environment.setenv(name, value)
            run_tests(CASSETTE_TEST, "--record-mode=once").assert_outcomes(passed=1)
        assert cassette.exists()
        run_tests(CASSETTE_TEST, "--record-mode=once").assert_outcomes(passed=1)

    def test_cassette_with_a_secret_is_not_written_and_its_test_fails(
        self, run_tests: Tests, service: RunningEmulator, cassette: Path
    ) -> None:
        test = """
            import os, openai, pytest
            from deepseek_gateway import create_client
            @pytest.mark.vcr
            def test_program():
                with create_client() as client, pytest.raises(openai.APIStatusError):
                    client.models.retrieve(os.environ["CF_AIG_TOKEN"])
        """
        result = run_tests(test, "--record-mode=rewrite")
        result.assert_outcomes(passed=1, errors=1)
        result.stdout.fnmatch_lines(["*program.yaml was not written, because it holds secrets:", "*- a secret of *"])
        assert service.gateway_token not in result.stdout.str()
        assert not cassette.exists()

    @pytest.mark.usefixtures("service")
    def test_tests_after_a_cassette_that_is_not_written_are_not_recorded(self, run_tests: Tests) -> None:
        test = """
            import http.client, os, openai, pytest
            from deepseek_gateway import create_client
            @pytest.mark.vcr
            def test_program():
                with create_client() as client, pytest.raises(openai.APIStatusError):
                    client.models.retrieve(os.environ["CF_AIG_TOKEN"])
            def test_next(connection=http.client.HTTPConnection):
                assert http.client.HTTPConnection is connection
        """
        run_tests(test, "--record-mode=rewrite").assert_outcomes(passed=2, errors=1)

    def test_cassette_is_not_recorded_with_the_made_up_settings_of_replay(
        self, run_tests: Tests, service: RunningEmulator, cassette: Path
    ) -> None:
        conftest = """
            import pytest
            @pytest.fixture
            def vcr_config(gateway_vcr_config):
                return gateway_vcr_config | {"record_mode": "once"}
        """
        test = CASSETTE_TEST.replace("program.ask()", f"program.ask(endpoint={service.config().endpoint!r})")
        result = run_tests(test, conftest=conftest)
        result.assert_outcomes(failed=1, errors=1)
        result.stdout.fnmatch_lines("*program.yaml was not written, because settings were missing; *")
        assert not cassette.exists()

    def test_cassette_of_a_test_with_the_emulator_is_recorded_from_it(self, run_tests: Tests, cassette: Path) -> None:
        test = CASSETTE_TEST.replace("test_program()", "test_program(gateway_emulator)")
        run_tests(test, "--record-mode=rewrite").assert_outcomes(passed=1)
        assert "x-recorded-from:\n      - emulator" in cassette.read_text("utf-8")
        run_tests(CASSETTE_TEST).assert_outcomes(passed=1)

    def test_program_finds_a_configuration_that_conftest_replaces(
        self, run_tests: Tests, service: RunningEmulator, cassette: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        conftest = f"""{CONFTEST}
from deepseek_gateway import GatewayConfig
@pytest.fixture
def gateway_config(gateway_config):
    return GatewayConfig(endpoint={service.config().endpoint!r}, gateway_token="emulator-gateway-token", route="compat")
"""
        monkeypatch.setenv("DEEPSEEK_API_KEY", "key-that-is-not-used")
        run_tests(CASSETTE_TEST, "--record-mode=rewrite", conftest=conftest).assert_outcomes(passed=1)
        assert "authorization" not in service.requests[0].headers
        assert "/compat/" in cassette.read_text("utf-8")

    def test_clients_of_a_cassette_test_need_no_settings(self, run_tests: Tests, cassette: Path) -> None:
        cassette.parent.mkdir(parents=True)
        recorded = EXAMPLE.glob("tests/cassettes/*/test_recorded_summary_is_returned.yaml")
        shutil.copy(next(recorded), cassette)
        test = """
            import pytest
            messages = [
                {"role": "system", "content": "Summarise the text in one sentence."},
                {"role": "user", "content": "Cloudflare runs a network."},
            ]
            @pytest.mark.vcr
            def test_program(gateway_client, gateway_config):
                assert gateway_config.endpoint is None
                assert gateway_client.chat.completions.create(model="deepseek-flash", messages=messages).choices
        """
        run_tests(test).assert_outcomes(passed=1)


class TestExample:
    def test_example_passes_in_a_copy_without_the_configuration_of_this_suite(self, pytester: pytest.Pytester) -> None:
        shutil.copytree(EXAMPLE, pytester.path, dirs_exist_ok=True)
        result = pytester.runpytest_subprocess("-W", "error", "--block-network", "--allowed-hosts=127.0.0.1")
        result.assert_outcomes(passed=4)
        result.stdout.fnmatch_lines(["rootdir: *", "configfile: pyproject.toml"])

    def test_example_has_fewer_than_thirty_lines_of_test_code(self) -> None:
        lines = [line for path in EXAMPLE.glob("tests/*.py") for line in path.read_text("utf-8").splitlines()]
        assert len(lines) < 30
        assert len([line for line in CONFTEST.splitlines() if line]) == 2
