"""The options of the HTTP client: limits, trust, transport and proxies, without a connection."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import openai
import pytest

from deepseek_gateway._connections import KEPT_IDLE, connection_options, httpx, set_keep_alive

if TYPE_CHECKING:
    from pathlib import Path


class Transport:
    """A transport that keeps what it was made of."""

    def __init__(self, **made_of: Any) -> None:
        self.made_of = made_of


def options(transport: Any = Transport, /, **given: Any) -> dict[str, Any]:
    return connection_options(given, transport)


@pytest.fixture(autouse=True)
def system_without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")  # other systems keep proxies outside of the environment as well
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


class TestTransport:
    """A client gets a transport with keep-alive, unless the caller or a proxy decides how it sends."""

    def test_transport_is_made_of_the_callers_options_of_a_transport(self) -> None:
        made = options(http2=True, trust_env=False, headers={"x": "1"}, timeout=5)
        assert made.keys() == {"limits", "verify", "transport", "http2", "trust_env", "headers", "timeout"}
        of_the_transport = made["transport"].made_of
        assert of_the_transport.keys() == {"limits", "verify", "http2", "trust_env", "socket_options"}
        assert (of_the_transport["http2"], of_the_transport["trust_env"]) == (True, False)
        assert of_the_transport["limits"] is made["limits"]
        assert of_the_transport["verify"] is made["verify"]
        assert (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1) in of_the_transport["socket_options"]

    def test_limits_are_the_sdks_with_a_longer_expiry(self) -> None:
        default = openai.DEFAULT_CONNECTION_LIMITS
        limits = options()["limits"]
        assert (limits.max_connections, limits.max_keepalive_connections, limits.keepalive_expiry) == (
            default.max_connections,
            default.max_keepalive_connections,
            KEPT_IDLE,
        )

    def test_limits_of_the_caller_win(self) -> None:
        assert options(limits="mine")["limits"] == "mine"

    @pytest.mark.parametrize("name", ["transport", "proxies"])
    def test_options_with_a_transport_of_the_caller_stay_as_they_are(self, name: str) -> None:
        assert options(**{name: "mine"}) == {name: "mine"}

    @pytest.mark.parametrize("name", ["proxy", "mounts"])
    def test_proxy_or_mount_of_the_caller_gets_no_transport(self, name: str) -> None:
        assert options(**{name: "mine"}).keys() == {"limits", "verify", name}

    @pytest.mark.parametrize("variable", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
    @pytest.mark.parametrize("transport", [Transport, None])
    def test_proxy_of_the_environment_gets_no_transport(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, transport: Any
    ) -> None:
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
        assert options(transport).keys() == {"limits", "verify"}
        assert "transport" in options(trust_env=False)

    @pytest.mark.parametrize("system", ["darwin", "win32"])
    def test_proxy_of_the_system_gets_no_transport(self, monkeypatch: pytest.MonkeyPatch, system: str) -> None:
        monkeypatch.setattr("sys.platform", system)
        monkeypatch.setattr("deepseek_gateway._connections.getproxies", lambda: {"https": "http://127.0.0.1:9"})
        assert options().keys() == {"limits", "verify"}

    @pytest.mark.parametrize("variable", ["NO_PROXY", "FTP_PROXY"])
    def test_variable_that_names_no_proxy_for_http_changes_nothing(
        self, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, "ftp://127.0.0.1:9")
        assert "transport" in options()

    def test_client_without_a_transport_of_ours_reads_the_environment_only_once(self) -> None:
        assert options(None).keys() == {"limits", "verify", "trust_env"}
        assert options(None)["trust_env"] is False

    @pytest.mark.parametrize("own", [{"verify": False}, {"cert": "client.pem"}], ids=lambda own: next(iter(own)))
    def test_trust_of_the_caller_is_left_to_the_http_library(self, own: dict[str, Any]) -> None:
        made = options(None, **own)
        del made["limits"]
        assert made == own


class TestSharedTls:
    """Clients with the same trust settings share one TLS context."""

    def test_equal_settings_share_a_context(self) -> None:
        assert options()["verify"] is options(verify=True, headers={})["verify"]

    @pytest.mark.parametrize("given", [{"http2": True}, {"trust_env": False}], ids=lambda given: next(iter(given)))
    def test_other_version_of_http_or_other_trust_gets_another_context(self, given: dict[str, Any]) -> None:
        assert options(**given)["verify"] is not options()["verify"]

    @pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"])
    def test_other_variable_gets_another_context(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
    ) -> None:
        before = options()["verify"]
        path = tmp_path / "named"
        if variable == "SSL_CERT_DIR":
            path.mkdir()
        elif variable == "SSL_CERT_FILE":
            trustme = pytest.importorskip("trustme")
            path.write_bytes(trustme.CA().cert_pem.bytes())
        monkeypatch.setenv(variable, str(path))
        named = options()["verify"]
        assert named is not before
        assert named is options()["verify"]
        path.touch()
        os.utime(path, (1, 1))
        changes_with_every_connection = variable == "SSLKEYLOGFILE"
        assert (options()["verify"] is named) is changes_with_every_connection

    def test_missing_file_of_certificates_is_reported_by_the_http_library(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", "missing.pem")
        try:
            expected = httpx.create_ssl_context()
        except OSError as error:
            with pytest.raises(type(error)):
                options()
        else:
            assert type(options()["verify"]) is type(expected)


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="this system has no such option")
@pytest.mark.parametrize(("on", "changed"), [(0, True), (1, False)], ids=["off", "on"])
def test_keep_alive_of_a_socket_is_set_only_if_it_is_off(on: int, changed: bool) -> None:
    class Stream:
        def get_extra_info(self, name: str) -> socket.socket | None:
            return made if name == "socket" else None

    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, on)
        before = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        set_keep_alive(httpx.Response(200, extensions={"network_stream": Stream()}))
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert (made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) != before) is changed
