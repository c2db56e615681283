"""A running forwarder, requests to it, and its log."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import openai
import pytest
from calling import MESSAGES

from deepseek_gateway.cli.forwarder import Line, forwarding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deepseek_gateway import GatewayConfig

BODY = json.dumps({"model": "deepseek-flash", "messages": MESSAGES}).encode()


class Running:
    """A forwarder, and what its log says."""

    def __init__(self, variables: dict[str, str], lines: list[Line], stop: Callable[[], object]) -> None:
        self.url, self.key, self.lines = variables["OPENAI_BASE_URL"], variables["OPENAI_API_KEY"], lines
        self.stop = stop
        self.host = self.url.split("/")[2]

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(**({"api_key": self.key, "base_url": self.url, "max_retries": 0} | options))

    def send(
        self, path: str = "/v1/chat/completions", method: str = "POST", body: bytes = BODY, **headers: str | None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Send a request with the key, unless the headers say otherwise; `_` in their names stands for `-`."""
        connection = http.client.HTTPConnection(self.host, timeout=10)
        given = {"authorization": f"Bearer {self.key}", "content_type": "application/json"} | headers
        named = {name.replace("_", "-"): value for name, value in given.items() if value is not None}
        connection.request(method, path, body if method == "POST" else None, named)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response, content

    def last_line(self) -> Line:
        """Wait for the line of the log, which is written when the response is complete."""
        for _ in range(400):
            if self.lines:
                return self.lines.pop()
            time.sleep(0.005)
        pytest.fail("the call was not logged")


@contextmanager
def forwarder(config: GatewayConfig) -> Iterator[Running]:
    lines: list[Line] = []
    with ExitStack() as stack:
        yield Running(stack.enter_context(forwarding(config, lines.append)), lines, stack.close)
