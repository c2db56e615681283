"""Routes: URLs, authentication, the key that is forwarded, and the model name."""

import re
from typing import Any

import pytest
from emulated import ACCOUNT, AI, BOTH, COMPAT, HOST, KEY, PROVIDER, REST, TOKEN, ask, send

from deepseek_gateway.emulator import Emulator


@pytest.mark.parametrize(
    ("path", "headers", "model", "upstream_path"),
    [
        pytest.param(PROVIDER, BOTH, "deepseek-flash", "/chat/completions", id="provider"),
        pytest.param("/deepseek/chat/completions", BOTH, "deepseek-flash", "/chat/completions", id="provider, domain"),
        pytest.param(
            f"{HOST}/deepseek/v1/chat/completions", BOTH, "deepseek-flash", "/v1/chat/completions", id="provider, v1"
        ),
        pytest.param(
            f"{HOST}/deepseek/beta/chat/completions",
            BOTH,
            "deepseek-flash",
            "/beta/chat/completions",
            id="provider, beta",
        ),
        pytest.param(COMPAT, BOTH, "deepseek/deepseek-flash", "/chat/completions", id="compat"),
        pytest.param(
            "/compat/chat/completions", BOTH, "deepseek/deepseek-flash", "/chat/completions", id="compat, domain"
        ),
        pytest.param(f"{AI}/chat/completions", REST, "deepseek/deepseek-flash", "/chat/completions", id="rest"),
        pytest.param(
            PROVIDER.replace("emulator-gateway", "default"),
            BOTH,
            "deepseek-flash",
            "/chat/completions",
            id="gateway named default",
        ),
        pytest.param(PROVIDER, TOKEN, "deepseek-flash", "/chat/completions", id="provider, stored key"),
        pytest.param(COMPAT, TOKEN, "deepseek/deepseek-flash", "/chat/completions", id="compat, stored key"),
    ],
)
def test_every_route_forwards_the_bare_model_and_only_the_deepseek_key(
    path: str, headers: dict[str, str], model: str, upstream_path: str
) -> None:
    more = {"cf-aig-metadata": "{}", "cf-access-jwt-assertion": "x", "cf-skip-cache": "true", "user-agent": "me"}
    with Emulator() as emulator:
        answer = send(emulator, path, headers | more, ask(model))
        (received,) = emulator.requests
    assert answer.status == 200
    assert answer.json["model"] == "deepseek-flash"
    assert (received.method, received.path, received.json["model"]) == ("POST", path, model)
    assert "cf-aig-metadata" in received.headers
    assert received.upstream is not None
    assert (received.upstream.method, received.upstream.path) == ("POST", upstream_path)
    assert received.upstream.json == ask()
    assert dict(received.upstream.headers) == {
        "host": "api.deepseek.com",
        "accept-encoding": "identity",
        "user-agent": "me",
        "authorization": "Bearer emulator-deepseek-key",
        "content-length": str(len(received.upstream.body)),
    }


