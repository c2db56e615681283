"""One client in several processes and event loops. Most tests run a program, because it forks or ends loops."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import pickle
import subprocess
import sys
import weakref
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import openai
import pytest
from answers import DONE
from calling import FLAVOURS
from loopback import COMPLETION, EVENTS, Answer, Loopback, Received

from deepseek_gateway import GatewayConfig
from deepseek_gateway._body import Pieces
from deepseek_gateway._http import GatewayAsyncHttpClient, GatewayHttpClient, Place

if TYPE_CHECKING:
    from calling import ConfigAt

httpx: Any = import_module(openai.DefaultHttpxClient.__base__.__module__)  # type: ignore[union-attr]

COMMON = """
import asyncio, gc, openai, os, pickle, stat, sys
from deepseek_gateway import create_async_client, create_client

config = pickle.loads(bytes.fromhex(sys.argv[1]))

def question(text):
    return {"model": "deepseek-flash", "messages": [{"role": "user", "content": text}]}
"""
FORKING = """
client = create_client(config, max_retries=0)

def ask(text):
    assert client.chat.completions.create(**question(text)).choices[0].message.content == text

ask("parent")
children = []
for number in range(4):
    if not (child := os.fork()):
        for turn in range(20):
            ask(f"child {number}, turn {turn}")
        client.close()
        os._exit(0)
    children.append(child)
for turn in range(20):
    ask(f"parent, turn {turn}")
for child in children:
    assert os.waitpid(child, 0)[1] == 0
ask("parent, last")
"""
FORKING_ASYNC = """
client = create_async_client(config, max_retries=0, transport=sys.argv[2])

async def main(who):
    for turn in range(10):
        text = f"{who}, turn {turn}"
        assert (await client.chat.completions.create(**question(text))).choices[0].message.content == text

asyncio.run(main("before"))
child = os.fork()
asyncio.run(main("after"))
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    os._exit(0)
"""
LOOPS = """
client = create_async_client(config, max_retries=0, transport=sys.argv[2])

async def main(close):
    for turn in range(3):
        answer = await client.chat.completions.create(**question("x"))
        assert answer.choices[0].message.content == "x"
    async with client.with_options(timeout=5) if close else asyncio.timeout(5):
        await client.models.list()

