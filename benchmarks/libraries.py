"""The same work in each library: make a client, send a question, read a stream.

A library is imported only by the worker that measures it, so each environment needs only its own library.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

KEY = "not-a-key"
MODEL = "deepseek-flash"

Messages = list[dict[str, str]]


class NotOfferedError(Exception):
    """The library does not offer this."""


class Bare:
    """The bare `openai` client. Other libraries override what they do differently."""

    requirements: tuple[str, ...] = ()
    """Requirements of the library's environment. The bare client and ours need none."""
    imported = "openai"
    has_clients = True

    def client(self, url: str, kind: str, route: str = "provider") -> Any:
        """Make a client: `sync`, `async`, `aiohttp`, or `environment` for settings from environment variables.

        Ours also has `merging`, which is `aiohttp` with merged chunks, and `resting`, which reads ten times a second.

        Raises:
            NotOfferedError: The library has no such client.
        """
        import openai

        options: Any = {"api_key": KEY, "base_url": f"{url}/{'deepseek' if route == 'provider' else route}"}
        options["default_headers"] = {"cf-aig-authorization": f"Bearer {KEY}"}  # the bare client knows no gateway token
        if kind == "environment":
            return openai.OpenAI()
        if kind == "sync":
            return openai.OpenAI(**options)
        if kind == "async":
            return openai.AsyncOpenAI(**options)
        if not hasattr(openai, "DefaultAioHttpClient"):
            raise NotOfferedError(f"openai {openai.__version__} has no aiohttp client")
        return openai.AsyncOpenAI(**options, http_client=openai.DefaultAioHttpClient())

    def question(self, messages: Messages) -> Any:
        """Convert messages for `call` and the other methods, once for many calls."""
        return {"messages": messages}

    def long_question(self, messages: Messages) -> Any:
        """Convert messages in the way that the library offers for long conversations."""
        return self.question(messages)

    def call(self, client: Any, question: Any) -> None:
        """Send a question and wait for the answer."""
        client.chat.completions.create(model=MODEL, **question)

    def stream(self, client: Any, question: Any) -> int:
        """Read a stream to its end and return the number of chunks."""
        return sum(1 for _ in client.chat.completions.create(model=MODEL, stream=True, **question))

    async def call_async(self, client: Any, question: Any) -> None:
        """Call with an asynchronous client."""
        await client.chat.completions.create(model=MODEL, **question)

    async def stream_async(self, client: Any, question: Any) -> int:
        """Stream with an asynchronous client."""
        return await _counted(await client.chat.completions.create(model=MODEL, stream=True, **question))


async def _counted(chunks: Any) -> int:
    return sum([1 async for _ in chunks])


@cache
def _config(url: str, route: Any) -> Any:
    """Share one configuration among many clients."""
    from deepseek_gateway import GatewayConfig

    return GatewayConfig(endpoint=url, api_key=KEY, gateway_token=KEY, route=route)


class Ours(Bare):
    """`deepseek_gateway`: other factories, the same calls."""

    imported = "deepseek_gateway"

    def client(self, url: str, kind: str, route: str = "provider") -> Any:
        from deepseek_gateway import create_async_client, create_client

        if kind == "environment":
            return create_client()
        if kind == "sync":
            return create_client(_config(url, route))
        try:
            transport: Any = "httpx" if kind == "async" else "aiohttp"
            merge_chunks = {"merging": True, "resting": 0.1}.get(kind, False)
            return create_async_client(_config(url, route), transport=transport, merge_chunks=merge_chunks)
        except RuntimeError as error:
            raise NotOfferedError(error) from None

    def long_question(self, messages: Messages) -> Any:
        from deepseek_gateway import long_history

        return long_history(messages)


class Peer(Bare):
    """A library other than openai and ours. It has no aiohttp client and no client from the environment."""

    def client(self, url: str, kind: str, route: str = "provider") -> Any:
        if kind not in {"sync", "async"}:
            raise NotOfferedError(f"{self.imported} has no {kind} client")
        return self.make(f"{url}/{route}", kind)

    def make(self, url: str, kind: str) -> Any:
        """Make a sync or async client that calls this base URL."""
        raise NotImplementedError