def test_provider_route_forwards_bodies_byte_for_byte(emulator: Emulator) -> None:
    body = b'{ "model":"deepseek-flash",\n "messages":[{"role":"user","content":"\\u4e91 \xe4\xba\x91"}], "x":1e2 }'
    assert send(emulator, PROVIDER, BOTH, body).status == 200
    upstream = emulator.requests[-1].upstream
    assert upstream is not None
    assert upstream.body == emulator.requests[-1].body == body


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "code", "message"),
    [
        (PROVIDER, KEY, ask(), 401, 2009, "Unauthorized"),
        (PROVIDER, KEY | {"cf-aig-authorization": "Bearer no"}, ask(), 401, 2009, "Unauthorized"),
        (PROVIDER, KEY | {"cf-aig-authorization": "emulator-gateway-token"}, ask(), 401, 2009, "Unauthorized"),
        (PROVIDER.replace("emulator-gateway", "default"), KEY, ask(), 401, 2009, "Unauthorized"),
        (
            "/v1/f00/emulator-gateway/deepseek/chat/completions",
            BOTH,
            ask(),
            400,
            2001,
            "Please configure AI Gateway in",
        ),
        (f"/v1/{ACCOUNT}/other/deepseek/chat/completions", BOTH, ask(), 400, 2001, "Please configure AI Gateway in"),
        (f"{HOST}/chat/completions", BOTH, ask(), 400, 2008, "Invalid provider"),
        (HOST, BOTH, ask(), 400, 2008, "Invalid provider"),
        ("/", BOTH, None, 400, 2008, "Invalid provider"),
        (COMPAT, BOTH, ask("nobody/flash"), 400, 2008, "Invalid provider"),
        (COMPAT, BOTH, ask("openai/gpt-5"), 400, 2005, "Failed to get response from provider"),
        (COMPAT, TOKEN, ask("workers-ai/@cf/meta/llama"), 400, 2005, "Failed to get response from provider"),
        (COMPAT, BOTH, ask("google-ai-studio/gemini"), 400, 2005, "Failed to get response from provider"),
        (f"{HOST}/openai/chat/completions", BOTH, ask(), 400, 2005, "Failed to get response from provider"),
        (f"{HOST}/openai/chat/completions", KEY, ask(), 401, 2009, "Unauthorized"),
        (f"{HOST}/google/chat/completions", BOTH, ask(), 400, 2008, "Invalid provider"),
        (COMPAT, BOTH, ask("deepseek-flash"), 400, 2019, "Chat completion bad format"),
        (COMPAT, BOTH, b"not json", 400, 2019, "Chat completion bad format"),
        (COMPAT, BOTH, {"messages": []}, 400, 2019, "Chat completion bad format"),
        (
            COMPAT + "/chat/completions",
            BOTH,
            ask(),
            400,
            2019,
            "Compatibility endpoint: chat/completions/chat/completi",
        ),
        (f"{HOST}/compat/responses", BOTH, ask(), 400, 2019, "Compatibility endpoint: responses is not supported."),
        (COMPAT, TOKEN, ask("dynamic/nowhere"), 400, 2005, "Failed to get response from provider"),
        (
            PROVIDER,
            TOKEN | {"cf-aig-byok-alias": "team"},
            ask(),
            400,
            2040,
            "Provider 'deepseek' has no BYOK credential",
        ),
    ],
)
def test_gateway_refuses_bad_requests_in_its_own_envelope_without_asking_deepseek(
    emulator: Emulator, path: str, headers: dict[str, str], body: Any, status: int, code: int, message: str
) -> None:
    answer = send(emulator, path, headers, body)
    text = answer.json["message"]
    assert text.startswith(message)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    assert list(answer.json.items()) == [
        ("success", False),
        ("result", []),
        ("messages", []),
        ("error", [{"code": code, "message": text}]),
        ("name", "AiGatewayError"),
        ("httpCode", status),
        ("internalCode", code),
        ("message", text),
        ("description", text),
    ]
    assert emulator.requests[-1].upstream is None
    assert ("cf-aig-log-id" in answer.headers) == (code not in {2001, 2009})
    assert re.fullmatch(r"[0-9a-f]{16}-[A-Z]{3}", answer.headers["cf-ray"])


def test_unknown_alias_error_lists_all_aliases() -> None:
    with Emulator(stored_keys={"default": "a-key", "team": "b-key"}) as emulator:
        answer = send(emulator, PROVIDER, TOKEN | {"cf-aig-byok-alias": "x"}, ask())
    expected = "Provider 'deepseek' has no BYOK credential named 'x'. Configured aliases: 'default', 'team'"
    assert answer.json["message"] == expected


@pytest.mark.parametrize(
    ("path", "headers", "model", "key"),
    [
        (PROVIDER, TOKEN, "deepseek-flash", "a-key"),
        (PROVIDER, TOKEN | {"cf-aig-byok-alias": "default"}, "deepseek-flash", "a-key"),
        (PROVIDER, TOKEN | {"cf-aig-byok-alias": "team"}, "deepseek-flash", "b-key"),
        (COMPAT, TOKEN, "deepseek/deepseek-flash", "a-key"),
        (COMPAT, TOKEN | {"cf-aig-byok-alias": "team"}, "deepseek/deepseek-flash", "a-key"),
        (COMPAT, TOKEN | {"cf-aig-byok-alias": "missing"}, "dynamic/support", "a-key"),
        (f"{AI}/chat/completions", REST | {"cf-aig-byok-alias": "team"}, "deepseek/deepseek-flash", "a-key"),
    ],
)
def test_alias_selects_a_stored_key_only_on_the_provider_route(
    path: str, headers: dict[str, str], model: str, key: str
) -> None:
    with Emulator(stored_keys={"default": "a-key", "team": "b-key"}) as emulator:
        assert send(emulator, path, headers, ask(model)).status == 200
        upstream = emulator.requests[0].upstream
    assert upstream is not None
    assert upstream.headers["authorization"] == f"Bearer {key}"