def open_sockets():
    links = [f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd")]
    return [link for link in links if os.path.exists(link) and stat.S_ISSOCK(os.stat(link).st_mode)]

for number in range(3):
    asyncio.run(main(close=number == 2))
gc.collect()
assert sys.platform != "linux" or open_sockets() == []
"""

LOOP_GONE = """
client = create_async_client(config, max_retries=0, transport=sys.argv[2])

async def ask():
    try:
        await client.models.list()
    except openai.APIConnectionError:  # nothing of the client holds the loop
        print("not reached")

asyncio.run(ask())
gc.collect()
asyncio.run(client.close())
"""


def echo(request: Received) -> Answer:
    if request.method == "GET":
        return Answer({"object": "list", "data": []})
    text = request.json["messages"][0]["content"]
    message = {"role": "assistant", "content": text}
    return Answer({**COMPLETION, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


def run_program(program: str, config: Any, *arguments: str) -> None:
    command = [sys.executable, "-c", COMMON + program, pickle.dumps(config).hex(), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
class TestFork:
    """After a fork, parent and children never share a connection."""

    def test_every_process_gets_its_own_answers(self, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = echo
        run_program(FORKING, config_at(gateway))
        assert gateway.connections == 5

    @pytest.mark.parametrize("transport", FLAVOURS[1:])
    def test_every_process_with_an_async_client_gets_its_own_answers(
        self, gateway: Loopback, config_at: ConfigAt, transport: str
    ) -> None:
        gateway.answer = echo
        run_program(FORKING_ASYNC, config_at(gateway), transport)
        assert gateway.connections == 3


@pytest.mark.parametrize("transport", FLAVOURS[1:])
def test_async_client_works_in_several_event_loops_and_leaves_no_connection(
    gateway: Loopback, config_at: ConfigAt, transport: str
) -> None:
    gateway.answer = echo
    run_program(LOOPS, config_at(gateway), transport)
    assert gateway.connections == 3


@pytest.mark.parametrize("transport", FLAVOURS[1:])
def test_async_client_can_be_closed_when_its_first_event_loop_is_gone(
    gateway: Loopback, config_at: ConfigAt, transport: str
) -> None:
    run_program(LOOP_GONE, config_at(gateway, endpoint="http://127.0.0.1:9/v1/acct/my-gateway"), transport)


def test_place_is_the_process_and_the_running_event_loop() -> None:
    async def main() -> None:
        assert Place.here() == Place(os.getpid(), weakref.ref(asyncio.get_running_loop()))

    asyncio.run(main())
    assert Place.here() == Place(os.getpid())


def test_place_lives_in_its_process_until_its_event_loop_is_closed_and_gone() -> None:
    async def main() -> Place:
        return Place.here()

    loop = asyncio.new_event_loop()
    place = loop.run_until_complete(main())
    assert place.lives
    assert not place._replace(process=0).lives
    loop.close()
    assert not place.lives
    del loop
    gc.collect()
    assert not place.lives
    assert Place(os.getpid()).lives
    assert not Place(0).lives


CONFIG = GatewayConfig(account_id="acct", api_key="key")
STREAM = b"".join(b"data: %s\n\n" % json.dumps(each | {"usage": None}).encode() for each in EVENTS) + DONE


class Transport(httpx.MockTransport):
    """A transport without connections, so that one program can stand for several processes and event loops.

    `/here` is redirected, and anything else is answered with a stream. `closed` counts how often it was closed.
    """

    def __init__(self) -> None:
        super().__init__(self.answer)
        self.closed = 0

    def answer(self, request: Any) -> Any:
        if request.url.path == "/here":
            return httpx.Response(307, headers={"location": "/there"})
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Pieces([STREAM]))

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


class Failing(Transport):
    """A transport that cannot be closed without an error, such as that of an event loop that is closed."""

    def close(self) -> None:
        super().close()
        raise ConnectionError

    async def aclose(self) -> None:
        await super().aclose()
        raise RuntimeError


class TestTakingOver:
    """The client for another place has the options of the first one, and sends each call with its own options."""

    def test_second_process_reads_and_streams_as_the_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        client = GatewayHttpClient(CONFIG, {}, transport=Transport())
        asking = client.build_request("POST", f"{CONFIG.base_url}/chat/completions", json={"stream": True})
        for process in (os.getpid(), 0):
            monkeypatch.setattr(os, "getpid", partial(int, process))
            followed = client.get("https://other.test/here", follow_redirects=True)
            assert (followed.status_code, followed.content) == (200, STREAM)
            streamed = client.send(asking, stream=True)
            assert not streamed.is_stream_consumed
            assert streamed.read() == STREAM

    def test_closed_client_is_closed_in_every_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        client = GatewayHttpClient(CONFIG, {}, transport=(transport := Transport()))
        for process in (os.getpid(), 0):
            monkeypatch.setattr(os, "getpid", partial(int, process))
            client.get(CONFIG.base_url)
        client.close()
        assert transport.closed == 2
        for process in (0, 1):
            monkeypatch.setattr(os, "getpid", partial(int, process))
            with pytest.raises(RuntimeError, match="closed"):
                client.get(CONFIG.base_url)

    def test_second_event_loop_reads_streams_and_merges_as_the_first(self) -> None:
        client = GatewayAsyncHttpClient(CONFIG, {}, merge_pause=0.0, transport=Transport())
        asking = client.build_request("POST", f"{CONFIG.base_url}/chat/completions", json={"stream": True})

        async def main() -> None:
            followed = await client.get("https://other.test/here", follow_redirects=True)
            assert (followed.status_code, followed.content) == (200, STREAM)
            streamed = await client.send(asking, stream=True)
            assert not streamed.is_stream_consumed
            assert (await streamed.aread()).count(b"data: {") == 1

        for _ in range(2):
            asyncio.run(main())

    @pytest.mark.parametrize(("forked", "closed"), [(False, 2), (True, 1)], ids=["another loop", "another process"])
    def test_closing_an_async_client_keeps_connections_of_another_process(
        self, monkeypatch: pytest.MonkeyPatch, forked: bool, closed: int
    ) -> None:
        client = GatewayAsyncHttpClient(CONFIG, {}, transport=(transport := Transport()))

        async def main(*, close: bool) -> None:
            await client.get(CONFIG.base_url)
            if close:
                await client.aclose()

        asyncio.run(main(close=False))
        if forked:
            monkeypatch.setattr(os, "getpid", int)
        asyncio.run(main(close=True))
        assert transport.closed == closed

    def test_closing_an_async_client_hides_that_its_first_event_loop_is_closed(self) -> None:
        client = GatewayAsyncHttpClient(CONFIG, {}, transport=(transport := Failing()))

        async def main() -> None:
            await client.get(CONFIG.base_url)

        asyncio.run(main())
        asyncio.run(client.aclose())
        assert transport.closed == 1

    def test_each_event_loop_gets_one_client_that_is_dropped_in_the_next(self) -> None:
        made: list[weakref.ref[Any]] = []

        class Noted(GatewayAsyncHttpClient):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                made.append(weakref.ref(self))

        client = Noted(CONFIG, {}, transport=Transport())

        async def main(calls: int) -> None:
            for _ in range(calls):
                await client.get(CONFIG.base_url)

        for calls in (1, 2, 2, 1):
            asyncio.run(main(calls))
        gc.collect()
        assert [each() is not None for each in made] == [True, False, False, True]


def test_dropped_client_closes_its_transport_and_hides_an_error() -> None:
    transports = Failing(), Transport()

    async def main() -> None:
        GatewayAsyncHttpClient(CONFIG, {}, transport=transports[1])
        await asyncio.sleep(0)

    GatewayHttpClient(CONFIG, {}, transport=transports[0])
    asyncio.run(main())
    gc.collect()
    assert [each.closed for each in transports] == [1, 1]
