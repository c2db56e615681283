"""The request to the gateway, rule by rule. test_exchange and test_http check the same rules on the wire."""

from __future__ import annotations

import json
import tracemalloc
from importlib import import_module
from typing import Any

import openai
import pytest

from deepseek_gateway import GatewayConfig, Route
from deepseek_gateway._body import Pieces
from deepseek_gateway._exchange import Exchange
from deepseek_gateway._model import body_to_send, model_named, model_on, model_sent
from deepseek_gateway._request import (
    PLACEHOLDER,
    Destination,
    RefusedRequestError,
    ambient_headers,
    headers_to_gateway,
    request_facts,
    user_agent,
)

httpx: Any = import_module(openai.DefaultHttpxClient.__base__.__module__)  # type: ignore[union-attr]


def sent_body(route: Route, body: bytes) -> bytes:
    config = GatewayConfig(account_id="acct", api_key="the-key", gateway_token="the-token", route=route)
    return b"".join(body_to_send(config, "/chat/completions", body)[0])


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
def test_each_route_gets_its_own_form_of_a_model_name(asked: str, provider: str | None, elsewhere: str) -> None:
    assert model_on("compat", asked) == model_on("rest", asked) == elsewhere
    if provider is None:
        kind = "dynamic route" if asked.startswith("dynamic/") else "model"
        with pytest.raises(RefusedRequestError, match=f"^The {kind} '.* Use the compat.* route: create_client"):
            model_on("provider", asked)
    else:
        assert model_on("provider", asked) == provider


TEMPLATES = {
    "model first, as openai 3 writes it": '{"model":%s,"messages":[]}',
    "model after messages, as openai 1 and 2 write it": (
        '{"messages":[{"role":"user","content":"the \\"model\\": \\"x\\", 你好"}],"model":%s}'
    ),
    "escapes without a UTF-8 form": '{"messages":[{"role":"user","content":"\\ud83d"}],"model":%s}',
    "inner members called model": (
        '{"messages":[{"model":"inner"}],"tools":[{"function":{"parameters":{"model":{"a":1}}}}], "model": %s }'
    ),
    "other white space": ' \n{ "stream" : true , "model" :\t%s , "temperature": 1.0, "n": 12345678901234567890}',
    "model as a value": '{"a":{"model":"inner"},"b":["model","x"],"model":%s,"z":"model"}',
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_rewritten_body_is_the_same_json_with_another_model(template: str) -> None:
    bare, prefixed = (
        template.replace("%s", json.dumps(name)).encode() for name in ("deepseek-flash", "deepseek/deepseek-flash")
    )
    assert json.loads(sent_body("compat", bare)) == json.loads(prefixed)
    assert json.loads(sent_body("provider", prefixed)) == json.loads(bare)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_body_with_the_right_model_for_the_route_stays_the_same_object(template: str) -> None:
    bare, prefixed = (
        template.replace("%s", json.dumps(name)).encode() for name in ("deepseek-flash", "deepseek/deepseek-flash")
    )
    assert sent_body("compat", prefixed) is prefixed
    assert sent_body("provider", bare) is bare


@pytest.mark.parametrize(
    "template",
    [
        '{"model":"%s","messages":["\\ud83d",1e400,"你好"]}',
        '{"model":"%s","messages":[{"model": "inner"}]}',
        '{"messages":["你好"],"model":"%s"}',
    ],
)
def test_rewritten_body_keeps_the_bytes_of_the_sdk_around_the_model(template: str) -> None:
    rewritten = sent_body("compat", template.replace("%s", "deepseek-flash").encode())
    assert rewritten == template.replace("%s", "deepseek/deepseek-flash").encode()


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
    b'{"messages": [{"model": "openai/inner"}]}',
    b'{"model" "deepseek-flash"}',
    b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b', "models": "deepseek-flash"}',
    b'{"messages": [}, "models": "deepseek-flash"}',
    b'{"messages": ["\xff"], "models": "deepseek-flash"}',
    b'{"messages": ["\xff"], "model": "deepseek/flash"}',
    b'{"n": NaN, "model": "deepseek/flash"}',
    '{"escape": "\\ud83d", "text": "你好", "messages": [}'.encode(),
    b'{"messages": [{"model": "deepseek-flash"}]}',
    b'{"messages": [{"a": 1, "model": "deepseek-flash"}], "n": 1}',
    b'[{"model": "deepseek-flash"}]',
    b'{"the \\"model": "deepseek-flash"}',
    b'{"messages": [{"role": "user", "content": "\\"model\\": \\"deepseek/flash\\"}"}]}',
]


