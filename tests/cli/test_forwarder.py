"""The forwarder behind `serve` and `run`: who may use it, what goes on to the gateway, and what comes back."""

from __future__ import annotations

import gzip
import json
import socket
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import openai
import pytest
from calling import KEY, TOKEN, chat
from forwarded import forwarder
from loopback import COMPLETION, Answer

from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from forwarded import Running
    from loopback import Loopback

    from deepseek_gateway import GatewayConfig


class TestCallers:
    @pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer sk-other", "Basic {key}", "{key}", "Bearer {key}x"])
    def test_call_without_the_key_is_answered_401_and_not_sent(
        self, given: str | None, forward: Running, gateway: Loopback
    ) -> None:
        response, body = forward.send(authorization=given and given.format(key=forward.key))
        assert response.status == 401
        assert json.loads(body)["error"]["code"] == "invalid_api_key"
        assert forward.key not in body.decode()
        assert gateway.received == []

    def test_wrong_key_raises_an_authentication_error_that_is_not_retried(self, forward: Running) -> None:
        refused = pytest.raises(openai.AuthenticationError, match="Each run has a new one")
        with forward.client(api_key="sk-other", max_retries=2) as client, refused:
            chat(client)
        forward.stop()
        assert [line.status for line in forward.lines] == [401]

    def test_each_run_has_another_key(self, config_at: Callable[..., GatewayConfig], gateway: Loopback) -> None:
        with forwarder(config_at(gateway)) as one, forwarder(config_at(gateway)) as other:
            assert one.key != other.key
            assert len(one.key) > 40

    @pytest.mark.parametrize("host", ["example.com", "127.0.0.1.example.com:80", "localhost.example.com", "10.0.0.1"])
    def test_foreign_host_name_is_answered_421_and_not_sent(
        self, host: str, forward: Running, gateway: Loopback
    ) -> None:
        assert forward.send(host=host)[0].status == 421
        assert gateway.received == []

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8788", "127.0.0.1", "[::1]:8788"])
    def test_loopback_host_name_is_accepted(self, host: str, forward: Running) -> None:
        assert forward.send(host=host)[0].status == 200

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems have no 127.0.0.2")
    def test_no_other_address_of_the_machine_is_listened_on(self, forward: Running) -> None:
        with socket.create_server(("127.0.0.2", int(forward.host.partition(":")[2]))):
            pass  # the port is in use if the forwarder listens on every address

    def test_no_response_has_cors_headers(self, forward: Running, gateway: Loopback) -> None:
        cors = {"access-control-allow-origin": "*", "access-control-allow-credentials": "true"}
        gateway.answer = lambda _: Answer(COMPLETION, headers=cors)
        answered, _ = forward.send(origin="https://example.com")
        preflight, _ = forward.send(
            method="OPTIONS", authorization=None, origin="https://example.com", access_control_request_method="POST"
        )
        assert (answered.status, preflight.status) == (200, 401)
        for response in (answered, preflight):
            assert not [name for name in response.headers if name.lower().startswith("access-control-")]


class TestRequests:
    def test_of_the_callers_headers_only_type_accept_and_gateway_options_go_on(
        self, forward: Running, gateway: Loopback
    ) -> None:
        forward.send(
            accept="application/json",
            accept_encoding="br",
            cookie="a=b",
            cf_aig_cache_ttl="3600",
            openai_organization="org-1",
            user_agent="Mozilla/5.0",
            x_api_key="sk-other",
            x_forwarded_for="192.0.2.1",
            x_stainless_os="Linux",
        )
        headers = dict(gateway.last.headers)
        assert headers["authorization"] == f"Bearer {KEY}"
        assert headers["cf-aig-authorization"] == f"Bearer {TOKEN}"
        assert headers["cf-aig-cache-ttl"] == "3600"
        assert headers["accept"] == "application/json"
        own = {"authorization", "cf-aig-authorization", "host", "content-length", "accept-encoding", "user-agent"}
        assert headers.keys() - own == {"accept", "cf-aig-cache-ttl", "content-type"}
        assert headers["user-agent"] == f"deepseek-gateway/{version('deepseek-gateway')}"
        assert forward.key not in str(headers)

    def test_stored_key_is_used_and_the_forwarders_key_stays_here(self) -> None:
        with Emulator() as emulator, forwarder(emulator.config(api_key=None)) as running, running.client() as client:
            assert chat(client).choices[0].message.content
            (request,) = emulator.requests
            assert "authorization" not in request.headers
            assert running.key not in str(request.headers)
            assert request.upstream
            assert request.upstream.headers["authorization"] == f"Bearer {emulator.api_key}"

    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/v1/chat/completions?a=%2F&b"])
    def test_path_is_appended_to_the_base_url_with_or_without_v1(
        self, path: str, forward: Running, gateway: Loopback
    ) -> None:
        assert forward.send(path)[0].status == 200
        assert gateway.last.path == f"/v1/acct/my-gateway/deepseek{path.removeprefix('/v1')}"

    @pytest.mark.parametrize("path", ["/v1/../secret", "/v1/%2e%2e/%2E%2E/secret", "/v1/..%5csecret", "/.."])
    def test_path_out_of_the_api_is_answered_404_and_not_sent(
        self, path: str, forward: Running, gateway: Loopback
    ) -> None:
        assert forward.send(path)[0].status == 404
        assert gateway.received == []

    def test_head_has_no_body(self, forward: Running, gateway: Loopback) -> None:
        gateway.answer = lambda _: Answer(b"")
        response, body = forward.send("/v1/models", method="HEAD")
        assert (response.status, body, gateway.last.method) == (200, b"", "HEAD")

    def test_body_is_translated_into_deepseeks_dialect(
        self, gateway: Loopback, config_at: Callable[..., GatewayConfig]
    ) -> None:
        config = config_at(gateway, route="compat", model="deepseek-flash")
        with forwarder(config) as running, running.client() as client:
            chat(client, model="gpt-4o", max_completion_tokens=5, messages=[{"role": "developer", "content": "Hi"}])
            sent, line = gateway.last.json, running.last_line()
        assert (sent["model"], sent["max_tokens"]) == ("deepseek/deepseek-flash", 5)
        assert sent["messages"] == [{"role": "system", "content": "Hi"}]
        assert line.call
        assert line.call.adapted == ("model", "developer", "max_completion_tokens")

    def test_body_arrives_as_the_same_bytes(self, forward: Running, gateway: Loopback) -> None:
        body = b'{ "model":"deepseek-flash", "messages": [], "note": "\xe4\xba\x91" }'
        forward.send(body=body)
        assert gateway.last.body == body

    def test_failed_call_is_retried_only_by_the_program(self, forward: Running, gateway: Loopback) -> None:
        gateway.answer = lambda _: Answer({"error": {"message": "busy"}}, 503)
        with forward.client(max_retries=1) as client, pytest.raises(openai.InternalServerError):
            chat(client)
        assert len(gateway.received) == 2


