"""`deepseek-gateway doctor`, the completion: a refusal or a failed connection fails one check and names a remedy."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from calling import KEY
from commands import assert_breaks, examine, named, set_up
from loopback import serve

from deepseek_gateway import GatewayConfig
from deepseek_gateway._config import look_up
from deepseek_gateway.cli import report
from deepseek_gateway.cli.doctor import Case, diagnose
from deepseek_gateway.cli.probe import Probe
from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from loopback import Loopback

ROUTES = ("provider", "compat", "rest")


def token(monkeypatch: pytest.MonkeyPatch, _: Emulator) -> None:
    monkeypatch.setenv("CF_AIG_TOKEN", "another-gateway-token")


def no_token(monkeypatch: pytest.MonkeyPatch, _: Emulator) -> None:
    monkeypatch.delenv("CF_AIG_TOKEN")


def key(monkeypatch: pytest.MonkeyPatch, _: Emulator) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "another-deepseek-key-wxyz")


def gateway_id(monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> None:
    monkeypatch.setenv("DEEPSEEK_GATEWAY_ENDPOINT", f"{emulator.url}/v1/{emulator.account_id}/another-gateway")


def rest(monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> None:
    set_up(monkeypatch, emulator.config(route="rest"))
    token(monkeypatch, emulator)


def fault(*code: int, **how: Any) -> Callable[[pytest.MonkeyPatch, Emulator], None]:
    return lambda _, emulator: emulator.fail_next(*code, **how)


class TestRefusals:
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
            pytest.param(fault(shape="policy"), "gateway authentication", "administrator", id="identity policy"),
            pytest.param(fault(2003), "DeepSeek reached", "slow down", id="gateway's rate limit"),
            pytest.param(fault(2016), "DeepSeek reached", "guardrails", id="guardrail"),
            pytest.param(fault(2045), "DeepSeek reached", "raise the limit", id="spend limit"),
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
    def test_refusal_fails_the_check_that_it_belongs_to(
        self, broken: Any, name: str, remedy: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken(monkeypatch, emulator)
        results = examine()
        assert_breaks(results, name, remedy)
        assert len(emulator.requests) == 1
        names = list(results)
        before = [results[each].verdict for each in names[: names.index(name)] if each != "clock"]
        assert set(before) <= {"pass", "warn"}
        text = report.as_json(look_up(), results)
        assert "another-" not in text.replace("another-gateway", "")
        assert "wxyz" not in text

    @pytest.mark.parametrize("route", ROUTES)
    def test_unknown_model_fails_the_model_check(
        self, route: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_up(monkeypatch, emulator.config(route=route))
        results = examine(model="no-such-model")
        assert_breaks(results, "model accepted", "check its name" if route == "rest" else "use a name from that list")

    def test_guardrails_fail_the_streaming_check(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Emulator(guardrails=()) as emulator:
            set_up(monkeypatch, emulator.config())
            assert_breaks(examine(), "streaming", "guardrails do that")

    def test_cache_hit_for_a_new_question_is_a_warning(self, emulator: Emulator) -> None:
        emulator.fail_next(headers={"cf-aig-cache-status": "HIT"})
        assert_breaks(examine(), "cache status", "cache key", "warn")

    @pytest.mark.parametrize(("hours", "found"), [(1, "behind"), (-1, "ahead of")])
    def test_clock_off_by_an_hour_is_a_warning(self, hours: int, found: str, emulator: Emulator) -> None:
        then = datetime.now(UTC) + timedelta(hours=hours)
        emulator.fail_next(headers={"date": format_datetime(then, usegmt=True)})
        results = examine()
        assert_breaks(results, "clock", "set this computer's clock", "warn")
        assert found in results["clock"].found

    @pytest.mark.usefixtures("emulator")
    def test_retired_model_is_a_warning_and_is_still_asked(self) -> None:
        results = examine(model="deepseek-chat")
        assert_breaks(results, "model name", "use deepseek-flash", "warn")
        assert results["model accepted"].found == "deepseek-chat answered as deepseek-flash"


@contextmanager
def closed_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    yield port


class TestConnection:
    def test_host_without_an_address_fails_name_resolution(
        self, examine_at: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unknown(host: str, *_: object, **__: object) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, f"{host} is not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        results = examine_at("https://gateway.invalid")
        assert_breaks(results, "name resolution", "DNS")
        assert results["name resolution"].found.startswith("gateway.invalid has no address")

    def test_closed_port_fails_the_tcp_check(self, examine_at: Any) -> None:
        with closed_port() as port:
            results = examine_at(f"http://127.0.0.1:{port}")
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
    def test_certificate_fails_the_tls_check_unless_it_is_valid_and_trusted(
        self,
        trusted: bool,
        issued: dict[str, Any],
        remedy: str | None,
        examine_at: Any,
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
            results = examine_at(server.url)
        assert str(trusted_file) in results["trusted certificates"].found
        if remedy:
            assert_breaks(results, "TLS certificate", remedy)
            assert server.received == []
        else:
            assert results["TLS certificate"].verdict == "pass"
            assert "TLSv1.3, issued by Corporate Inspection" in results["TLS certificate"].found
            assert "2100" in results["TLS certificate"].found
            assert abs(int(results["clock"].found.split()[0])) < 60

    def test_server_without_tls_fails_the_tls_check(self, examine_at: Any, gateway: Loopback) -> None:
        assert_breaks(examine_at(gateway.url.replace("http:", "https:")), "TLS certificate", "does not speak TLS")

    @pytest.mark.parametrize(
        ("variable", "content"),
        [("SSL_CERT_FILE", None), ("SSL_CERT_FILE", "no certificate"), ("SSL_CERT_DIR", None)],
    )
    def test_unreadable_trusted_certificates_fail_without_a_connection(
        self,
        variable: str,
        content: str | None,
        examine_at: Any,
        gateway: Loopback,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))
        if content:
            (tmp_path / "ca.pem").write_text(content)
        assert_breaks(examine_at(gateway.url), "trusted certificates", f"correct or unset {variable}")
        assert gateway.connections == 0

    def test_answer_without_gateway_headers_is_a_warning(self, examine_at: Any, gateway: Loopback) -> None:
        assert_breaks(examine_at(gateway.url), "gateway", "DEEPSEEK_GATEWAY_ENDPOINT", "warn")

    def test_stream_in_one_piece_is_a_warning(self, examine_at: Any, gateway: Loopback) -> None:
        assert_breaks(examine_at(gateway.url), "streaming", "holds them back", "warn")

    @pytest.mark.usefixtures("emulator")
    @pytest.mark.parametrize(("arrivals", "verdict"), [([0, 1, 1.2], "pass"), ([0, 1, 1.001], "warn")])
    def test_stream_is_a_warning_if_its_pieces_arrive_together(self, arrivals: list[float], verdict: str) -> None:
        case = Case(findings=look_up())
        case.probe.arrivals[:] = arrivals
        assert diagnose(case)["streaming"].verdict == verdict


@contextmanager
def tunnel(port: int) -> Iterator[str]:
    """Run a proxy that connects its one tunnel to a port of this computer, for any host name."""

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
    def test_working_proxy_passes_and_is_named_by_the_network_checks(
        self, examine_at: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        authority = trustme.CA(organization_name="Corporate Inspection")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("gateway.invalid").configure_cert(context)
        (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with serve(context=context) as server, tunnel(int(server.url.rpartition(":")[2])) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy)
            results = examine_at("https://gateway.invalid")
        assert named(results, "fail") == set()
        assert "the next checks look at the proxy" in results["proxies"].found
        assert results["name resolution"].found == "the proxy 127.0.0.1 is at 127.0.0.1"
        assert proxy.rpartition("@")[2] in results["TCP connection"].found
        assert "issued by Corporate Inspection" in results["TLS certificate"].found
        assert "pass-word" not in str(results)

    def test_proxy_for_a_loopback_endpoint_is_a_warning_without_its_password(
        self, examine_at: Any, gateway: Loopback, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", gateway.url.replace("http://", "http://user:pass-word@"))
        results = examine_at("http://127.0.0.1:9")
        assert_breaks(results, "proxies", "set NO_PROXY=127.0.0.1", "warn")
        assert "http://***@127.0.0.1" in results["proxies"].found
        assert "user" not in str(results)
        assert "pass-word" not in str(results)
        assert gateway.url.removeprefix("http://") in results["TCP connection"].found

    def test_host_in_no_proxy_bypasses_the_proxy(
        self, examine_at: Any, gateway: Loopback, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        results = examine_at(gateway.url)
        assert not named(results, "fail")
        assert "NO_PROXY names it" in results["proxies"].found

    def test_unreachable_proxy_fails_the_tcp_check(self, examine_at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        with closed_port() as port:
            monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{port}")
            results = examine_at("https://gateway.invalid")
        assert_breaks(results, "TCP connection", "HTTPS_PROXY")
        assert results["name resolution"].found == "the proxy 127.0.0.1 is known"

    def test_refusing_proxy_fails_the_tcp_check(
        self, examine_at: Any, gateway: Loopback, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", gateway.url)
        results = examine_at("https://gateway.invalid")
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
    def test_unusable_proxy_fails_the_proxy_check_without_its_password(
        self, proxy: str, remedy: str, examine_at: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.setattr("deepseek_gateway.cli.computer.find_spec", lambda _: None)
        results = examine_at("https://gateway.invalid")
        assert_breaks(results, "proxies", remedy)
        assert "pass-word" not in str(results)

    def test_error_before_any_connection_fails_name_resolution(
        self, examine_at: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("deepseek_gateway.cli.probe.create_client", lambda *_, **__: 1 / 0)
        assert_breaks(examine_at("https://gateway.invalid"), "name resolution", "NO_PROXY")


def test_text_from_a_server_loses_secrets_and_control_characters() -> None:
    probe = Probe(GatewayConfig(account_id="acct", api_key=KEY), "deepseek-flash")
    assert probe.readable(f"\x1b[31mred\r\n {KEY} Your api key: ****wxyz is") == (
        "[31mred [redacted] Your api key: [redacted] is"
    )
