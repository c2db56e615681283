"""The kinds of calls: how each is made with a synchronous and with an asynchronous client, and the text it returns."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import openai
from pydantic import create_model

from tests.chaos.answering import expected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator


def _model(word: str) -> Any:
    return create_model("Answer", word=(Literal[word], ...))  # type: ignore[arg-type]  # a type made at run time


WORDS = {word: _model(word) for word in (f"word{number}" for number in range(8))}
"""Models for `parse()`. A call takes one by chance. They are few, because old versions of openai keep what they derive
from each model.
"""

KINDS = ("chat", "stream", "raw", "body", "lines", "parse", "responses", "responses stream", "closed", "dropped")
"""`raw` is `with_raw_response`. `body` and `lines` are `with_streaming_response`, plain and as a stream. `closed` and
`dropped` are streams that are left after some events, with and without `close()`.
"""

_DROPPING_BLOCKS = openai.DefaultHttpxClient.__base__.__module__ == "httpx"
"""With openai 1 and 2, the garbage collector may close a dropped synchronous stream in a thread that holds the lock of
the pool, and then the pool blocks for ever. The bare client does the same.
"""


class NotAnAnswerError(Exception):
    """The SDK returned a text or a list in place of an object."""


class ErrorEventError(openai.OpenAIError):
    """A caller that reads lines found an error among them, which the SDK leaves to the caller."""


class Ask:
    """One call of any kind. `got` grows with the text as it arrives, so that it can be compared after an error too."""

    def __init__(self, kind: str, question: str, word: str, leave_after: int) -> None:
        self._kind, self._question, self._word, self._leave_after = kind, question, word, leave_after
        self.got: list[str] = []

    @property
    def right(self) -> str:
        """The text that the whole answer has."""
        return self._word if self._kind == "parse" else expected(self._question)

    @property
    def whole(self) -> bool:
        """Whether the caller waits for the whole answer."""
        return self._kind not in {"closed", "dropped"}

    @property
    def wrong(self) -> bool:
        """Whether a text has arrived that is not even the beginning of the answer."""
        return not self.right.startswith("".join(self.got))

    def sync(self, client: Any) -> None:
        method, options = self._request(client)
        match self._kind:
            case "lines":
                with method.create(**options) as response:
                    self._read_lines(response.iter_lines())
            case "body":
                with method.create(**options) as response:
                    self._read(response.parse())
            case "stream" | "responses stream":
                for event in method.create(**options):
                    self._read_event(event)
            case "closed" | "dropped":
                stream = method.create(**options)
                for _, event in zip(range(self._leave_after), stream, strict=False):
                    self._read_event(event)
                if self._kind == "closed" or _DROPPING_BLOCKS:
                    stream.close()
            case "parse":
                with _parsed():
                    self._read(method.parse(**options))
            case _:
                self._read(method.create(**options))

    async def asynchronous(self, client: Any) -> None:
        method, options = self._request(client)
        match self._kind:
            case "lines":
                async with method.create(**options) as response:
                    self._read_lines([line async for line in response.iter_lines()])
            case "body":
                async with method.create(**options) as response:
                    self._read(await response.parse())
            case "stream" | "responses stream":
                async for event in await method.create(**options):
                    self._read_event(event)
            case "closed" | "dropped":
                stream = await method.create(**options)
                left = self._leave_after
                async for event in _each(stream):
                    self._read_event(event)
                    if not (left := left - 1):
                        break
                if self._kind == "closed":
                    await stream.close()
            case "parse":
                with _parsed():
                    self._read(await method.parse(**options))
            case _:
                self._read(await method.create(**options))

    def _request(self, client: Any) -> tuple[Any, dict[str, Any]]:
        """Give the resource to call, and the arguments."""
        if self._kind.startswith("responses"):
            streamed = self._kind == "responses stream"
            return client.responses, {"model": "deepseek-flash", "input": self._question, "stream": streamed}
        chat = client.chat.completions
        options: dict[str, Any] = {
            "model": "deepseek-flash",
            "messages": [{"role": "user", "content": self._question}],
        }
        if self._kind == "parse":
            old = client.beta.chat.completions  # openai before 1.92 has `parse()` only there
            return chat if hasattr(chat, "parse") else old, options | {"response_format": WORDS[self._word]}
        if self._kind in {"body", "lines"}:
            return chat.with_streaming_response, options | {"stream": self._kind == "lines"}
        if self._kind == "raw":
            return chat.with_raw_response, options
        return chat, options | {"stream": self._kind != "chat"}

    def _read(self, answer: Any) -> None:
        answer = answer.parse() if self._kind == "raw" else answer
        if isinstance(answer, str | list):
            raise NotAnAnswerError(repr(answer)[:40])
        if self._kind == "responses":
            self.got.append(answer.output_text)
        elif self._kind == "parse":
            self.got.append(answer.choices[0].message.parsed.word)
        else:
            self.got.append(answer.choices[0].message.content)

    def _read_event(self, event: Any) -> None:
        if self._kind == "responses stream":
            if event.type == "response.output_text.delta":
                self.got.append(event.delta)
        else:
            self.got += [choice.delta.content or "" for choice in event.choices]

    def _read_lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                if "choices" not in event:
                    raise ErrorEventError(line)
                self.got += [choice["delta"].get("content") or "" for choice in event["choices"]]


@contextmanager
def _parsed() -> Iterator[None]:
    try:
        yield
    except AttributeError as error:  # the SDK looks for the choices of a text or of a list
        raise NotAnAnswerError(str(error)) from error


async def _each(stream: Any) -> AsyncIterator[Any]:
    """Read a stream event by event, as a caller that drops the stream in the middle."""
    while True:
        try:
            yield await anext(stream)
        except StopAsyncIteration:
            return
