"""What leaves for the gateway, rule by rule; the wire itself is looked at in test_client and test_http."""

from __future__ import annotations

import json
import tracemalloc
from importlib import import_module
from typing import Any

import openai
import pytest

from deepseek_gateway import GatewayConfig
from deepseek_gateway._request import (
    PLACEHOLDER,
    Destination,
    Recalled,
    RefusedRequestError,
    _with_model_of,
    ambient_headers,
    model_on,
    to_elsewhere,
    to_gateway,
)

httpx: Any = import_module(openai.DefaultHttpxClient.__base__.__module__)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("asked", "provider", "elsewhere"),
    [
        ("deepseek-flash", "deepseek-flash", "deepseek/deepseek-flash"),
        ("deepseek/deepseek-flash", "deepseek-flash", "deepseek/deepseek-flash"),
        ("deepseek-chat", "deepseek-chat", "deepseek/deepseek-chat"),
        ("a-name-of-next-quarter", "a-name-of-next-quarter", "deepseek/a-name-of-next-quarter"),
        ("dynamic/cheap", None, "dynamic/cheap"),
        ("openai/gpt-5", None, "openai/gpt-5"),
        ("@cf/meta/llama", None, "@cf/meta/llama"),
        ("deepseek/other/name", None, "deepseek/other/name"),
        ("", "", ""),
    ],
)
def test_a_model_has_the_name_of_its_route(asked: str, provider: str | None, elsewhere: str) -> None:
    assert model_on("compat", asked) == model_on("rest", asked) == elsewhere
    if provider is None:
        with pytest.raises(RefusedRequestError, match=r"Use the compat.* route: create_client"):
            model_on("provider", asked)
    else:
        assert model_on("provider", asked) == provider


@pytest.mark.parametrize(
    "template",
    [
        '{"model":%s,"messages":[]}',
        '{"messages":[{"role":"user","content":"the \\"model\\": \\"x\\", 你好 \\ud83d"}],"model":%s}',
        '{"messages":[{"model":"inner"}],"tools":[{"function":{"parameters":{"model":{"a":1}}}}], "model": %s }',
        ' \n{ "stream" : true , "model" :\t%s , "temperature": 1.0, "big": 123456789012345678901234567890, "e": 1e400}',
        '{"model": %s}',
        '{"a":{"model":"inner"},"b":["model","x"],"model":%s,"z":"model"}',
        '{"x":"\\\\","model":%s,"y":"\\""}',
    ],
)
def test_only_the_top_level_model_is_rewritten_and_all_else_stays_to_the_byte(template: str) -> None:
    bare, prefixed = (
        template.replace("%s", json.dumps(name)).encode() for name in ("deepseek-flash", "deepseek/deepseek-flash")
    )
    assert _with_model_of(bare, "compat") == prefixed
    assert _with_model_of(prefixed, "provider") == bare
    assert _with_model_of(prefixed, "compat") is prefixed
    assert _with_model_of(bare, "provider") is bare


NO_MODEL = [
    b"",
    b"not json",
    b"[]",
    b'["model", "deepseek-flash"]',
    b'"model"',
    b"{}",
    b'{"model": null}',
    b'{"model": 5, "x": "a/b"}',
    b'{"model": ["deepseek/x"]}',
    b'{"messages": [{"model": "deepseek/inner"}]}',
    b'{"model" "deepseek-flash"}',
    b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b', "models": "deepseek-flash"}',
    b'{"messages": [}, "models": "deepseek-flash"}',
    b'{"messages": ["\xff"], "models": "deepseek-flash"}',
    b'{"messages": [{"model": "deepseek-flash"}]}',
    b'{"messages": [{"a": 1, "model": "deepseek-flash"}], "n": 1}',
    b'[{"model": "deepseek-flash"}]',
    b'{"the \\"model": "deepseek-flash"}',
    b'{"messages": [{"role": "user", "content": "\\"model\\": \\"deepseek/flash\\"}"}]}',
]


@pytest.mark.parametrize("body", NO_MODEL, ids=range(len(NO_MODEL)))
def test_what_has_no_model_or_is_no_json_is_left_for_the_other_end_to_judge(body: bytes) -> None:
    for route in ("provider", "compat", "rest"):
        assert _with_model_of(body, route) is body  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "before",
    [b"[" * 100_000 + b"]" * 100_000, b'["\xff"]', b"[}", b'["\\"model\\": \\"x\\"}"]', b'[{"model": "a/b"}]'],
    ids=["deep", "not UTF-8", "no JSON", "quoted", "inner"],
)
def test_what_the_sdk_writes_before_the_model_is_not_read(before: bytes) -> None:
    # openai 1 and 2 write the model behind the messages, which may hold a megabyte.
    body = b'{"messages":%s,"model":"%s","tools":[{"parameters":{"model":{"type":"string"}}}]}'
    assert _with_model_of(body % (before, b"deepseek-flash"), "compat") == body % (before, b"deepseek/deepseek-flash")
    assert _with_model_of(body % (before, b"deepseek/deepseek-flash"), "provider") == body % (before, b"deepseek-flash")


