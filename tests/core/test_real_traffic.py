"""Recorded DeepSeek traffic. Our clients return what a bare client returns. The emulator answers in the same form."""

import asyncio
import functools
import inspect
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
import recordings
from recordings import Exchange

from deepseek_gateway import GatewayConfig, create_async_client, create_client
from deepseek_gateway.emulator import Emulator

pytestmark = recordings.required

# Route -> the end of the base URL, and the prefix of the model.
ROUTES = {"provider": ("deepseek", ""), "compat": ("compat", "deepseek/")}
# These send tools, but not the thoughts of an earlier answer. DeepSeek accepted them, although it documents a refusal.
WITHOUT_THOUGHTS = {f"{recordings.RIG}/prompt_caching__{kind}_probe.yaml#3" for kind in ("blocking", "streaming")}
FLAVOURS = {"sync": create_client, "async": create_async_client}


@dataclass(frozen=True)
class Request:
    path: str
    body: bytes


class Replay(ThreadingHTTPServer):
    """A server that answers every request with a recorded exchange. The header `x-exchange` holds its number."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Replayed)
        self.endpoint = f"http://127.0.0.1:{self.server_port}/v1/acct/gw"
        self.requests: list[Request] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore connections that clients drop after the response."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Replayed(BaseHTTPRequestHandler):
    server: Replay
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # the pieces of a stream travel one by one

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.requests.append(Request(self.path, body))
        exchange = recordings.exchanges()[int(self.headers["x-exchange"])]
        chunked = exchange.stream and exchange.status == 200
        self.send_response_only(exchange.status)
        for name, value in exchange.headers.items():
            if name != "content-length":
                self.send_header(name, value)
        self.send_header(*("transfer-encoding", "chunked") if chunked else ("content-length", str(len(exchange.body))))
        self.end_headers()
        if chunked:
            for piece in awkward_pieces(exchange.body):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.wfile.write(exchange.body)

    do_POST = do_GET  # noqa: N815  # the name that http.server calls

    def log_message(self, *_: object) -> None:
        pass


def awkward_pieces(body: bytes) -> list[bytes]:
    """Cut a body into pieces of 1000 bytes, so that the last cut goes through `[DONE]`."""
    first = (len(body) - len(b"NE]\n\n")) % 1000
    return [piece for piece in (body[:first], *(body[i : i + 1000] for i in range(first, len(body), 1000))) if piece]


@pytest.fixture(scope="module")
def replay() -> Iterator[Replay]:
    with Replay() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def returned_facts(client: Any, number: int) -> list[dict[str, Any]]:
    """Send a recorded request, and return the facts of every object that the client returned."""
    request, headers = recordings.exchanges()[number].request_json, {"x-exchange": str(number)}
    try:
        if request is None:
            answer = client.models.list(extra_headers=headers)
        else:
            known = {key: request[key] for key in ("model", "messages", "stream") if key in request}
            rest = {key: value for key, value in request.items() if key not in known}
            answer = client.chat.completions.create(**known, extra_body=rest, extra_headers=headers)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, openai.Stream):
            return [facts(chunk) for chunk in answer]
        if isinstance(answer, openai.AsyncStream):
            return [facts(chunk) async for chunk in answer]
        return [facts(answer)]
    except openai.APIStatusError as error:
        names = ("status_code", "code", "type", "param", "body", "message", "request_id")
        seen = {"class": type(error), "str": str(error)} | {name: getattr(error, name) for name in names}
        return [seen | {"wire": {"error": error.body}}]


def facts(model: Any) -> dict[str, Any]:
    return {
        "class": type(model).__name__.removeprefix("Async").removeprefix("Sync"),  # AsyncPage, SyncPage
        "request_id": getattr(model, "_request_id", None),  # chunks have none
        "dump": model.model_dump(),
        "wire": model.model_dump(exclude_unset=True),  # only the members that were in the bytes, as in `to_dict()`
    }


def assert_same(expected: Any, got: Any, where: str) -> None:
    """Compare two values field by field, with their types and the order of their keys."""
    if repr(expected) == repr(got):
        return
    if type(expected) is type(got) is dict and list(expected) == list(got):
        for key, value in expected.items():
            assert_same(value, got[key], f"{where}.{key}")
    elif type(expected) is type(got) in (list, tuple) and len(expected) == len(got):
        for number, value in enumerate(expected):
            assert_same(value, got[number], f"{where}.{number}")
    else:
        pytest.fail(f"{where}: expected {expected!r:.1000}, got {got!r:.1000}")


def test_every_recorded_exchange_is_read_under_its_own_name() -> None:
    exchanges = recordings.exchanges()
    assert len(recordings.files()) == 147
    assert len(exchanges) == len({exchange.name for exchange in exchanges}) == 191
    assert sum(exchange.stream and exchange.status == 200 for exchange in exchanges) == 76


Bare = Callable[[int], tuple[list[dict[str, Any]], Request]]


@pytest.fixture(scope="module")
def bare(replay: Replay) -> Iterator[Bare]:
    """Return what a bare client returns and sends. Cached because parsing takes most of the time."""
    with openai.OpenAI(api_key="fake-key", base_url=f"{replay.endpoint}/deepseek", max_retries=0) as client:

        @functools.cache
        def returned(number: int) -> tuple[list[dict[str, Any]], Request]:
            return asyncio.run(returned_facts(client, number)), replay.requests[-1]

        yield returned


@pytest.mark.parametrize("source", recordings.SOURCES)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_clients_return_what_a_bare_client_returns_for_recorded_exchanges(
    replay: Replay, bare: Bare, flavour: str, source: str
) -> None:
    usual = {n: bare(n) for n, exchange in enumerate(recordings.exchanges()) if exchange.source == source}
    asyncio.run(compare(replay, FLAVOURS[flavour], usual))


def with_thoughts(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**each, "reasoning_content": ""} if each["role"] == "assistant" else each for each in messages]


async def compare(replay: Replay, create: Callable[..., Any], usual: dict[int, Any]) -> None:
    settings = {"endpoint": replay.endpoint, "api_key": "fake-key", "gateway_token": "fake-token"}
    async with AsyncExitStack() as stack:
        ours = {}
        for route in ROUTES:
            client = create(GatewayConfig(**settings, route=route), max_retries=0)
            ours[route] = client
            if isinstance(client, openai.AsyncOpenAI):
                await stack.enter_async_context(client)
            else:
                stack.enter_context(client)
        for number, (expected, request) in usual.items():
            exchange = recordings.exchanges()[number]
            assert [each["wire"] for each in expected] == exchange.events, exchange.name
            if trace_id := exchange.headers.get("x-ds-trace-id"):  # a bare client does not know DeepSeek's trace id
                expected = [{**each, "request_id": trace_id} for each in expected]  # noqa: PLW2901
            for route, (slug, prefix) in ROUTES.items():
                where = f"{exchange.name} on the {route} route"
                got, sent = await returned_facts(ours[route], number), replay.requests[-1]
                assert_same(expected, got, where)
                assert sent.path == request.path.replace("/deepseek/", f"/{slug}/"), where
                translated = exchange.name in WITHOUT_THOUGHTS
                assert route == "compat" or translated or sent.body == request.body, where
                if exchange.request_json is not None:
                    wanted = json.loads(request.body)
                    assert wanted == exchange.request_json, exchange.name
                    if translated:
                        wanted["messages"] = with_thoughts(wanted["messages"])
                    wanted["model"] = prefix + wanted["model"]
                    assert_same(wanted, json.loads(sent.body), where)


Ask = Callable[[Exchange, dict[str, Any] | None], Exchange]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Send a request to the emulator in place of DeepSeek, and return the new exchange."""
    with Emulator() as emulator:
        config = emulator.config(route="provider")
        url = urlsplit(config.base_url)

        def send(exchange: Exchange, request_json: dict[str, Any] | None) -> Exchange:
            key = "fake-wrong-key" if exchange.status == 401 else config.api_key
            headers = {"authorization": f"Bearer {key}", "cf-aig-authorization": f"Bearer {config.gateway_token}"}
            body = None if request_json is None else json.dumps(request_json)
            with closing(HTTPConnection(url.netloc)) as connection:
                connection.request(exchange.method, url.path + exchange.path, body, headers)
                with connection.getresponse() as response:
                    answered = {"content-type": response.headers["content-type"]}
                    body = response.read()
            return replace(exchange, name="emulator", status=response.status, headers=answered, body=body)

        yield send


