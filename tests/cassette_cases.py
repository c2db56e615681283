"""How to make each recorded exchange, and assertions on its result. The assertions hold for the live service too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest

from deepseek_gateway import GatewayConfig

if TYPE_CHECKING:
    from collections.abc import Callable

CASSETTES = Path(__file__).parents[1] / "cassettes"
QUESTION = [{"role": "user", "content": "What is Cloudflare? Answer in one sentence."}]
IN_JSON = [{"role": "user", "content": 'What is Cloudflare? Answer as a JSON object with the key "answer".'}]
REPLAYED = GatewayConfig(account_id="0" * 32, gateway_id="any-gateway", api_key="any-key", gateway_token="any-token")


def chat(client: Any, **extra: Any) -> Any:
    return client.chat.completions.create(**{"model": "deepseek-flash", "messages": QUESTION, **extra})


def answers(completion: Any) -> None:
    (choice,) = completion.choices
    assert (choice.finish_reason, choice.message.role) == ("stop", "assistant")
    assert choice.message.content.strip()
    assert choice.message.reasoning_content.strip(), "thinking is on by default"
    assert completion.model.startswith("deepseek")
    usage = completion.usage
    assert usage.prompt_tokens + usage.completion_tokens == usage.total_tokens
    assert usage.prompt_cache_hit_tokens + usage.prompt_cache_miss_tokens == usage.prompt_tokens


def streams(chunks: list[Any]) -> None:
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas).strip()
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas).strip()
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def streams_in_one_piece(chunks: list[Any]) -> None:
    """With guardrails, the gateway answers a streamed call with one JSON body."""
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert [delta.content for delta in deltas if delta.content]
    assert [delta for delta in deltas if getattr(delta, "reasoning_content", None)]
    assert (chunks[-1].choices[0].finish_reason, bool(chunks[-1].usage)) == ("stop", True)


def answers_in_json(completion: Any) -> None:
    assert isinstance(json.loads(completion.choices[0].message.content), dict)


def lists_models(page: Any) -> None:
    assert [model.id for model in page.data if model.id.startswith("deepseek")]
    assert {model.object for model in page.data} == {"model"}


def responds(response: Any) -> None:
    assert (response.object, response.status) == ("response", "completed")
    assert response.output_text.strip()


def gateway_refuses(status: int, code: str | None) -> Callable[[Any], None]:
    def check(error: Any) -> None:
        assert (error.status_code, error.type, error.code) == (status, "ai_gateway_error", code)
        assert f"{status} from AI Gateway, not from DeepSeek: " in str(error)

    return check


def raises(kind: type[openai.APIError], code: str | None, text: str) -> Callable[[Any], None]:
    def check(error: Any) -> None:
        assert (type(error), error.code) == (kind, code)
        assert text in str(error)

    return check


def deepseek_refuses(status: int, kind: str, text: str) -> Callable[[Any], None]:
    def check(error: Any) -> None:
        assert (error.status_code, error.type, error.code) == (status, kind, "invalid_request_error")
        assert re.search(text, error.body["message"])

    return check


def case(name: str, route: str, use: Any, check: Any, *, provoked: Any = None, **settings: Any) -> Any:
    """Describe one cassette. `provoked` makes the emulator do what a live service does not do on demand."""
    marks = pytest.mark.default_cassette(f"{name}.yaml")
    return pytest.param(route, settings, use, check, provoked, id=name, marks=marks)


def stream(client: Any) -> Any:
    return chat(client, stream=True)


CASES = [
    case("chat-provider", "provider", chat, answers),
    case("chat-compat", "compat", chat, answers),
    case("chat-rest", "rest", chat, answers),
    case("stream-provider", "provider", stream, streams),
    case("stream-compat", "compat", stream, streams),
    case("stored-key", "provider", chat, answers, api_key=None),
    case(
        "json-mode",
        "provider",
        lambda client: chat(client, messages=IN_JSON, response_format={"type": "json_object"}),
        answers_in_json,
    ),
    case("models", "provider", lambda client: client.models.list(), lists_models),
    case(
        "responses",
        "provider",
        lambda client: client.responses.create(model="deepseek-flash", input="What is Cloudflare?"),
        responds,
    ),
    case("gateway-401-2009", "provider", chat, gateway_refuses(401, "2009"), gateway_token="wrong-token"),
    case("gateway-400-2001", "provider", chat, gateway_refuses(400, "2001"), gateway_id="no-such-gateway"),
    case(
        "deepseek-401",
        "provider",
        chat,
        deepseek_refuses(401, "authentication_error", r"Your api key: \*\*\*\*\S+ is invalid"),
        api_key="wrong-key",
    ),
    case("rest-401-10000", "rest", chat, gateway_refuses(401, "10000"), gateway_token="wrong-token"),
    case(
        "deepseek-402",
        "provider",
        chat,
        deepseek_refuses(402, "unknown_error", "Insufficient Balance"),
        provoked={"status": 402},
    ),
    case("gateway-429-2003", "provider", chat, gateway_refuses(429, "2003"), provoked={"code": 2003}),
    case("gateway-400-2005", "compat", chat, gateway_refuses(400, "2005"), provoked={"code": 2005}),
    case("gateway-424-2016", "provider", chat, gateway_refuses(424, "2016"), provoked={"code": 2016}),
    case("gateway-429-2045", "provider", chat, gateway_refuses(429, "2045"), provoked={"code": 2045}),
    case("policy-403", "provider", chat, gateway_refuses(403, None), provoked={"shape": "policy"}),
    case(
        "edge-502",
        "provider",
        chat,
        raises(openai.InternalServerError, "502", "502 from Cloudflare's edge, before AI Gateway answered"),
        provoked={"status": 502},
    ),
    case(
        "edge-1010",
        "provider",
        chat,
        raises(openai.PermissionDeniedError, "1010", "403 from Cloudflare's edge, before AI Gateway answered"),
        provoked={"status": 403},
    ),
    case(
        "plain-text-401",
        "provider",
        chat,
        raises(openai.AuthenticationError, None, "401 from DeepSeek: Authentication Fails (governor)"),
        provoked={"shape": "text"},
    ),
    case("error-in-200", "provider", chat, gateway_refuses(400, "2005"), provoked={"code": 2005, "status": 200}),
    case(
        "stream-error",
        "provider",
        stream,
        raises(openai.APIError, "2005", "400 from AI Gateway, not from DeepSeek"),
        provoked={"code": 2005, "event": 0},
    ),
    case(
        "stream-cut",
        "provider",
        stream,
        raises(openai.APIConnectionError, None, "The stream ended before [DONE], after 1,500 bytes"),
        provoked={"cut_after": 1500, "clean": True},
    ),
    case("stream-buffered", "provider", stream, streams_in_one_piece, provoked={"guardrails": ()}),
]
cases = pytest.mark.parametrize(("route", "settings", "use", "check", "provoked"), CASES)