def test_a_model_behind_many_others_is_found_all_the_same() -> None:
    tools = b",".join([b'{"model": "inner"}'] * 50)
    body = b'{"messages": [], "model": "%s", "tools": [' + tools + b"]}"
    assert _with_model_of(body % b"deepseek-flash", "compat") == body % b"deepseek/deepseek-flash"
    body = b'{"messages": [], "model": "%s", "user": "' + b"x" * 100_000 + b'"}'
    assert _with_model_of(body % b"deepseek-flash", "compat") == body % b"deepseek/deepseek-flash"


def test_a_name_that_no_encoding_can_write_is_escaped() -> None:
    assert _with_model_of(b'{"model": "\\ud83d"}', "compat") == b'{"model": "deepseek/\\ud83d"}'


CONFIG = GatewayConfig(endpoint="https://ai.example.com/v1/acct/gw", api_key="the-key", gateway_token="the-token")
DESTINATION = Destination.of(CONFIG, httpx.URL(CONFIG.base_url))


@pytest.mark.parametrize(
    ("url", "covered"),
    [
        ("https://ai.example.com/v1/acct/gw/deepseek", True),
        ("https://ai.example.com/v1/acct/gw/deepseek/chat/completions", True),
        ("https://ai.example.com:443/v1/acct/gw/deepseek/beta/completions?x=1", True),
        ("https://AI.example.com/v1/acct/gw/deepseek/models", True),
        ("https://ai.example.com/v1/acct/gw/deepseek/models/a%20b", True),
        ("https://ai.example.com/v1/acct/gw/deepseek/..models", True),
        ("http://ai.example.com/v1/acct/gw/deepseek/models", False),
        ("https://user:pass@ai.example.com/v1/acct/gw/deepseek/models", False),
        ("https://ai.example.com:8443/v1/acct/gw/deepseek/models", False),
        ("https://example.com/v1/acct/gw/deepseek/models", False),
        ("https://ai.example.com.evil.test/v1/acct/gw/deepseek/models", False),
        ("https://ai.example.com/v1/acct/gw/deepseek2/models", False),
        ("https://ai.example.com/v1/acct/gw/openai/models", False),
        ("https://ai.example.com/v1/acct/other/deepseek/models", False),
        ("https://ai.example.com/v1/acct/gw/deepseek/../openai/models", False),
        ("https://ai.example.com/v1/acct/gw/deepseek/%2e%2e/openai/models", False),
        ("https://ai.example.com/v1/acct/gw/deepseek/..%2fopenai/models", False),
        ("https://ai.example.com/v1/acct/gw/deepseek/%2E./openai", False),
        ("https://ai.example.com/v1/acct/gw/deepseek/..%5copenai", False),
    ],
)
def test_credentials_go_by_origin_and_path_segments(url: str, covered: bool) -> None:
    assert DESTINATION.covers(httpx.URL(url)) is covered
    request = httpx.Request("POST", url, headers={"Authorization": "Bearer the-key"}, json={"model": "deepseek-flash"})
    sent = (to_gateway if covered else to_elsewhere)(request, DESTINATION, frozenset()).headers
    assert ("the-key" in sent.get("authorization", "")) is ("cf-aig-authorization" in sent) is covered


def test_elsewhere_the_callers_own_key_goes_along_and_ours_and_the_placeholder_do_not() -> None:
    for value, arrives in (("mine", True), ("the-key", False), ("the-token", False), (PLACEHOLDER, False)):
        headers = {"Authorization": f"Bearer {value}", "X-Copy": f"token {value}", "X-Other": "1"}
        sent = to_elsewhere(
            httpx.Request("GET", "https://other.test/", headers=headers), DESTINATION, frozenset()
        ).headers
        assert [name in sent for name in ("authorization", "x-copy", "x-other")] == [arrives, arrives, True]


@pytest.mark.parametrize("given", [f"Bearer {PLACEHOLDER}", "Bearer the-key", "Bearer another"])
def test_the_sdks_request_is_left_as_it_is(given: str) -> None:
    request = httpx.Request("POST", CONFIG.base_url, headers={"Authorization": given}, json={"model": "deepseek/a"})
    before = (list(request.headers.raw), request.content)
    outgoing = to_gateway(request, DESTINATION, frozenset())
    headers, body = outgoing.headers, outgoing.body
    assert "the-" not in repr(outgoing)
    assert headers is not request.headers
    assert json.loads(body or b"") == {"model": "a"}
    assert headers["content-length"] == str(len(body or b""))
    assert (list(request.headers.raw), request.content) == before