def insert_cached_tokens(event: dict[str, Any]) -> None:
    usage = event["usage"]
    event["usage"] = {}
    for key, value in usage.items():
        if key == "prompt_cache_hit_tokens":
            event["usage"].setdefault("prompt_tokens_details", {"cached_tokens": value})
        event["usage"][key] = value


def add_null_usage(event: dict[str, Any]) -> None:
    event.setdefault("usage", None)


def describe_models(event: dict[str, Any]) -> None:
    for model in event["data"]:
        model |= {"name": "a name", "context_window": 1, "max_output_tokens": 1}
        model |= {"input_modalities": ["text"], "output_modalities": ["text"]}
        model |= {"effort": {"supported_levels": ["low"], "default_level": "low"}, "api_capabilities": ["chat"]}


def name_new_models(event: dict[str, Any]) -> None:
    old, new = "deepseek-v4-pro or deepseek-v4-flash", "deepseek-flash, deepseek-v4-pro"
    event["error"]["message"] = event["error"]["message"].replace(old, new)


def expect_new_parts(event: dict[str, Any]) -> None:
    old, new = "expected `text`", "expected one of `text`, `image_url`, `file`"
    event["error"]["message"] = event["error"]["message"].replace(old, new)


# The documented changes of DeepSeek since the recordings were made. Any other difference fails a test.
CHANGED_SINCE: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "January 2025 had no prompt_tokens_details": (r"prism-php\+prism/.*json", insert_cached_tokens),
    "April 2026 had no null usage despite include_usage": (r"anomalyco\+opencode/", add_null_usage),
    "October 2026 describes the models": (r".*/(GET_models|models__list_models_smoke)", describe_models),
    "September 2026 put deepseek-flash in place of v4-flash": (r".*_rejects_an_unknown_model_", name_new_models),
    "September 2026 takes images and files (the error text is inferred)": (
        r".*_(audio|video)_part_",
        expect_new_parts,
    ),
}
STATUS_CHANGED_SINCE = {
    "September 2026 takes images and files": (r".*_(image|pdf)_.*_reaches_the_wire", 200),
    "documented and sometimes enforced: reasoning_content must be passed back": (r".*caching__.*_probe\.yaml#3", 400),
}


