"""The same work in the words of each library: make a client, ask, read a stream.

Each is imported by the worker that measures it, in an environment that need not have the others.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

KEY = "not-a-key"
MODEL = "deepseek-flash"

Messages = list[dict[str, str]]


class NotOfferedError(Exception):
    """The library has nothing of the kind."""


class Bare:
    """The `openai` client as it comes: the yardstick, and what the others are asked for in their own way."""

    requirements: tuple[str, ...] = ()
    """What pip installs for it; the bare client and ours are measured where they are."""
    imported = "openai"
    has_clients = True

    def client(self, url: str, kind: str, route: str = "provider") -> Any:
        """Make a client: `sync`, `async`, `aiohttp`, or `environment`, which takes its settings from there.

        Raises:
            NotOfferedError: The library has no such client.
        """
        import openai

        address: Any = {"api_key": KEY, "base_url": f"{url}/{'deepseek' if route == 'provider' else route}"}
        address["default_headers"] = {"cf-aig-authorization": f"Bearer {KEY}"}  # as who sets it up by hand has to
        if kind == "environment":
            return openai.OpenAI()
        if kind == "sync":
            return openai.OpenAI(**address)
        if kind == "async":
            return openai.AsyncOpenAI(**address)
        if not hasattr(openai, "DefaultAioHttpClient"):
            raise NotOfferedError(f"openai {openai.__version__} has no aiohttp client")
        return openai.AsyncOpenAI(**address, http_client=openai.DefaultAioHttpClient())

    def question(self, messages: Messages) -> Any:
        """Put messages as `call` and the others want them; done once for many calls."""
        return {"messages": messages}

    def long_question(self, messages: Messages) -> Any:
        """Do it in the way that is meant for many messages."""
        return self.question(messages)

    def call(self, client: Any, question: Any) -> None:
        """Ask and wait for the answer."""
        client.chat.completions.create(model=MODEL, **question)

    def stream(self, client: Any, question: Any) -> int:
        """Ask for a stream, read it to the end and give the number of its chunks."""
        return sum(1 for _ in client.chat.completions.create(model=MODEL, stream=True, **question))

    async def call_async(self, client: Any, question: Any) -> None:
        """Do as `call`, with an asynchronous client."""
        await client.chat.completions.create(model=MODEL, **question)

    async def stream_async(self, client: Any, question: Any) -> int:
        """Do as `stream`, with an asynchronous client."""
        return await _counted(await client.chat.completions.create(model=MODEL, stream=True, **question))


async def _counted(chunks: Any) -> int:
    return sum([1 async for _ in chunks])


@cache
def _config(url: str, route: Any) -> Any:
    """Have one configuration for many clients."""
    from deepseek_gateway import GatewayConfig

    return GatewayConfig(endpoint=url, api_key=KEY, gateway_token=KEY, route=route)


class Ours(Bare):
    """`deepseek_gateway`: other factories, then the same calls."""

    imported = "deepseek_gateway"

    def client(self, url: str, kind: str, route: str = "provider") -> Any:
        from deepseek_gateway import create_async_client, create_client

        if kind == "environment":
            return create_client()
        if kind == "sync":
            return create_client(_config(url, route))
        try:
            return create_async_client(_config(url, route), transport="aiohttp" if kind == "aiohttp" else "httpx")
        except RuntimeError as error:
            raise NotOfferedError(error) from None

    def long_question(self, messages: Messages) -> Any:
        from deepseek_gateway import long_history

        return long_history(messages)


class Peer(Bare):
    """What none of the other libraries offers."""

    def client(self, url: str, kind: str, route: str = "provider") -> Any:
        if kind not in {"sync", "async"}:
            raise NotOfferedError(f"{self.imported} has no {kind} client")
        return self.made(f"{url}/{route}", kind)

    def made(self, url: str, kind: str) -> Any:
        """Make a sync or async client that calls this base URL."""
        raise NotImplementedError


class Portkey(Peer):
    """A client class of its own, with the methods of openai's; its gateway is the loopback server."""

    requirements = ("portkey-ai==2.3.4",)
    imported = "portkey_ai"

    def made(self, url: str, kind: str) -> Any:
        from portkey_ai import AsyncPortkey, Portkey

        portkey: Any = Portkey if kind == "sync" else AsyncPortkey
        return portkey(api_key=KEY, provider="deepseek", base_url=url)


class LiteLLM(Peer):
    """Functions, and no client objects: what stands for one is the address alone."""

    requirements = ("litellm==1.106.2",)
    imported = "litellm"
    has_clients = False

    def made(self, url: str, kind: str) -> Any:  # noqa: ARG002  # the same for both
        import litellm  # noqa: F401  # 2 s, which are not the first call's

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
    """A chat model, which holds both a sync and an async client and takes messages as dictionaries."""

    requirements: tuple[str, ...] = ("langchain-openai==1.7.3", "openai==3.54.0")
    imported = "langchain_openai"

    def made(self, url: str, kind: str) -> Any:  # noqa: ARG002  # the same for both
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
    """A chat model over langchain-openai's."""

    requirements = ("langchain-deepseek==1.1.1", *LangchainOpenai.requirements)
    imported = "langchain_deepseek"

    def made(self, url: str, kind: str) -> Any:  # noqa: ARG002  # the same for both
        from langchain_deepseek import ChatDeepSeek

        return ChatDeepSeek(model=MODEL, api_key=KEY, api_base=url)


class PydanticAI(Peer):
    """A model without an agent around it, asynchronous at heart: the sync calls wait in a loop, as its own do."""

    requirements = ("pydantic-ai-slim[openai]==2.68.0", "openai==3.54.0")
    imported = "pydantic_ai.models.openai"

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def made(self, url: str, kind: str) -> Any:  # noqa: ARG002  # the same for both
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
