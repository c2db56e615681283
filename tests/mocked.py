"""What a mocked gateway answers, and what a client must make of it, whichever tool mocks the HTTP library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest
from answers import DONE, event, long_form
from calling import chat, run, streamed

from deepseek_gateway import GatewayConfig

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = GatewayConfig(account_id="acct", api_key="mocked-key")
URL = "https://gateway.ai.cloudflare.com/v1/acct/default/deepseek/chat/completions"
CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}
COMPLETION = {"id": "1", "object": "chat.completion", "created": 1, "model": "deepseek-flash", "choices": [CHOICE]}
STREAM = {"content": event("Hello") + DONE, "headers": {"content-type": "text/event-stream"}}

flavours = pytest.mark.parametrize("flavour", ["sync", "httpx"])


def check_mocked_calls(flavour: str, respond: Callable[..., None], **options: Any) -> None:
    """Make a call, a call that is refused, and a stream. `respond(status, **response)` prepares the next response."""
    respond(200, json=COMPLETION)
    answer = run(flavour, CONFIG, chat, **options)
    assert answer.choices[0].message.content == "Hello"

    respond(401, json=long_form(401, 2009, "Unauthorized"))
    with pytest.raises(openai.AuthenticationError, match="401 from AI Gateway, not from DeepSeek") as caught:
        run(flavour, CONFIG, chat, **options)
    assert caught.value.code == "2009"

    respond(200, **STREAM)
    (chunk,) = run(flavour, CONFIG, streamed, **options)
    assert chunk.choices[0].delta.content == "Hello"