def today(exchange: Exchange) -> list[Any]:
    """Return the recorded events as DeepSeek would send them today."""
    events = exchange.events
    for pattern, change in CHANGED_SINCE.values():
        if re.match(pattern, exchange.name):
            for event in events:
                change(event)
    return events


def shape(value: Any, *, ordered: bool, key: str = "") -> Any:
    """Reduce a value to keys, types and the values that are structure, such as empty strings, nulls and roles."""
    if isinstance(value, dict):
        shapes = [(key, shape(each, ordered=ordered, key=key)) for key, each in value.items()]
        return tuple(shapes if ordered else sorted(shapes))
    if isinstance(value, list):
        return ("each", *dict.fromkeys(shape(each, ordered=ordered) for each in value))
    fixed = value is None or value == "" or key in ("object", "owned_by", "role", "type", "index", "finish_reason")
    return repr(value) if fixed else type(value).__name__


def sequence(events: list[Any], *, ordered: bool) -> tuple[Any, ...]:
    """Return the shapes of the events in their order. Equal shapes that follow each other count as one."""
    return tuple(each for each, _ in groupby(shape(event, ordered=ordered) for event in events))


def traits(exchange: Exchange) -> dict[str, Any]:
    """Return the traits of a response that depend only on the request, and not on what the model says."""
    events = today(exchange)
    error = events[0].get("error", {})
    return {
        "status": exchange.status,
        "content type": exchange.headers["content-type"],
        # A column counts bytes of the request, and a recording does not keep these bytes.
        "error": error | {"message": re.sub(r" column \d+", "", error.get("message", ""))},
        "thinking": "completion_tokens_details" in events[-1].get("usage", {}),
        "usage from the first event on": "usage" in events[0],
        "logprobs": any(choice["logprobs"] for event in events for choice in event.get("choices", ())),
    }


def sums(usage: dict[str, Any]) -> bool:
    """Whether the token counts add up as they do in all recordings."""
    hits, misses = usage["prompt_cache_hit_tokens"], usage["prompt_cache_miss_tokens"]
    return (
        usage["prompt_tokens"] == hits + misses
        and usage["prompt_tokens_details"]["cached_tokens"] == hits
        and hits % 64 == 0
        and usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    )