class Portkey(Peer):
    """Client classes with the methods of openai's. The loopback server stands in for Portkey's gateway."""

    requirements = ("portkey-ai==2.3.4",)
    imported = "portkey_ai"

    def make(self, url: str, kind: str) -> Any:
        from portkey_ai import AsyncPortkey, Portkey

        portkey: Any = Portkey if kind == "sync" else AsyncPortkey
        return portkey(api_key=KEY, provider="deepseek", base_url=url)


class LiteLLM(Peer):
    """Functions instead of client objects. `make` returns their arguments."""

    requirements = ("litellm==1.106.2",)
    imported = "litellm"
    has_clients = False

    def make(self, url: str, kind: str) -> Any:  # noqa: ARG002  # one object serves both kinds
        import litellm  # noqa: F401  # the import takes 2 s and must not count as part of the first call

        return {"model": f"deepseek/{MODEL}", "api_base": url, "api_key": KEY}

    def call(self, client: Any, question: Any) -> None:
        import litellm

        litellm.completion(**client, **question)

    def stream(self, client: Any, question: Any) -> int:
        import litellm

        return sum(1 for _ in litellm.completion(**client, **question, stream=True))

    async def call_async(self, client: Any, question: Any) -> None:
        import litellm

        await litellm.acompletion(**client, **question)

    async def stream_async(self, client: Any, question: Any) -> int:
        import litellm

        return await _counted(await litellm.acompletion(**client, **question, stream=True))


class LangchainOpenai(Peer):
    """A chat model with a sync and an async client. It accepts messages as dictionaries."""

    requirements: tuple[str, ...] = ("langchain-openai==1.7.3", "openai==3.57.0")
    imported = "langchain_openai"

    def make(self, url: str, kind: str) -> Any:  # noqa: ARG002  # one object serves both kinds
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model=MODEL, api_key=KEY, base_url=url)

    def question(self, messages: Messages) -> Any:
        return messages

    def call(self, client: Any, question: Any) -> None:
        client.invoke(question)

    def stream(self, client: Any, question: Any) -> int:
        return sum(1 for _ in client.stream(question))

    async def call_async(self, client: Any, question: Any) -> None:
        await client.ainvoke(question)

    async def stream_async(self, client: Any, question: Any) -> int:
        return await _counted(client.astream(question))


class LangchainDeepseek(LangchainOpenai):
    """A chat model built on langchain-openai."""

    requirements = ("langchain-deepseek==1.1.1", *LangchainOpenai.requirements)
    imported = "langchain_deepseek"

    def make(self, url: str, kind: str) -> Any:  # noqa: ARG002  # one object serves both kinds
        from langchain_deepseek import ChatDeepSeek

        return ChatDeepSeek(model=MODEL, api_key=KEY, api_base=url)


class PydanticAI(Peer):
    """A model without an agent. Its sync calls run an event loop, as in the library itself."""

    requirements = ("pydantic-ai-slim[openai]==2.68.0", "openai==3.57.0")
    imported = "pydantic_ai.models.openai"

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def make(self, url: str, kind: str) -> Any:  # noqa: ARG002  # one object serves both kinds
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        return OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=url, api_key=KEY))

    def question(self, messages: Messages) -> Any:
        from pydantic_ai import ModelRequest, ModelResponse, TextPart

        return [
            ModelRequest.user_text_prompt(message["content"])
            if message["role"] == "user"
            else ModelResponse(parts=[TextPart(message["content"])])
            for message in messages
        ]

    def call(self, client: Any, question: Any) -> None:
        self._loop.run_until_complete(self.call_async(client, question))

    def stream(self, client: Any, question: Any) -> int:
        return self._loop.run_until_complete(self.stream_async(client, question))

    async def call_async(self, client: Any, question: Any) -> None:
        from pydantic_ai.direct import model_request

        await model_request(client, question)

    async def stream_async(self, client: Any, question: Any) -> int:
        from pydantic_ai.direct import model_request_stream

        async with model_request_stream(client, question) as events:
            return await _counted(events)


PEERS: dict[str, type[Bare]] = {
    "portkey-ai": Portkey,
    "litellm": LiteLLM,
    "langchain-openai": LangchainOpenai,
    "langchain-deepseek": LangchainDeepseek,
    "pydantic-ai": PydanticAI,
}

LIBRARIES: dict[str, type[Bare]] = {"bare": Bare, "ours": Ours, **PEERS}