def request_with(headers: dict[str, str], body: bytes | None = b"{}") -> Any:
    return httpx.Request("POST", CONFIG.base_url, headers=headers, content=body)


def test_recalled_are_the_headers_but_for_the_length_of_the_body() -> None:
    first = request_with({"Authorization": "Bearer the-key", "X-Mine": "1"})
    sent = to_gateway(first, DESTINATION, frozenset()).headers
    recalled = Recalled.of(first, sent)
    assert recalled is not None
    assert recalled.credentials == ("authorization",)
    sent["X-Hook"] = "1"
    longer = request_with({"Authorization": "Bearer the-key", "X-Mine": "1"}, b"{    }")
    again = recalled.headers_for(longer)
    assert again is not None
    assert again == to_gateway(longer, DESTINATION, frozenset()).headers
    assert again["content-length"] == "6"
    for other in ({"Authorization": "Bearer other", "X-Mine": "1"}, {"Authorization": "Bearer the-key"}):
        assert recalled.headers_for(request_with(other)) is None
    assert recalled.headers_for(request_with({"Authorization": "Bearer the-key", "X-Mine": "1"}, None)) is None


def test_nothing_is_recalled_of_a_request_without_a_body() -> None:
    # Its last header is any, and would go out with the next request that has the others.
    request = httpx.Request("GET", CONFIG.base_url, headers={"Authorization": "Bearer the-key", "X-Once": "1"})
    assert Recalled.of(request, to_gateway(request, DESTINATION, frozenset()).headers) is None


def test_ambient_headers_are_those_the_sdk_reads() -> None:
    environ = {
        "OPENAI_ADMIN_KEY": "admin",
        "OPENAI_ORG_ID": "org",
        "OPENAI_PROJECT_ID": "project",
        "OPENAI_CUSTOM_HEADERS": "X-One: 1\n  X-Two :a:b \nno colon\nX-Mine: 3",
    }
    assert ambient_headers(environ, {"x-MINE": "3", "X-One": "other"}) == {
        (b"authorization", b"Bearer admin"),
        (b"openai-organization", b"org"),
        (b"openai-project", b"project"),
        (b"x-one", b"1"),
        (b"x-two", b"a:b"),
    }
    assert ambient_headers({}, {}) == frozenset()


def test_a_destination_shows_no_secret() -> None:
    assert "the-" not in repr(DESTINATION)


class TestLargePrompts:
    """What a prompt of a megabyte costs, counted in bytes copied and decoded."""

    LARGE = 1_000_000

    def request(self, order: str, model: str) -> Any:
        members = {"messages": [{"role": "user", "content": "x" * self.LARGE}], "model": model, "stream": True}
        body = json.dumps({name: members[name] for name in order.split()}).encode()
        return httpx.Request(
            "POST",
            CONFIG.base_url,
            headers={"Authorization": "Bearer the-key", "Content-Type": "application/json"},
            content=body,
        )

    # openai 3 writes the model first, openai 1 and 2 behind the messages.
    @pytest.mark.parametrize("order", ["model messages stream", "messages model stream"])
    @pytest.mark.parametrize(
        ("route", "model", "copies"), [("provider", "deepseek-flash", 0), ("compat", "deepseek-flash", 1)]
    )
    def test_it_is_never_decoded_and_copied_only_when_the_model_changes(
        self, monkeypatch: pytest.MonkeyPatch, order: str, route: str, model: str, copies: int
    ) -> None:
        decoded = 0
        raw_decode = json.JSONDecoder.raw_decode

        def counted(decoder: Any, s: str, idx: int = 0) -> Any:
            nonlocal decoded
            value, end = raw_decode(decoder, s, idx)
            decoded += end - idx
            return value, end

        config = GatewayConfig(endpoint="https://ai.example.com/v1/acct/gw", api_key="the-key", route=route)  # type: ignore[arg-type]
        destination = Destination.of(config, httpx.URL(config.base_url))
        request = self.request(order, model)
        request.url = httpx.URL(config.base_url + "/chat/completions")
        monkeypatch.setattr(json.JSONDecoder, "raw_decode", counted)
        tracemalloc.start()
        try:
            body = to_gateway(request, destination, frozenset()).body
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (body is not None) == bool(copies)
        assert decoded < 1_000
        assert peak < (copies + 0.1) * self.LARGE