@pytest.mark.parametrize(
    ("authorization", "message"),
    [
        ("Bearer placeholder", "Authentication Fails, Your api key: ****lder is invalid"),
        ("Bearer emulator-gateway-token", "Authentication Fails, Your api key: ****oken is invalid"),
        ("Bearer x", "Authentication Fails, Your api key: x is invalid"),
        ("Bearer ", "Authentication Fails (governor)"),
        ("", "Authentication Fails (governor)"),
    ],
)
@pytest.mark.parametrize(("path", "model"), [(PROVIDER, "deepseek-flash"), (COMPAT, "deepseek/deepseek-flash")])
def test_any_authorization_header_is_forwarded_in_place_of_the_stored_key(
    emulator: Emulator, path: str, model: str, authorization: str, message: str
) -> None:
    answer = send(emulator, path, TOKEN | {"authorization": authorization}, ask(model))
    upstream = emulator.requests[-1].upstream
    assert upstream is not None
    assert upstream.headers["authorization"] == authorization.strip()
    assert answer.status == 401
    assert message in answer.body.decode()


@pytest.mark.parametrize(
    ("path", "model"),
    [(PROVIDER, "deepseek-flash"), (COMPAT, "deepseek/deepseek-flash"), (COMPAT, "dynamic/support")],
)
def test_gateway_token_alone_in_authorization_is_accepted_and_not_forwarded(path: str, model: str) -> None:
    alone = {"authorization": "Bearer emulator-gateway-token"}
    with Emulator(stored_keys={"default": "a-key", "team": "b-key"}) as emulator:
        assert send(emulator, path, alone, ask(model)).status == 200
        upstream = emulator.requests[0].upstream
        assert upstream is not None
        assert upstream.headers["authorization"] == "Bearer a-key"
        assert emulator.requests[0].headers["authorization"] == alone["authorization"]
        refused = send(emulator, path, alone | {"cf-aig-authorization": "Bearer no"}, ask(model))
        assert refused.json["internalCode"] == 2009
        if path == PROVIDER:
            assert send(emulator, path, alone | {"cf-aig-byok-alias": "team"}, ask(model)).status == 200
            assert emulator.requests[-1].upstream is not None
            assert emulator.requests[-1].upstream.headers["authorization"] == "Bearer b-key"


@pytest.mark.parametrize(
    "options", [{"stored_keys": {}}, {"authenticated": False}], ids=["nothing stored", "authentication off"]
)
def test_request_without_any_key_is_refused_by_deepseek_in_plain_text(options: dict[str, Any]) -> None:
    with Emulator(**options) as emulator:
        answer = send(emulator, PROVIDER, TOKEN, ask())
        upstream = emulator.requests[0].upstream
        forbidden = send(emulator, PROVIDER, TOKEN | {"cf-aig-no-wholesale": "true"}, ask())
        assert emulator.requests[1].upstream is None
    assert (answer.status, answer.body) == (401, b"Authentication Fails (governor)")
    assert "content-type" not in answer.headers
    assert upstream is not None
    assert "authorization" not in upstream.headers
    assert forbidden.status == 400


def test_gateway_without_authentication_ignores_the_token() -> None:
    with Emulator(authenticated=False) as emulator:
        for headers in (KEY, BOTH, KEY | {"cf-aig-authorization": "Bearer no"}):
            assert send(emulator, PROVIDER, headers, ask()).status == 200
            assert send(emulator, COMPAT, headers, ask("deepseek/deepseek-flash")).status == 200


