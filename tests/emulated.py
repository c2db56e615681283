"""How tests ask the emulator by plain HTTP, at each address of a gateway."""

import http.client
import json
from typing import Any, NamedTuple

import openai

from deepseek_gateway.emulator import Emulator

KEY = {"authorization": "Bearer emulator-deepseek-key"}
TOKEN = {"cf-aig-authorization": "Bearer emulator-gateway-token"}
BOTH = KEY | TOKEN
REST = {"authorization": "Bearer emulator-gateway-token"}
ACCOUNT = "e" * 32
HOST = f"/v1/{ACCOUNT}/emulator-gateway"
PROVIDER = f"{HOST}/deepseek/chat/completions"
COMPAT = f"{HOST}/compat/chat/completions"
AI = f"/client/v4/accounts/{ACCOUNT}/ai/v1"
OFF = {"thinking": {"type": "disabled"}}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time"}}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The events of a chat stream, whose framing is checked on the way."""
        *lines, done, end = self.body.decode().split("\n\n")
        assert (done, end) == ("data: [DONE]", "")
        assert all(line.startswith("data: {") for line in lines)
        return [json.loads(line.removeprefix("data: ")) for line in lines]


def send(emulator: Emulator, path: str, headers: dict[str, str] = BOTH, body: Any = None, method: str = "") -> Answer:
    connection = http.client.HTTPConnection(emulator.url.removeprefix("http://"), timeout=10)
    content = body if isinstance(body, bytes | None) else json.dumps(body, separators=(",", ":")).encode()
    try:
        connection.request(method or ("GET" if content is None else "POST"), path, content, headers)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def ask(model: str = "deepseek-flash", text: str = "What is Cloudflare?", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def chat(emulator: Emulator, text: str = "What is Cloudflare?", **more: Any) -> Any:
    answer = send(emulator, PROVIDER, BOTH, ask(text=text, **more))
    assert answer.status == 200, answer.body
    return answer.json


def client_of(emulator: Emulator) -> openai.OpenAI:
    return openai.OpenAI(
        api_key="emulator-deepseek-key",
        base_url=f"{emulator.url}{HOST}/deepseek",
        default_headers=TOKEN,
        max_retries=0,
    )
