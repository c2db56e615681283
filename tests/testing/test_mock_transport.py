"""A client takes a mock transport of the HTTP library, and vcrpy records and replays it without pytest-recording."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import openai
import vcr
from calling import chat, run
from mocked import URL, check_mocked_calls, flavours

from deepseek_gateway import GatewayConfig
from deepseek_gateway.emulator import Emulator
from deepseek_gateway.testing import leaks, vcr_config

if TYPE_CHECKING:
    from pathlib import Path

httpx: Any = import_module(openai.DefaultHttpxClient.__base__.__module__.partition(".")[0])  # type: ignore[union-attr]


@flavours
def test_mock_transport_answers_calls_and_streams(flavour: str) -> None:
    responses: list[Any] = []
    requests: list[Any] = []

    def handler(request: Any) -> Any:
        requests.append(request)
        return responses.pop()

    def respond(status: int, **response: Any) -> None:
        responses.append(httpx.Response(status, **response))

    check_mocked_calls(flavour, respond, http_options={"transport": httpx.MockTransport(handler)})
    assert {str(request.url) for request in requests} == {URL}
    assert {request.headers["authorization"] for request in requests} == {"Bearer mocked-key"}


@flavours
def test_cassette_of_plain_vcrpy_is_replayed_with_other_settings(flavour: str, tmp_path: Path) -> None:
    cassette = tmp_path / "chat.yaml"
    with Emulator() as emulator:
        config = emulator.config()
        with vcr.use_cassette(str(cassette), **vcr_config(config)):
            recorded = run(flavour, config, chat)
    assert leaks(cassette.read_text("utf-8"), config) == []
    other = GatewayConfig(account_id="another", api_key="another-key")
    with vcr.use_cassette(str(cassette), record_mode="none", **vcr_config(other)) as played:
        assert run(flavour, other, chat) == recorded
    assert played.all_played