def test_prefixed_model_on_provider_route_is_refused_by_deepseek(emulator: Emulator) -> None:
    answer = send(emulator, PROVIDER, BOTH, ask("deepseek/deepseek-flash"))
    text = "The supported API model names are deepseek-flash, deepseek-v4-pro, but you passed deepseek/deepseek-flash."
    assert (answer.status, answer.headers["content-type"]) == (400, "application/octet-stream")
    assert answer.json["error"]["message"] == text


def test_dynamic_route_response_names_the_model_that_answered() -> None:
    with Emulator(dynamic_routes={"cheap": "deepseek-v4-pro"}) as emulator:
        answer = send(emulator, COMPAT, TOKEN, ask("dynamic/cheap"))
        assert send(emulator, PROVIDER, TOKEN, ask("dynamic/cheap")).json["error"]["message"].endswith("dynamic/cheap.")
    assert answer.json["model"] == "deepseek-v4-pro"
    assert (answer.headers["cf-aig-model"], answer.headers["cf-aig-provider"]) == ("deepseek-v4-pro", "deepseek")


@pytest.mark.parametrize("options", [{"authenticated": False}, {"stored_keys": {}}])
def test_dynamic_route_without_authentication_or_stored_key_is_refused(options: dict[str, Any]) -> None:
    with Emulator(**options) as emulator:
        assert send(emulator, COMPAT, TOKEN, ask("dynamic/support")).json["internalCode"] == 2005


def test_compat_models_are_prefixed_and_require_credentials(emulator: Emulator) -> None:
    models = send(emulator, f"{HOST}/compat/models", TOKEN).json["data"]
    assert [model["id"] for model in models] == ["deepseek/deepseek-flash", "deepseek/deepseek-v4-pro"]
    assert send(emulator, f"{HOST}/compat/models", {}).status == 401
    with Emulator(authenticated=False) as open_gateway:
        assert send(open_gateway, f"{HOST}/compat/models", {}).status == 401
        assert send(open_gateway, f"{HOST}/compat/models", KEY).status == 200


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "code", "message"),
    [
        ("/chat/completions", {}, ask("deepseek/deepseek-flash"), 401, 10000, "Authentication error"),
        ("/chat/completions", KEY, ask("deepseek/deepseek-flash"), 401, 10000, "Authentication error"),
        ("/chat/completions", TOKEN, ask("deepseek/deepseek-flash"), 401, 10000, "Authentication error"),
        ("/models", REST, None, 405, 7001, "GET not supported for requested URI."),
        ("/chat/completions", REST, None, 405, 7001, "GET not supported for requested URI."),
        ("/embeddings", REST, {}, 404, 7000, "No route for that URI"),
        ("/chat/completions", REST, ask("deepseek-flash"), 404, 7003, "Model not found: deepseek-flash"),
        ("/chat/completions", REST, ask("deepseek/nothing"), 404, 7003, "Model not found: deepseek/nothing"),
        ("/chat/completions", REST, ask("dynamic/support"), 404, 7003, "Model not found: dynamic/support"),
        (
            "/chat/completions",
            REST | {"cf-aig-gateway-id": "other"},
            ask("deepseek/deepseek-flash"),
            400,
            2001,
            "Please configure AI Gateway in the Cloudflare dashboard",
        ),
    ],
)
def test_rest_api_refuses_bad_requests_with_an_errors_list(
    emulator: Emulator, path: str, headers: dict[str, str], body: Any, status: int, code: int, message: str
) -> None:
    answer = send(emulator, AI + path, headers, body)
    assert answer.status == status
    assert list(answer.json.items()) == [
        ("success", False),
        ("errors", [{"code": code, "message": message}]),
        ("messages", []),
        ("result", None),
    ]
    assert emulator.requests[-1].upstream is None


def test_rest_api_uses_only_the_stored_key_named_default() -> None:
    named = {"cf-aig-gateway-id": "emulator-gateway", "cf-aig-byok-alias": "team"}
    with Emulator(stored_keys={"team": "b-key"}) as emulator:
        answer = send(emulator, f"{AI}/responses", REST | named, {"model": "deepseek/deepseek-flash", "input": "x"})
    assert (answer.status, answer.json["errors"][0]["code"]) == (402, 2021)
