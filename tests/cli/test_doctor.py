"""`deepseek-gateway doctor`: each thing is broken in turn, and that check alone fails and says what to do."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from calling import KEY, TOKEN
from loopback import serve
from rich.console import Console
from typer.testing import CliRunner

from deepseek_gateway.cli import report
from deepseek_gateway.cli.app import app
from deepseek_gateway.cli.doctor import CHECKS, Case, Result, diagnose
from deepseek_gateway.cli.probe import Outcome
from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from loopback import Loopback

NAMES = [check.name for check in CHECKS]
NETWORK = {check.name for check in CHECKS if check.network}
ROUTES = ("provider", "compat", "rest")


def set_up(monkeypatch: pytest.MonkeyPatch, emulator: Emulator, route: str = "provider") -> None:
    """Put into the environment what reaches an emulator."""
    config = emulator.config(route=route)  # type: ignore[arg-type]
    monkeypatch.setenv("DEEPSEEK_GATEWAY_ROUTE", route)
    monkeypatch.setenv("DEEPSEEK_GATEWAY_ENDPOINT", str(config.endpoint))
    monkeypatch.setenv("CLOUDFLARE_AI_GATEWAY_ID", emulator.gateway_id)
    monkeypatch.setenv("DEEPSEEK_API_KEY", emulator.api_key)
    monkeypatch.setenv("CF_AIG_TOKEN", emulator.gateway_token)


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with Emulator() as emulator:
        set_up(monkeypatch, emulator)
        yield emulator


def check(**options: Any) -> dict[str, Result]:
    results = diagnose(Case.of(settings=options.pop("settings", {}), **options))
    assert [result.name for result in results] == NAMES
    return {result.name: result for result in results}


def failed(results: dict[str, Result]) -> set[str]:
    return {name for name, result in results.items() if result.verdict == "fail"}


def warned(results: dict[str, Result]) -> set[str]:
    return {name for name, result in results.items() if result.verdict == "warn"}


def assert_breaks(results: dict[str, Result], name: str, remedy: str, verdict: str = "fail") -> None:
    """See that one check has the verdict and the remedy, no other failed, and what depends on it was not tried."""
    assert (results[name].verdict, remedy in results[name].remedy) == (verdict, True), results[name]
    assert failed(results) == ({name} if verdict == "fail" else set())
    if verdict == "fail":
        later = [each.name for each in CHECKS if name in each.needs]
        assert all(results[each].found == f"not tried, because {name} failed" for each in later)


class TestAgainstTheEmulator:
    @pytest.mark.parametrize("route", ROUTES)
    def test_all_is_well_for_one_completion(
        self, route: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_up(monkeypatch, emulator, route)
        emulator.fail_next(keep_alive=2, latency=0.05)  # or a busy computer may see all of it at once
        results = check()
        assert {name for name, result in results.items() if result.verdict != "pass"} <= {"clock"}
        assert "tells the time" in results["clock"].found or results["clock"].verdict == "pass"
        (request,) = emulator.requests
        assert len(request.attempts) == 1
        assert request.json["max_tokens"] <= 16
        assert request.json["stream"] is True

    @pytest.mark.usefixtures("emulator")
    def test_a_key_stored_at_cloudflare_will_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DEEPSEEK_API_KEY")
        results = check()
        assert not failed(results)
        assert "stored at Cloudflare" in results["DeepSeek key"].found

    def test_a_gateway_without_authentication_needs_no_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Emulator(authenticated=False) as emulator:
            set_up(monkeypatch, emulator)
            monkeypatch.delenv("CF_AIG_TOKEN")
            results = check()
        assert not failed(results)
        assert results["gateway authentication"].found == "the gateway asks for none"

    def test_offline_connects_to_nothing(self, emulator: Emulator) -> None:
        results = check(offline=True)
        assert emulator.requests == []
        assert {name for name, result in results.items() if result.verdict == "skip"} == NETWORK
        assert results["TLS certificate"].found == "not tried, because of --offline"

    def test_a_cache_status_is_told(self, emulator: Emulator) -> None:
        emulator.fail_next(headers={"cf-aig-cache-status": "MISS"})
        assert check()["cache status"].found == "MISS"


def token(monkeypatch: pytest.MonkeyPatch, _: Emulator) -> None:
    monkeypatch.setenv("CF_AIG_TOKEN", "another-gateway-token")


def no_token(monkeypatch: pytest.MonkeyPatch, _: Emulator) -> None:
    monkeypatch.delenv("CF_AIG_TOKEN")


def key(monkeypatch: pytest.MonkeyPatch, _: Emulator) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "another-deepseek-key-wxyz")


def gateway_id(monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> None:
    monkeypatch.setenv("DEEPSEEK_GATEWAY_ENDPOINT", f"{emulator.url}/v1/{emulator.account_id}/another-gateway")


def rest(monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> None:
    set_up(monkeypatch, emulator, "rest")
    token(monkeypatch, emulator)


def fault(*code: int, **how: Any) -> Callable[[pytest.MonkeyPatch, Emulator], None]:
    return lambda _, emulator: emulator.fail_next(*code, **how)


class TestWhatTheServiceRefuses:
    @pytest.mark.parametrize(
        ("broken", "name", "remedy"),
        [
            pytest.param(gateway_id, "gateway", "check CLOUDFLARE_AI_GATEWAY_ID", id="no such gateway"),
            pytest.param(fault(status=502), "gateway", "DEEPSEEK_GATEWAY_ENDPOINT", id="edge"),
            pytest.param(fault(status=403), "gateway", "DEEPSEEK_GATEWAY_ENDPOINT", id="edge takes it for a bot"),
            pytest.param(fault(reset=True), "gateway", "firewall", id="reset"),
            pytest.param(fault(body=b"<p>Log in</p>", headers={"content-type": "text/html"}),
                         "gateway", "login page", id="login page"),
            pytest.param(fault(status=404, body=b"nothing"), "gateway", "DEEPSEEK_GATEWAY_ENDPOINT", id="not found"),
            pytest.param(token, "gateway authentication", "AI Gateway Run", id="wrong token"),
            pytest.param(no_token, "gateway authentication", "set CF_AIG_TOKEN", id="no token"),
            pytest.param(rest, "gateway authentication", "Workers AI Read", id="wrong token on rest"),
            pytest.param(fault(shape="policy"), "gateway authentication", "policies", id="identity policy"),
            pytest.param(fault(2003), "DeepSeek reached", "ask more slowly", id="gateway's rate limit"),
            pytest.param(fault(2016), "DeepSeek reached", "guardrails", id="guardrail"),
            pytest.param(fault(2045), "DeepSeek reached", "raise it", id="spend limit"),
            pytest.param(fault(9999, status=400, message="New."), "DeepSeek reached", "dashboard", id="new code"),
            pytest.param(fault(unreachable=True), "DeepSeek reached", "'deepseek-flash' exists", id="2005"),
            pytest.param(fault(status=429), "DeepSeek reached", "concurrency", id="DeepSeek's limit"),
            pytest.param(fault(status=503), "DeepSeek reached", "busy", id="DeepSeek is busy"),
            pytest.param(fault(status=500), "DeepSeek reached", "try again later", id="DeepSeek fails"),
            pytest.param(fault(2005, event=0), "DeepSeek reached", "'deepseek-flash' exists", id="error in a stream"),
            pytest.param(key, "DeepSeek key", "check DEEPSEEK_API_KEY", id="wrong key"),
            pytest.param(fault(shape="text"), "DeepSeek key", "check DEEPSEEK_API_KEY", id="key refused in plain text"),
            pytest.param(fault(2021), "DeepSeek key", "set DEEPSEEK_API_KEY", id="no credits"),
            pytest.param(fault(status=402), "DeepSeek balance", "top it up", id="balance"),
            pytest.param(fault(status=400), "model accepted", "content filter", id="bad request"),
            pytest.param(fault(cut_after=900), "streaming", "a proxy, a firewall", id="cut stream"),
            pytest.param(fault(body=b"data: no json\n\n", headers={"content-type": "text/event-stream"}),
                         "streaming", "try again", id="garbage in a stream"),
            pytest.param(fault(body=b"data: [DONE]\n\n", headers={"content-type": "text/event-stream"}),
                         "streaming", "gateway's log", id="empty stream"),
        ],
    )  # fmt: skip
    def test_the_check_fails_that_it_belongs_to(
        self, broken: Any, name: str, remedy: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken(monkeypatch, emulator)
        results = check()
        assert_breaks(results, name, remedy)
        assert len(emulator.requests) == 1
        before = [results[each].verdict for each in NAMES[: NAMES.index(name)] if each != "clock"]
        assert set(before) <= {"pass", "warn"}
        text = report.as_json(Case.of(settings={}).findings, list(results.values()))
        assert "another-" not in text.replace("another-gateway", "")
        assert "wxyz" not in text

    @pytest.mark.parametrize("route", ROUTES)
    def test_a_model_that_does_not_exist(self, route: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
        set_up(monkeypatch, emulator, route)
        results = check(model="no-such-model")
        assert_breaks(results, "model accepted", "check its name" if route == "rest" else "use one of the names")

    def test_guardrails_put_an_end_to_streaming(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Emulator(guardrails=()) as emulator:
            set_up(monkeypatch, emulator)
            assert_breaks(check(), "streaming", "guardrails do that")

    def test_a_cache_that_knows_every_question(self, emulator: Emulator) -> None:
        emulator.fail_next(headers={"cf-aig-cache-status": "HIT"})
        assert_breaks(check(), "cache status", "cache key", "warn")

    @pytest.mark.parametrize(("hours", "found"), [(1, "behind"), (-1, "ahead of")])
    def test_a_clock_that_is_off(self, hours: int, found: str, emulator: Emulator) -> None:
        then = datetime.now(UTC) + timedelta(hours=hours)
        emulator.fail_next(headers={"date": format_datetime(then, usegmt=True)})
        results = check()
        assert_breaks(results, "clock", "set this computer's clock", "warn")
        assert found in results["clock"].found

    @pytest.mark.usefixtures("emulator")
    def test_a_retired_model_is_still_tried(self) -> None:
        results = check(model="deepseek-chat")
        assert_breaks(results, "model name", "use deepseek-flash", "warn")
        assert results["model accepted"].found == "deepseek-chat answered as deepseek-flash"


@contextmanager
def closed_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    yield port


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Result]]:
    """Examine settings that lead to some host."""

    def examine(endpoint: str) -> dict[str, Result]:
        monkeypatch.setenv("DEEPSEEK_API_KEY", KEY)
        monkeypatch.setenv("CF_AIG_TOKEN", TOKEN)
        return check(settings={"endpoint": endpoint})

    return examine


class TestTheWayThere:
    def test_a_name_without_an_address(self, at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(host: str, *_: object, **__: object) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, f"{host} is not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        results = at("https://gateway.invalid")
        assert_breaks(results, "name resolution", "DNS")
        assert results["name resolution"].found.startswith("gateway.invalid has no address")

    def test_nobody_listens(self, at: Any) -> None:
        with closed_port() as port:
            results = at(f"http://127.0.0.1:{port}")
        assert_breaks(results, "TCP connection", "firewall")
        assert f"127.0.0.1:{port}" in results["TCP connection"].found

    @pytest.mark.parametrize(
        ("trusted", "issued", "remedy"),
        [
            (True, {}, None),
            (False, {}, "SSL_CERT_FILE"),
            (True, {"not_before": datetime(2099, 1, 1, tzinfo=UTC)}, "clock"),
            (True, {"not_after": datetime(2020, 1, 1, tzinfo=UTC)}, "clock"),
            (True, {"name": "elsewhere.example.com"}, "login page"),
        ],
        ids=["good", "unknown CA", "not yet valid", "expired", "another host's"],
    )
    def test_certificates(
        self,
        trusted: bool,
        issued: dict[str, Any],
        remedy: str | None,
        at: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        authority = trustme.CA(organization_name="Corporate Inspection")
        dates = {"not_before": datetime(2019, 1, 1, tzinfo=UTC), "not_after": datetime(2100, 1, 1, tzinfo=UTC)}
        name = issued.get("name", "127.0.0.1")
        certificate = authority.issue_cert(name, **dates | {k: v for k, v in issued.items() if k != "name"})
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
        (trusted_file := tmp_path / "ca.pem").write_bytes((authority if trusted else trustme.CA()).cert_pem.bytes())
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted_file))
        with serve(context=context) as server:
            results = at(server.url)
        assert str(trusted_file) in results["trusted certificates"].found
        if remedy:
            assert_breaks(results, "TLS certificate", remedy)
            assert server.received == []
        else:
            assert results["TLS certificate"].verdict == "pass"
            assert "TLSv1.3, issued by Corporate Inspection" in results["TLS certificate"].found
            assert "2100" in results["TLS certificate"].found
            assert abs(int(results["clock"].found.split()[0])) < 60

    def test_a_server_that_speaks_no_tls(self, at: Any, gateway: Loopback) -> None:
        assert_breaks(at(gateway.url.replace("http:", "https:")), "TLS certificate", "does not speak TLS")

    @pytest.mark.parametrize(
        ("variable", "content"),
        [("SSL_CERT_FILE", None), ("SSL_CERT_FILE", "no certificate"), ("SSL_CERT_DIR", None)],
    )
    def test_trusted_certificates_that_cannot_be_read(
        self,
        variable: str,
        content: str | None,
        at: Any,
        gateway: Loopback,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))
        if content:
            (tmp_path / "ca.pem").write_text(content)
        assert_breaks(at(gateway.url), "trusted certificates", f"correct or unset {variable}")
        assert gateway.connections == 0

    def test_something_else_answers(self, at: Any, gateway: Loopback) -> None:
        assert_breaks(at(gateway.url), "gateway", "DEEPSEEK_GATEWAY_ENDPOINT", "warn")

    def test_a_stream_that_comes_in_one_piece(self, at: Any, gateway: Loopback) -> None:
        assert_breaks(at(gateway.url), "streaming", "holds them back", "warn")

    @pytest.mark.usefixtures("emulator")
    @pytest.mark.parametrize(("arrivals", "verdict"), [([0, 1, 1.2], "pass"), ([0, 1, 1.001], "warn")])
    def test_pieces_must_be_spread_over_time(self, arrivals: list[float], verdict: str) -> None:
        case = Case.of(settings={})
        outcome = case.outcome
        outcome.arrivals[:] = arrivals
        assert {result.name: result.verdict for result in diagnose(case)}["streaming"] == verdict


@contextmanager
def tunnel(port: int) -> Iterator[str]:
    """Serve as a proxy that leads whoever asks for a tunnel to one port of this computer."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def connect(listening: socket.socket) -> None:
        near, _ = listening.accept()
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            near.recv(65536)
            near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=pump, args=(far, near), daemon=True)
            back.start()
            pump(near, far)
            back.join()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=connect, args=(listening,), daemon=True)
        thread.start()
        yield f"http://user:pass-word@127.0.0.1:{listening.getsockname()[1]}"
        thread.join(5)