@pytest.mark.parametrize("body", NO_MODEL, ids=range(len(NO_MODEL)))
def test_body_without_a_readable_model_stays_the_same_object(body: bytes) -> None:
    for route in ("provider", "compat", "rest"):
        assert sent_body(route, body) is body  # type: ignore[arg-type]


def test_model_name_that_is_no_utf8_keeps_its_bytes() -> None:
    assert sent_body("compat", b'{"model":"\xff"}') == b'{"model":"deepseek/\xff"}'


def test_model_name_without_a_utf8_form_is_escaped() -> None:
    assert sent_body("compat", b'{"model": "\\ud83d"}') == b'{"model":"deepseek/\\ud83d"}'


@pytest.mark.parametrize("body", [b'{"model":"openai/gpt-5"}', b'{"messages":[],"model":"dynamic/cheap"}'])
def test_model_that_provider_cannot_reach_is_refused_at_any_position_in_the_body(body: bytes) -> None:
    with pytest.raises(RefusedRequestError, match="cannot be reached on the provider route"):
        sent_body("provider", body)


CONFIG = GatewayConfig(endpoint="https://ai.example.com/v1/acct/gw", api_key="the-key", gateway_token="the-token")


def destination(config: GatewayConfig = CONFIG) -> Destination:
    return Destination(config, httpx.URL(config.base_url), {}, merge_pause=None)


def request(method: str = "POST", url: str = CONFIG.base_url, config: GatewayConfig = CONFIG, **parts: Any) -> Any:
    """Return the request that is sent in place of the SDK's request."""
    return Exchange(httpx.Request(method, url, **parts), destination(config), streamed=False).outgoing


@pytest.mark.parametrize(
    ("url", "covered"),
    [
        ("https://ai.example.com/v1/acct/gw/deepseek", True),
        ("https://ai.example.com/v1/acct/gw/deepseek?x=1", True),
        ("https://ai.example.com/v1/acct/gw/deepseek#x", True),
        ("https://ai.example.com/v1/acct/gw/deepseek/models?x=%2e%2e/y", True),
        ("https://ai.example.com/v1/acct/gw/deepseek/models?x=/%2e%2e/y", True),
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
        ("https://ai.example.com/v1/acct/gw/deepseek/..\\openai", False),
    ],
)
def test_credentials_go_only_to_urls_under_the_base_url(url: str, covered: bool) -> None:
    assert (destination().below(httpx.URL(url)) is not None) is covered
    sent = request("POST", url, headers={"Authorization": "Bearer the-key"}, json={"model": "deepseek-flash"}).headers
    assert ("the-key" in sent.get("authorization", "")) is ("cf-aig-authorization" in sent) is covered


@pytest.mark.parametrize(
    ("value", "arrives"), [("mine", True), ("the-key", False), ("the-token", False), (PLACEHOLDER, False)]
)
def test_another_host_gets_the_callers_own_credentials_and_no_configured_one(value: str, arrives: bool) -> None:
    headers = {"Authorization": f"Bearer {value}", "X-Copy": f"token {value}", "X-Other": "1"}
    sent = request("GET", "https://other.test/", headers=headers).headers
    assert [name in sent for name in ("authorization", "x-copy", "x-other")] == [arrives, arrives, True]


@pytest.mark.parametrize(
    ("url", "arrives"),
    [
        ("https://ai.example.com/elsewhere", True),
        ("https://ai.example.com:443/", True),
        ("https://ai.example.com:8443/", False),
        ("http://ai.example.com/", False),
        ("https://other.test/", False),
    ],
)
@pytest.mark.parametrize("name", ["cf-aig-metadata", "CF-AIG-Metadata"])
def test_gateway_option_outside_the_base_url_goes_only_to_the_same_origin(url: str, arrives: bool, name: str) -> None:
    assert (name in request("GET", url, headers={name: "{}"}).headers) is arrives


def test_host_of_the_environment_is_not_sent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Host: tracer.test\nX-Custom: tracer")
    given = {"Host": "tracer.test", "X-Custom": "tracer", "X-Mine": "1"}
    for url, host in (("https://other.test/", "other.test"), (CONFIG.base_url, "ai.example.com")):
        sent = request("GET", url, headers=given).headers
        assert (sent["host"], sent.get("x-custom"), sent["x-mine"]) == (host, None, "1")


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"model":"a","messages":[]}', "a"),
        (b'{"messages":[],"model":"a"}', "a"),
        (b'{"messages":[],"model":"\\u0061"}', "a"),
        (b'{"model":"\xff","messages":[]}', "\ufffd"),
        (b'{"model":5}', None),
        (b'{"messages":[]}', None),
        (b'["model"]', None),
        (b'{"model":', None),
        (b"", None),
    ],
    ids=["first", "last", "escaped", "no UTF-8", "number", "missing", "list", "cut", "empty"],
)
def test_model_of_a_request_is_read_from_its_body(body: bytes, model: str | None) -> None:
    assert model_named(httpx.Request("POST", CONFIG.base_url, content=body)) == model