@pytest.mark.parametrize("source", [recordings.RIG, recordings.OPENCODE, recordings.VELANTRIAN])
def test_emulator_answers_recorded_requests_with_the_recorded_traits(ask: Ask, source: str) -> None:
    recorded_sequences = {sequence(today(exchange), ordered=False) for exchange in recordings.exchanges()}
    for exchange in recordings.exchanges():
        if exchange.source != source:
            continue
        emulated = ask(exchange, exchange.request_json)
        status = next((s for pattern, s in STATUS_CHANGED_SINCE.values() if re.match(pattern, exchange.name)), None)
        if status:
            assert exchange.status != emulated.status == status, exchange.name
        else:
            assert traits(emulated) == traits(exchange), exchange.name
        got = emulated.events
        sent = sequence(got, ordered=False)
        if sent not in recorded_sequences:
            pytest.fail(f"{exchange.name}: no recording has the sequence {sent}")
        assert all(sums(last["usage"]) for last in (today(exchange)[-1], got[-1]) if "usage" in last), exchange.name


def provoking(exchange: Exchange) -> dict[str, Any] | None:
    """Make up a request that makes the emulator answer with the recorded kind of response."""
    if exchange.request_json is None:
        return None
    events, text = today(exchange), exchange.body.decode()
    tools = re.findall(r'"name": ?"(\w+)"', text)
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    asked = {
        "model": "deepseek-flash",
        "messages": [{"role": "user", "content": f"Use {' and '.join(tools)}" if tools else "Hello"}],
        "thinking": {"type": "enabled" if "reasoning_content" in text else "disabled"},
        "tools": [{"type": "function", "function": {"name": name, "parameters": parameters}} for name in tools],
        "max_tokens": 3 if events[-1]["choices"][0]["finish_reason"] == "length" else None,
        "stream": exchange.stream,
        "stream_options": {"include_usage": True} if exchange.stream and "usage" in events[0] else None,
    }
    return {key: value for key, value in asked.items() if value}


@pytest.mark.parametrize("source", [recordings.VERCEL, recordings.PRISM, recordings.OPENCODE, recordings.VELANTRIAN])
def test_emulator_sends_the_recorded_sequence_with_keys_in_the_recorded_order(ask: Ask, source: str) -> None:
    for exchange in recordings.exchanges():
        if exchange.source == source:
            emulated = ask(exchange, provoking(exchange))
            got = emulated.events
            assert_same(sequence(today(exchange), ordered=True), sequence(got, ordered=True), exchange.name)
            lines = [json.dumps(event, ensure_ascii=False, separators=(",", ":")) for event in got]
            framed = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]) if exchange.stream else lines[0]
            assert emulated.body.decode() == framed, exchange.name


def test_emulator_sends_about_one_token_in_each_event(ask: Ask) -> None:
    for name in ("deepseek-text.chunks.txt", "deepseek-reasoning.chunks.txt"):
        recorded = recordings.exchange(f"{recordings.VERCEL}/{name}")
        for events in (recorded.events, ask(recorded, provoking(recorded)).events):
            assert len(events) - events[-1]["usage"]["completion_tokens"] in (1, 2)  # the first event and the last


def test_emulator_makes_ids_of_the_newest_recorded_forms(ask: Ask) -> None:
    called = recordings.exchange(f"{recordings.VERCEL}/deepseek-tool-call.json")
    newest = recordings.exchange(f"{recordings.RIG}/prompt_caching__blocking_probe.yaml")
    emulated = ask(called, provoking(called))
    uuid4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    for exchange in (called, emulated):
        (answer,) = exchange.events
        (call,) = answer["choices"][0]["message"]["tool_calls"]
        assert re.fullmatch(uuid4, answer["id"])
        assert re.fullmatch(r"call_00_[0-9A-Za-z]{24}", call["id"])
    listed = recordings.exchange(f"{recordings.VELANTRIAN}/GET_models_2026-09-12.json")
    for exchange in (listed, ask(listed, None)):
        assert [model["id"] for model in exchange.events[0]["data"]] == ["deepseek-flash", "deepseek-v4-pro"]
    for exchange in (newest, emulated):
        assert re.fullmatch(r"[0-9a-f]{32}", exchange.events[0]["system_fingerprint"])
