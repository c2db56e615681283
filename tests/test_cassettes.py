"""Recorded exchanges of each kind, replayed through both flavours; what is asserted must hold for the real service.

How to record them anew, from the emulator or from the live service, stands in cassettes/README.md.
"""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest
from conftest import LAUNCH_ENVIRONMENT, run

from deepseek_gateway import GatewayConfig
from deepseek_gateway.testing import vcr_config as redacting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vcr.cassette import Cassette

CASSETTES = Path(__file__).parent.parent / "cassettes"
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


def answers_in_json(completion: Any) -> None:
    assert isinstance(json.loads(completion.choices[0].message.content), dict)


def lists_models(page: Any) -> None:
    assert [model.id for model in page.data if model.id.startswith("deepseek")]
    assert {model.object for model in page.data} == {"model"}


def responds(response: Any) -> None:
    assert (response.object, response.status) == ("response", "completed")
    assert response.output_text.strip()


def gateway_refuses(status: int, code: str) -> Callable[[Any], None]:
    def check(error: Any) -> None:
        assert (error.status_code, error.type, error.code) == (status, "ai_gateway_error", code)
        assert f"{status} from AI Gateway, not from DeepSeek: " in str(error)

    return check


def deepseek_refuses(status: int, kind: str, text: str) -> Callable[[Any], None]:
    def check(error: Any) -> None:
        assert (error.status_code, error.type, error.code) == (status, kind, "invalid_request_error")
        assert re.search(text, error.body["message"])

    return check


def case(name: str, route: str, use: Any, check: Any, **settings: Any) -> Any:
    return pytest.param(route, settings, use, check, id=name, marks=pytest.mark.default_cassette(f"{name}.yaml"))


CASES = [
    case("chat-provider", "provider", chat, answers),
    case("chat-compat", "compat", chat, answers),
    case("chat-rest", "rest", chat, answers),
    case("stream-provider", "provider", lambda client: chat(client, stream=True), streams),
    case("stream-compat", "compat", lambda client: chat(client, stream=True), streams),
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
    case("deepseek-402", "provider", chat, deepseek_refuses(402, "unknown_error", "Insufficient Balance")),
]
cases = pytest.mark.parametrize(("route", "settings", "use", "check"), CASES)


@pytest.fixture(scope="module")
def vcr_cassette_dir() -> str:
    return str(CASSETTES)


@pytest.fixture(scope="module")
def source(pytestconfig: pytest.Config) -> str:
    recording = pytestconfig.getoption("--record-mode") not in {None, "none"}
    return pytestconfig.getoption("--record-from") if recording else "cassette"


@pytest.fixture
def config(
    source: str, route: Any, settings: dict[str, Any], request: pytest.FixtureRequest
) -> Iterator[GatewayConfig]:
    """Reach what is recorded from: nothing for a replay, else the emulator or what the environment tells."""
    runs_dry = "deepseek-402" in request.node.name
    if source == "cassette":
        yield replace(REPLAYED, route=route, **settings)
    elif source == "live":
        if runs_dry:
            pytest.skip("an empty balance cannot be had on demand; this cassette stays the emulator's")
        yield replace(GatewayConfig.from_env(LAUNCH_ENVIRONMENT), route=route, **settings)
    else:
        with importlib.import_module("deepseek_gateway.emulator").Emulator() as emulator:
            if runs_dry:
                emulator.fail_next(status=402)
            yield emulator.config(route=route, **settings)


@pytest.fixture
def vcr_config(source: str, config: GatewayConfig) -> dict[str, Any]:
    return redacting(config, source="emulator" if source == "emulator" else None)


@pytest.mark.vcr
@pytest.mark.parametrize("flavour", ["sync", "httpx"])
@cases
def test_an_exchange_holds_what_the_service_promises(
    config: GatewayConfig, use: Any, check: Callable[[Any], None], flavour: str, vcr: Cassette, source: str
) -> None:
    try:
        result = run(flavour, config, use, max_retries=0)
    except openai.APIStatusError as error:
        result = error
    check(result)
    assert vcr.play_count == (1 if source == "cassette" else 0), "the cassette was not played to its end"
    assert len(vcr) == 1