def test_model_of_an_inner_member_is_named_even_if_the_route_does_not_lead_to_it() -> None:
    original = httpx.Request("POST", CONFIG.base_url, content=b'{"messages":[{"model":"openai/inner"}]}')
    assert model_sent(original, CONFIG) == "openai/inner"


@pytest.mark.parametrize("given", [f"Bearer {PLACEHOLDER}", "Bearer the-key", "Bearer another"])
def test_sdks_request_keeps_everything_except_its_credentials(given: str) -> None:
    original = httpx.Request("POST", CONFIG.base_url, headers={"Authorization": given}, json={"model": "deepseek/a"})
    url, body, names = original.url, original.content, [*original.headers]
    exchange = Exchange(original, destination(), streamed=False)
    assert exchange.request is original
    assert exchange.outgoing is not original
    assert (original.url, original.content, [*original.headers]) == (url, body, names)
    assert original.headers["authorization"] == "[redacted]"
    assert json.loads(exchange.outgoing.content) == {"model": "a"}
    assert exchange.outgoing.headers["content-length"] == str(len(exchange.outgoing.content))


def test_headers_of_one_request_do_not_show_up_in_the_next() -> None:
    where = destination()
    for name in ("X-First", "X-Second"):
        original = httpx.Request("POST", CONFIG.base_url, headers={"X-Mine": "1"}, json={})
        outgoing = Exchange(original, where, streamed=False).outgoing
        assert not [header for header in outgoing.headers if header in {"x-first", "x-second"}]
        outgoing.headers[name] = "from a hook"


def test_content_length_matches_each_of_several_bodies_with_equal_headers() -> None:
    where = destination()
    for body in (b"{}", b"{    }", b'{"model":"deepseek/deepseek-flash"}'):
        original = httpx.Request("POST", CONFIG.base_url, headers={"Content-Type": "application/json"}, content=body)
        outgoing = Exchange(original, where, streamed=False).outgoing
        assert outgoing.headers["content-length"] == str(len(outgoing.content))


def test_headers_are_prepared_once_for_bodies_of_any_length() -> None:
    where, headers = destination(), {"Authorization": "Bearer mine"}
    first, second = (
        where.headers(httpx.Request("POST", CONFIG.base_url, headers=headers, content=body), covered=True)
        for body in (b"{}", b"[0]")
    )
    assert first is second
    assert first.credentials == ("Authorization",)


@pytest.mark.parametrize("size", [1, 2_000_000], ids=["small", "large"])
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_body_in_memory_is_sent_in_pieces_if_it_is_large_and_can_be_read_by_an_event_hook(size: int, kind: str) -> None:
    body = b'{"model":"deepseek/a","text":"%s"}' % (b"x" * size)
    sent = request(headers={"Content-Type": kind}, content=body)
    assert isinstance(sent.stream, Pieces) is (size > 1)
    assert sent.content == (body.replace(b"deepseek/", b"") if kind == "application/json" else body)


def test_event_hook_cannot_read_an_upload_that_streams() -> None:
    with pytest.raises(httpx.RequestNotRead):
        assert request(content=iter([b"x"])).content


def test_request_without_a_body_gets_no_content_length() -> None:
    assert "content-length" not in request("GET").headers


def test_headers_to_gateway_gives_equal_headers_for_equal_arguments() -> None:
    given = ((b"Authorization", b"Bearer the-key"), (b"X-Stainless-OS", b"Linux"))
    arguments = CONFIG, given, frozenset[tuple[bytes, bytes]](), b"ai.example.com"
    assert headers_to_gateway(*arguments) == headers_to_gateway(*arguments) == (
        (b"cf-aig-authorization", b"Bearer the-token"),
        (b"Authorization", b"Bearer the-key"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ((b"User-Agent", b"OpenAI/Python 3.0"), (b"User-Agent", user_agent())),
        ((b"user-agent", b"AsyncOpenAI/Python 3.0"), (b"user-agent", user_agent())),
        ((b"User-Agent", b"my program"), (b"User-Agent", b"my program")),
        ((b"X-Agent", b"OpenAI/Python 3.0"), (b"X-Agent", b"OpenAI/Python 3.0")),
        ((b"X-Stainless-OS", b"Linux"), None),
        ((b"X-Stainless-Other", b"1"), (b"X-Stainless-Other", b"1")),
        ((b"OpenAI-Organization", b"org"), None),
        ((b"Authorization", f"Bearer {PLACEHOLDER}".encode()), None),
        ((b"Authorization", b"Bearer mine"), (b"Authorization", b"Bearer mine")),
    ],
)
def test_header_of_the_sdk_is_replaced_or_left_out(given: Any, sent: Any) -> None:
    config = GatewayConfig(endpoint="https://ai.example.com", api_key="the-key")
    assert headers_to_gateway(config, (given,), frozenset(), b"") == ((sent,) if sent else ())