class TestProxies:
    def test_one_that_leads_there(self, at: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        authority = trustme.CA(organization_name="Corporate Inspection")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("gateway.invalid").configure_cert(context)
        (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with serve(context=context) as server, tunnel(int(server.url.rpartition(":")[2])) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy)
            results = at("https://gateway.invalid")
        assert failed(results) == set()
        assert "the next checks look at the proxy" in results["proxies"].found
        assert results["name resolution"].found == "the proxy 127.0.0.1 is at 127.0.0.1"
        assert proxy.rpartition("@")[2] in results["TCP connection"].found
        assert "issued by Corporate Inspection" in results["TLS certificate"].found
        assert "pass-word" not in str(results)

    def test_one_for_this_computer_itself(self, at: Any, gateway: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", gateway.url.replace("http://", "http://user:pass-word@"))
        results = at("http://127.0.0.1:9")
        assert_breaks(results, "proxies", "set NO_PROXY=127.0.0.1", "warn")
        assert "http://***@127.0.0.1" in results["proxies"].found
        assert "user" not in str(results)
        assert "pass-word" not in str(results)
        assert gateway.url.removeprefix("http://") in results["TCP connection"].found

    def test_no_proxy_is_honoured(self, at: Any, gateway: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        results = at(gateway.url)
        assert not failed(results)
        assert "NO_PROXY names it" in results["proxies"].found

    def test_one_that_is_not_there(self, at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        with closed_port() as port:
            monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{port}")
            results = at("https://gateway.invalid")
        assert_breaks(results, "TCP connection", "HTTPS_PROXY")
        assert results["name resolution"].found == "the proxy 127.0.0.1 is known"

    def test_one_that_refuses(self, at: Any, gateway: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", gateway.url)
        results = at("https://gateway.invalid")
        assert_breaks(results, "TCP connection", "HTTPS_PROXY")
        assert results["proxies"].verdict == "pass"
        assert results["name resolution"].found.startswith("the proxy 127.0.0.1")
        assert "refused to connect: 501" in results["TCP connection"].found

    @pytest.mark.parametrize(
        ("proxy", "remedy"),
        [
            ("gopher://u:pass-word@127.0.0.1", "write HTTPS_PROXY like"),
            ("http://127.0.0.1:port", "write HTTPS_PROXY like"),
            ("socks5://127.0.0.1:9", "pip install socksio"),
        ],
    )
    def test_one_that_cannot_be_used(self, proxy: str, remedy: str, at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.setattr("deepseek_gateway.cli.doctor.find_spec", lambda _: None)
        results = at("https://gateway.invalid")
        assert_breaks(results, "proxies", remedy)
        assert "pass-word" not in str(results)

    def test_what_only_the_http_library_minds(self, at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("deepseek_gateway.cli.probe.create_client", lambda *_, **__: 1 / 0)
        assert_breaks(at("https://gateway.invalid"), "name resolution", "NO_PROXY")


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
        results = check()
        assert_breaks(results, "settings", remedy)
        assert found in results["settings"].found
        assert {results[name].verdict for name in NETWORK} == {"skip"}

    def test_where_each_came_from(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / ".env").write_text(
            f"# mine\nCLOUDFLARE_ACCOUNT_ID=old\n\nexport CLOUDFLARE_ACCOUNT_ID = 'acct'\nDEEPSEEK_TOKEN={KEY}\n"
        )
        monkeypatch.setenv("CF_AIG_TOKEN", f" {TOKEN} ")
        findings = Case.of(settings={"route": "compat", "endpoint": None}).findings
        told = {value.name: str(value) for value in report.values(findings)}
        assert told == {
            "account_id": f"acct (.env line 4 of {tmp_path}/.env)",
            "gateway_id": "default (default)",
            "api_key": f"present, {len(KEY)} characters (.env line 5 of {tmp_path}/.env)",
            "gateway_token": f"present, {len(TOKEN)} characters (environment CF_AIG_TOKEN)",
            "route": "compat (argument --route)",
            "endpoint": "absent",
        }

    def test_a_secret_in_the_wrong_place_is_not_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DEEPSEEK_API_KEY", KEY)
        monkeypatch.setenv("CLOUDFLARE_AI_GATEWAY_ID", KEY)
        monkeypatch.setenv("DEEPSEEK_GATEWAY_ENDPOINT", "https://user:pass-word@ai.example.com/?key=hidden")
        case = Case.of(settings={})
        text = report.as_json(case.findings, diagnose(case))
        assert KEY not in text
        assert "pass-word" not in text
        assert "key=hidden" not in text
        assert "https://***@ai.example.com/?***" in text

    def test_a_working_directory_that_is_gone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (gone := tmp_path / "gone").mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        assert_breaks(check(), "settings", "no .env file was read")

    def test_the_environment_hides_the_file(self, emulator: Emulator, tmp_path: Path) -> None:
        (tmp_path / "other.env").write_text(f"DEEPSEEK_TOKEN={KEY}\nCF_AIG_TOKEN={emulator.gateway_token}\n")
        results = check(env_file=str(tmp_path / "other.env"), offline=True)
        assert_breaks(results, "hidden values", "unset the variable", "warn")
        found = results["hidden values"].found
        assert f"DEEPSEEK_API_KEY in the environment hides another value of DEEPSEEK_TOKEN in {tmp_path}" in found
        assert "CF_AIG_TOKEN" not in found
        assert KEY not in found

    @pytest.mark.usefixtures("emulator")
    @pytest.mark.parametrize(
        "variable",
        [
            "OPENAI_API_KEY",
            "OPENAI_ADMIN_KEY",
            "OPENAI_ORG_ID",
            "OPENAI_PROJECT_ID",
            "OPENAI_CUSTOM_HEADERS",
            "OPENAI_BASE_URL",
        ],
    )
    def test_stray_variables(self, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(variable, "x-stray: stray-value")
        results = check(offline=True)
        assert_breaks(results, "OPENAI_* variables", f"unset {variable}", "warn")
        assert "stray-value" not in str(results)

    @pytest.mark.usefixtures("emulator")
    def test_a_retired_model_in_a_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_MODEL", "deepseek/deepseek-reasoner")
        results = check(offline=True)
        assert_breaks(results, "model name", "use deepseek-flash", "warn")
        assert "MY_MODEL" in results["model name"].found

    def test_a_model_of_another_route(self, emulator: Emulator) -> None:
        assert_breaks(check(model="dynamic/support"), "model name", "Use the compat route")
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
        results = check(versions=versions)
        assert_breaks(results, "versions", "openai>=1.66,<4")
        assert found in results["versions"].found
        assert emulator.requests == []

    @pytest.mark.usefixtures("emulator")
    @pytest.mark.parametrize(
        ("retries", "attempts", "verdict", "found"),
        [
            (2, 1, "pass", "at most 3 at"),
            (0, 5, "pass", "at most 5 at"),
            (
                2,
                5,
                "warn",
                "at most 15 at DeepSeek (max_retries=2, max_attempts=5), if the connection",
            ),
        ],
    )
    def test_the_most_calls(self, retries: int, attempts: int, verdict: str, found: str) -> None:
        result = check(max_retries=retries, max_attempts=attempts, offline=True)["upstream calls"]
        assert (result.verdict, found in result.found) == (verdict, True)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["doctor", *arguments])
    return result.exit_code, result.stdout, result.stderr


class TestTheCommand:
    def test_it_tells_a_person(self, emulator: Emulator) -> None:
        status, out, err = run()
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

    def test_a_failure_is_status_1_with_its_remedy_below(self, emulator: Emulator) -> None:
        emulator.fail_next(status=402)
        status, out, err = run()
        assert (status, err) == (1, "")
        assert "fail  DeepSeek balance: 402 from DeepSeek: Insufficient Balance\n          remedy: the balance" in out
        assert out.splitlines()[-1].endswith("begin with DeepSeek balance.")

    def test_debug_adds_a_traceback_without_secrets(self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
        key(monkeypatch, emulator)
        status, out, err = run("--debug")
        assert status == 1
        assert "Traceback" not in out
        assert "AuthenticationError" in err
        assert "wxyz" not in out + err
        assert run("--debug", "--offline")[::2] == (0, "")

    def test_it_tells_a_machine(self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
        key(monkeypatch, emulator)
        status, out, _ = run("--json", "--max-retries", "0", "--max-attempts", "2")
        told = json.loads(out)
        assert list(told) == ["settings", "checks", "summary", "exit_status"]
        assert {tuple(value) for value in told["settings"]} == {
            ("name", "variable", "secret", "value", "length", "origin")
        }
        assert {tuple(each) for each in told["checks"]} == {("name", "verdict", "found", "remedy")}
        assert [each["name"] for each in told["checks"]] == NAMES
        assert told["exit_status"] == status == 1
        secret = next(value for value in told["settings"] if value["name"] == "api_key")
        assert (secret["value"], secret["length"]) == (None, len("another-deepseek-key-wxyz"))

    @pytest.mark.usefixtures("emulator")
    def test_options_reach_the_settings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("DEEPSEEK_API_KEY", "CF_AIG_TOKEN"):
            monkeypatch.delenv(name)
        (tmp_path / "my.env").write_text(f"DEEPSEEK_API_KEY={KEY}\n")
        options = ["--route", "compat", "--endpoint", "https://ai.example.com", "--env-file", str(tmp_path / "my.env")]
        status, out, _ = run("--json", "--offline", "--model", "dynamic/support", *options)
        assert status == 0
        assert "https://ai.example.com/compat" in out
        assert f"my.env line 1 of {tmp_path}" in out

    def test_wrong_usage_is_status_2(self) -> None:
        assert run("--max-attempts", "6")[0] == 2

    def test_settings_that_do_not_suffice_do_not_import_openai(self) -> None:
        code = (
            "import sys\nfrom deepseek_gateway.__main__ import main\nsys.argv = ['x', 'doctor']\n"
            "try:\n    main()\nexcept SystemExit as end:\n    assert 'openai' not in sys.modules\n    raise\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (1, "")
        assert "begin with settings." in done.stdout

    @pytest.mark.usefixtures("emulator")
    def test_symbols_fit_the_terminal(self) -> None:
        case = Case.of(settings={}, offline=True)

        class Latin(StringIO):
            encoding = "latin-1"

        for kind, symbol in ((StringIO, "\N{CHECK MARK} pass"), (Latin, "+ pass")):
            console = Console(file=kind(), width=80)
            report.show(case.findings, diagnose(case), console)
            assert symbol in console.file.getvalue()  # type: ignore[attr-defined]


def test_texts_of_others_are_made_harmless() -> None:
    from deepseek_gateway._codes import RequestFacts  # noqa: PLC0415

    sent = RequestFacts("POST", "provider", True, True, False, "m", 1, (KEY,))  # noqa: FBT003
    outcome = Outcome(sent, "host", 443, secure=True)
    assert outcome.readable(f"\x1b[31mred\r\n {KEY} Your api key: ****wxyz is") == (
        "[31mred [redacted] Your api key: [redacted] is"
    )