class TestModels:
    def test_models_of_deepseek_are_listed_on_the_provider_route(self) -> None:
        with Emulator() as emulator, forwarder(emulator.config()) as running, running.client() as client:
            assert "deepseek-flash" in [model.id for model in client.models.list()]
            assert emulator.requests[-1].path.endswith("/deepseek/models")

    @pytest.mark.parametrize("status", [400, 404, 405])
    def test_route_without_a_list_of_models_gets_deepseeks(
        self, status: int, gateway: Loopback, config_at: Callable[..., GatewayConfig]
    ) -> None:
        gateway.answer = lambda _: Answer({"errors": [{"code": 7001, "message": "GET not supported"}]}, status)
        with forwarder(config_at(gateway, route="rest")) as running, running.client() as client:
            assert [model.id for model in client.models.list()] == ["deepseek-flash", "deepseek-v4-pro"]
            assert running.last_line().status == 200

    def test_refused_list_of_models_stays_an_error(
        self, gateway: Loopback, config_at: Callable[..., GatewayConfig]
    ) -> None:
        gateway.answer = lambda _: Answer({"errors": [{"code": 10000, "message": "Authentication error"}]}, 401)
        refused = pytest.raises(openai.AuthenticationError)
        with forwarder(config_at(gateway, route="rest")) as running, running.client() as client, refused:
            client.models.list()


class TestResponses:
    def test_headers_of_the_gateway_come_back_and_those_of_the_connection_do_not(
        self, forward: Running, gateway: Loopback
    ) -> None:
        theirs = {"cf-aig-cache-status": "HIT", "cf-aig-log-id": "01LOG", "retry-after": "7", "x-ds-trace-id": "t"}
        connection = {"set-cookie": "__cf_bm=1", "alt-svc": "h3", "strict-transport-security": "max-age=1"}
        gateway.answer = lambda _: Answer(COMPLETION, headers=theirs | connection)
        response, _ = forward.send()
        assert {name: response.headers[name] for name in theirs} == theirs
        assert not connection.keys() & {name.lower() for name in response.headers}

    def test_compressed_body_comes_back_decoded(self, forward: Running, gateway: Loopback) -> None:
        packed = gzip.compress(json.dumps(COMPLETION).encode())
        gateway.answer = lambda _: Answer(packed, headers={"content-encoding": "gzip"})
        response, body = forward.send()
        assert json.loads(body) == COMPLETION
        assert "content-encoding" not in response.headers

    def test_error_of_the_gateway_comes_back_explained(self) -> None:
        with Emulator() as emulator, forwarder(emulator.config()) as running, running.client() as client:
            emulator.fail_next(2045)
            with pytest.raises(openai.RateLimitError, match="a spend limit of this gateway is reached") as caught:
                chat(client)
        assert caught.value.code == "2045"
        assert caught.value.response.headers["x-should-retry"] == "false"

    def test_unreachable_gateway_is_answered_502_with_the_reason(
        self, config_at: Callable[..., GatewayConfig], gateway: Loopback
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            gateway.url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with forwarder(config_at(gateway)) as running, running.client() as client:
            with pytest.raises(
                openai.InternalServerError, match=r"127\.0\.0\.1:\d+ could not be reached: .+"
            ) as caught:
                chat(client)
            assert (caught.value.status_code, running.last_line().status) == (502, 502)
        assert (caught.value.type, caught.value.code) == ("connection_error", "upstream_unreachable")

    def test_redirect_is_answered_502_without_its_target(self, forward: Running, gateway: Loopback) -> None:
        gateway.answer = lambda _: Answer(b"", 307, headers={"location": "https://example.com/secret"})
        response, body = forward.send()
        assert (response.status, response.headers["location"]) == (502, None)
        assert json.loads(body)["error"]["code"] == "redirect_refused"

    def test_line_of_the_log_has_what_the_gateway_reported(self, forward: Running, gateway: Loopback) -> None:
        gateway.answer = lambda _: Answer(COMPLETION, headers={"cf-aig-cache-status": "HIT"})
        forward.send("/v1/chat/completions?secret=1")
        line = forward.last_line()
        assert (line.method, line.path, line.status, line.ending) == ("POST", "/chat/completions", 200, "")
        assert line.call
        assert (line.call.model, line.call.cache_status) == ("deepseek-flash", "HIT")
        assert line.call.usage
        assert (line.call.usage.prompt_tokens, line.call.usage.completion_tokens) == (3, 2)
