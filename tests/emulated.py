"""Plain HTTP requests to the emulator, and the URLs of its gateway."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
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
RESPONSES = f"{HOST}/deepseek/responses"
AI = f"/client/v4/accounts/{ACCOUNT}/ai/v1"
DIRECT = "/direct"
OFF = {"thinking": {"type": "disabled"}}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time"}}
JSON_TYPE, OCTETS, TEXT_TYPE = "application/json", "application/octet-stream", "text/plain; charset=UTF-8"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """Check the framing of a chat stream, and return its events."""
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
        sent = {name.lower(): response.getheader(name, "") for name in response.headers}  # repeated ones are joined
        return Answer(response.status, sent, response.read())
    finally:
        connection.close()


def ask(model: str = "deepseek-flash", text: str = "What is Cloudflare?", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


STREAM = ask(stream=True, **OFF)


def hi(text: str = "Hi", **more: Any) -> dict[str, Any]:
    """Return a short question. The page shows five prompt tokens for this question."""
    return ask(text=text, **more)


def named(**options: str) -> dict[str, str]:
    """Return both credentials, and a `cf-aig-*` header for each option."""
    return BOTH | {f"cf-aig-{name.replace('_', '-')}": value for name, value in options.items()}


def read(emulator: Emulator, body: Any = None, headers: dict[str, str] = BOTH, timeout: float = 10) -> Any:
    """Return the part of the body that arrived, and the type of the exception that ended the response, or None."""
    received = b""
    with closing(http.client.HTTPConnection(emulator.url.removeprefix("http://"), timeout=timeout)) as connection:
        connection.request("POST", PROVIDER, json.dumps(ask() if body is None else body), headers)
        try:
            with connection.getresponse() as response:
                while data := response.read1():
                    received += data
        except (OSError, http.client.HTTPException) as error:
            return received, type(error)
    return received, None


def chat(emulator: Emulator, text: str = "What is Cloudflare?", **more: Any) -> Any:
    answer = send(emulator, PROVIDER, BOTH, ask(text=text, **more))
    assert answer.status == 200, answer.body
    return answer.json


def client_of(emulator: Emulator, *, direct: bool = False) -> openai.OpenAI:
    return openai.OpenAI(
        api_key="emulator-deepseek-key",
        base_url=emulator.direct_url if direct else f"{emulator.url}{HOST}/deepseek",
        default_headers=TOKEN,
        max_retries=0,
    )


class Events:
    """The page's stream of rows, read event by event."""

    def __init__(self, emulator: Emulator, last: str = "") -> None:
        self._connection = http.client.HTTPConnection(emulator.url.removeprefix("http://"), timeout=5)
        self._connection.request("GET", "/_exchanges", headers={"last-event-id": last} if last else {})
        self._response = self._connection.getresponse()
        assert self._response.headers["content-type"].startswith("text/event-stream")
        self.last = last
        self.about = self.next("run")

    def next(self, kind: str = "message") -> dict[str, Any]:
        fields = {"event": "message"}
        while line := self._response.readline().decode().rstrip("\n"):
            name, _, fields[name] = line.partition(": ")
        assert fields["event"] == kind
        self.last = fields.get("id", self.last)
        return json.loads(fields["data"])

    def ended(self, number: int) -> dict[str, Any]:
        """Skip events until an exchange has ended, and return the row of the exchange."""
        while (row := self.next())["number"] != number or row["seconds"] is None:
            pass
        return row

    def close(self) -> None:
        self._response.close()
        self._connection.close()


@contextmanager
def events(emulator: Emulator, last: str = "") -> Iterator[Events]:
    stream = Events(emulator, last)
    try:
        yield stream
    finally:
        stream.close()


def parts_of(emulator: Emulator, number: int = 1) -> list[dict[str, Any]]:
    """Return the parts of an exchange that has ended, as the page shows them."""
    with events(emulator) as stream:
        stream.ended(number)
    return json.loads(send(emulator, f"/_exchanges/{number}").body)