def test_last_of_several_gateway_headers_in_different_case_is_sent() -> None:
    config = GatewayConfig(endpoint="https://ai.example.com", gateway_token="the-token")
    given = ((b"cf-aig-step", b"1"), (b"CF-AIG-Step", b"2"), (b"CF-AIG-Authorization", b"Bearer mine"))
    assert headers_to_gateway(config, given, frozenset(), b"") == given[2:] + given[1:2]


@pytest.mark.parametrize(
    ("settings", "headers", "expected"),
    [
        ({}, {}, (False, False, False, 1)),
        ({}, {"Authorization": "Bearer x"}, (True, False, False, 1)),
        ({}, {"Authorization": "Bearer x", "cf-aig-authorization": "Bearer y"}, (True, True, False, 1)),
        ({"api_key": None}, {"cf-aig-authorization": "Bearer y"}, (False, True, True, 1)),
        ({"route": "compat"}, {"cf-aig-max-attempts": "5"}, (False, False, False, 5)),
        ({"route": "compat"}, {"cf-aig-max-attempts": "many"}, (False, False, False, 1)),
        ({"route": "rest"}, {"Authorization": "Bearer y"}, (True, True, True, 1)),
        ({"route": "rest", "api_key": None}, {"Authorization": "Bearer y"}, (True, True, True, 1)),
    ],
)
def test_request_facts_say_what_was_sent_on_each_route(
    settings: dict[str, Any], headers: dict[str, str], expected: tuple[bool, bool, bool, int]
) -> None:
    config = GatewayConfig(**({"account_id": "acct", "api_key": "the-key", "gateway_token": "the-token"} | settings))
    facts = request_facts(httpx.Request("POST", config.base_url, headers=headers, json={"model": "a"}), config, "a")
    assert (facts.authorization, facts.gateway_token, facts.key_is_stored, facts.max_attempts) == expected
    assert (facts.method, facts.route, facts.model) == ("POST", config.route, "a")
    assert facts.path == httpx.URL(config.base_url).path
    assert not [secret for secret in facts.secrets if not secret or " " in secret]
    assert {value.removeprefix("Bearer ") for name, value in headers.items() if "uth" in name} < {*facts.secrets}
    assert "the-" not in repr(facts)
    assert facts.hide("the-token, twice: the-token") == "[redacted], twice: [redacted]"


@pytest.mark.parametrize(
    ("route", "model", "to_deepseek"),
    [
        ("provider", "a", True),
        ("provider", None, True),
        ("compat", None, True),
        ("compat", "deepseek/a", True),
        ("compat", "openai/a", False),
        ("rest", "dynamic/a", False),
    ],
)
def test_request_without_a_model_or_with_deepseeks_is_to_deepseek(route: Any, model: Any, to_deepseek: bool) -> None:
    config = GatewayConfig(account_id="acct", gateway_token="the-token", route=route)
    assert request_facts(httpx.Request("POST", config.base_url), config, model).to_deepseek is to_deepseek


def test_ambient_headers_match_what_the_sdk_reads_from_the_environment() -> None:
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


@pytest.mark.parametrize(
    "made", [destination(), Exchange(httpx.Request("GET", CONFIG.base_url), destination(), streamed=False)]
)
def test_repr_shows_no_secret(made: object) -> None:
    assert "the-" not in repr(made)


PROMPT = b'"messages":[{"role":"user","content":"%s"}]' % (b"x" * 1_000_000)


# openai 3 writes the model first, older versions last.
@pytest.mark.parametrize(
    ("route", "body", "copies"),
    [
        ("provider", b'{"model":"deepseek-flash",%s}' % PROMPT, 0),
        ("provider", b'{%s,"model":"deepseek-flash"}' % PROMPT, 0),
        ("compat", b'{"model":"deepseek-flash",%s}' % PROMPT, 1),
        ("compat", b'{%s,"model":"deepseek/deepseek-flash"}' % PROMPT, 0),
    ],
    ids=["provider, model first", "provider, model last", "compat, model first", "compat, full name last"],
)
def test_megabyte_prompt_is_not_parsed_and_is_copied_at_most_once(
    monkeypatch: pytest.MonkeyPatch, route: str, body: bytes, copies: int
) -> None:
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("the body was parsed"))
    tracemalloc.start()
    try:
        sent = sent_body(route, body)  # type: ignore[arg-type]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (sent is not body) == bool(copies)
    assert peak < (copies + 0.1) * len(body)
