"""Recorded calls, calls that are read from a response, and log lines."""

from __future__ import annotations

import asyncio
import contextvars
import gzip
import logging
import threading
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import openai
import pytest
from answers import AT_ONCE, DONE, LOGGED, SPENT, event, long_form, short_form
from calling import KEY, TOKEN, chat, collect, failing, run, streamed
from loopback import COMPLETION, Answer, Loopback, completion

from deepseek_gateway import GatewayCall, Usage, create_async_client, create_client, gateway_headers, record_calls

if TYPE_CHECKING:
    from calling import Call, ConfigAt

REPORTED = {
    **LOGGED,
    "cf-aig-cache-status": "HIT",
    "cf-aig-event-id": "event",
    "cf-aig-step": "1",
    "cf-aig-model": "deepseek-v4-pro",
    "cf-aig-provider": "deepseek",
    "x-ds-trace-id": "trace",
}
EXPECTED = {
    "status": 200,
    "cache_status": "HIT",
    "log_id": LOGGED["cf-aig-log-id"],
    "event_id": "event",
    "step": 1,
    "provider": "deepseek",
    "model": "deepseek-v4-pro",
    "ray_id": LOGGED["cf-ray"],
    "trace_id": "trace",
    "retry": 0,
}


def fields(call: GatewayCall) -> dict[str, Any]:
    return {name: getattr(call, name) for name in EXPECTED}


class TestRecordCalls:
    """A block of `record_calls()` keeps every exchange with the gateway that begins inside it."""

    def test_call_holds_every_value_that_the_gateway_reported(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer(COMPLETION, headers=REPORTED)
        with record_calls() as calls:
            call(config_at(gateway), chat)
        (recorded,) = calls
        assert fields(recorded) == EXPECTED
        assert recorded.elapsed is not None
        assert 0 < recorded.elapsed < 5

    def test_value_that_the_gateway_did_not_report_is_none(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        with record_calls() as calls:
            call(config_at(gateway, route="compat"), chat)
        assert fields(calls[0]) == dict.fromkeys(EXPECTED) | {
            "status": 200,
            "retry": 0,
            "model": "deepseek-flash",
        }

    def test_every_retry_is_recorded_as_a_separate_call(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        answers = [Answer(short_form(2005, "x"), 400, AT_ONCE), Answer(b"x", 500, AT_ONCE)]
        gateway.answer = lambda _: answers.pop(0) if answers else Answer(COMPLETION)
        with record_calls() as calls:
            call(config_at(gateway), chat)
        assert [(each.status, each.retry) for each in calls] == [(400, 0), (500, 1), (200, 2)]
        assert all(each.elapsed for each in calls)

    def test_call_keeps_the_status_200_of_an_error_that_is_raised_as_502(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer({"error": {"message": "no", "type": "t"}})
        with record_calls() as calls:
            error = failing(call, config_at(gateway), max_retries=0)
        assert (calls[0].status, error.status_code) == (200, 502)

    def test_call_without_a_response_has_no_status_but_has_model_and_elapsed(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        config = config_at(gateway, endpoint="http://127.0.0.1:9")
        with record_calls() as calls, pytest.raises(openai.APIConnectionError) as caught:
            call(config, chat, max_retries=0)
        (recorded,) = calls
        assert recorded.status is None
        assert recorded.elapsed is not None
        assert recorded.model == "deepseek-flash"
        assert GatewayCall.from_response(caught.value).model == "deepseek-flash"

    def test_call_with_a_truncated_body_keeps_its_status(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture
    ) -> None:
        headers = {"content-type": "application/json", **LOGGED}
        gateway.answer = lambda _: Answer((b"{",), headers=headers, ending="broken")
        with record_calls() as calls, pytest.raises(openai.APIConnectionError):
            call(config_at(gateway), chat, max_retries=0)
        (recorded,) = calls
        assert (recorded.status, recorded.log_id) == (200, LOGGED["cf-aig-log-id"])
        assert recorded.elapsed
        assert "no answer" not in caplog.text
        assert gateway.until(lambda: gateway.open_connections == 0)

    def test_block_that_ends_in_another_context_raises_nothing(self) -> None:
        block = record_calls()
        calls = contextvars.copy_context().run(block.__enter__)
        block.__exit__(None, None, None)
        assert calls == []

    def test_recording_changes_no_byte_of_a_download(self, gateway: Loopback, config_at: ConfigAt) -> None:
        body = gzip.compress(b"x" * 1000)
        headers = {"content-type": "application/octet-stream", "content-encoding": "gzip"}
        gateway.answer = lambda _: Answer(body, headers=headers)
        with (
            record_calls(),
            create_client(config_at(gateway)) as client,
            client.files.with_streaming_response.content("file-1") as response,
        ):
            assert b"".join(response.http_response.iter_raw()) == body

    def test_request_that_is_refused_before_traffic_is_not_recorded(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        with record_calls() as calls:
            failing(call, config_at(gateway), lambda client: chat(client, model="dynamic/x"))
        assert calls == []

    def test_stream_is_recorded_with_its_headers_and_elapsed_is_set_at_its_end(
        self, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer(
            (event("a"), event("b"), DONE), headers={"content-type": "text/event-stream", **REPORTED}
        )
        with record_calls() as calls, create_client(config_at(gateway)) as client:
            stream = streamed(client)
            assert fields(calls[0]) == EXPECTED
            assert calls[0].elapsed is None
            next(stream)
            assert calls[0].elapsed is None
            assert len(list(stream)) == 1
            assert calls[0].elapsed

    @pytest.mark.parametrize(
        "pieces", [(event("a"), event("b"), DONE), (event("a"), event("b")), ()], ids=["whole", "cut", "empty"]
    )
    def test_stream_is_recorded_once_whether_whole_or_cut(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, pieces: Any
    ) -> None:
        gateway.answer = lambda _: Answer(pieces)
        with record_calls() as calls:
            collect(flavour, config_at(gateway), streamed)
        (recorded,) = calls
        assert (recorded.status, bool(recorded.elapsed)) == (200, True)

    def test_elapsed_of_an_abandoned_stream_is_set_when_it_is_closed(
        self, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer((event("a"),), ending="stall")
        with record_calls() as calls, create_client(config_at(gateway)) as client:
            with streamed(client) as stream:
                next(stream)
            assert calls[0].elapsed

    def test_elapsed_of_a_streaming_response_is_set_at_its_end(self, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda _: Answer(b"x" * 100_000, headers={"content-type": "application/octet-stream"})
        with record_calls() as calls, create_client(config_at(gateway)) as client:
            with client.files.with_streaming_response.content("file-1") as response:
                assert calls[0].elapsed is None
                assert len(response.read()) == 100_000
            assert calls[0].elapsed

    def test_nested_blocks_both_keep_a_call_and_nothing_is_kept_outside_a_block(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        config = config_at(gateway)
        call(config, chat)
        with record_calls() as outer:
            call(config, chat)
            with record_calls() as inner:
                call(config, chat)
            call(config, chat)
        call(config, chat)
        assert (len(outer), len(inner)) == (3, 1)
        assert inner[0] is outer[1]

    def test_calls_in_tasks_and_in_threads_with_the_context_are_kept(
        self, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        config = config_at(gateway)

        def in_a_thread(context: contextvars.Context | None) -> None:
            work = lambda: run("sync", config, chat)  # noqa: E731
            thread = threading.Thread(target=context.run if context else work, args=(work,) if context else ())
            thread.start()
            thread.join()

        async def in_tasks() -> None:
            async with create_async_client(config) as client:
                await asyncio.gather(*(asyncio.create_task(chat(client)) for _ in range(5)))
                await asyncio.to_thread(run, "sync", config, chat)

        with record_calls() as calls:
            in_a_thread(contextvars.copy_context())
            assert len(calls) == 1
            in_a_thread(None)
            assert len(calls) == 1, "a thread without the context of the block was recorded"
            asyncio.run(in_tasks())
        assert len(calls) == 7

    def test_call_of_a_client_made_before_the_block_is_kept(self, gateway: Loopback, config_at: ConfigAt) -> None:
        with create_client(config_at(gateway)) as client, record_calls() as calls:
            chat(client.with_options(timeout=5))
        assert len(calls) == 1

    def test_call_to_a_url_outside_the_base_url_is_not_recorded(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        with record_calls() as calls:
            for url in (f"{gateway.url}/other", "http://127.0.0.1:9"):
                with suppress(openai.APIConnectionError):
                    call(config_at(gateway), lambda c, u=url: chat(c.with_options(base_url=u)), max_retries=0)
        assert calls == []


class TestFromResponse:
    """`GatewayCall.from_response()` reads the same values from any object that holds a response."""

    def test_call_is_read_from_raw_responses_streams_and_errors(self, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda _: Answer(COMPLETION, headers=REPORTED)
        with create_client(config_at(gateway)) as client:
            raw = chat(client.with_raw_response)
            for response in (raw, raw.http_response):
                call = GatewayCall.from_response(response)
                assert fields(call) == EXPECTED
                assert call.elapsed
                assert call.usage == Usage(prompt_tokens=3, completion_tokens=2)
                assert (call.route, call.adapted) == (None, ())
            with chat(client.with_streaming_response) as response:
                assert fields(GatewayCall.from_response(response)) == EXPECTED
            gateway.answer = lambda _: Answer(
                (event("a"), DONE), headers={"content-type": "text/event-stream", **REPORTED}
            )
            stream = streamed(client)
            assert fields(GatewayCall.from_response(stream)) == EXPECTED
            assert GatewayCall.from_response(stream).elapsed is None
            list(stream)
            assert GatewayCall.from_response(stream).elapsed
            gateway.answer = lambda _: Answer(short_form(2009, "Unauthorized"), 401, REPORTED)
            with pytest.raises(openai.AuthenticationError) as caught:
                chat(client)
            assert fields(GatewayCall.from_response(caught.value)) == EXPECTED | {"status": 401}

    def test_call_of_a_request_without_a_retry_count_is_the_first_try(self) -> None:
        httpx: Any = import_module(openai.DefaultHttpxClient.__base__.__module__)  # type: ignore[union-attr]
        for headers, retry in (({}, 0), ({"x-stainless-retry-count": "1"}, 1)):
            request = httpx.Request("POST", "http://127.0.0.1/", headers=headers, json={"model": "m"})
            call = GatewayCall.from_response(httpx.Response(200, request=request, json={}))
            assert (call.retry, call.model, call.usage) == (retry, "m", None)

    def test_object_without_a_response_raises_type_error(self) -> None:
        with pytest.raises(TypeError, match="str holds no HTTP response"):
            GatewayCall.from_response("text")


class TestLog:
    """Each exchange is one INFO line, and each error a WARNING with the remedy. No line holds a secret."""

    def test_exchange_is_logged_in_one_info_line(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="deepseek_gateway")
        gateway.answer = lambda _: Answer(COMPLETION, headers=REPORTED)
        call(config_at(gateway), chat)
        (line,) = [record for record in caplog.records if record.name == "deepseek_gateway"]
        assert line.levelno == logging.INFO
        head, _, elapsed = line.getMessage().removesuffix(" s").rpartition(" ")
        assert head == f"POST /chat/completions 200 cache=HIT log={LOGGED['cf-aig-log-id']}"
        assert float(elapsed) < 5

    def test_value_that_the_gateway_did_not_report_is_a_dash_in_the_log(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="deepseek_gateway")
        call(config_at(gateway), lambda client: client.get("/models?x=1", cast_to=object))
        (line,) = [record.getMessage() for record in caplog.records if record.name == "deepseek_gateway"]
        assert line.startswith("GET /models 200 cache=- log=- ")

    @pytest.mark.parametrize("pieces", [(event("a"), DONE), (event("a"),)], ids=["whole", "cut"])
    def test_stream_is_logged_in_one_line(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture, pieces: Any
    ) -> None:
        caplog.set_level(logging.INFO, logger="deepseek_gateway")
        gateway.answer = lambda _: Answer(pieces)
        collect(flavour, config_at(gateway), streamed)
        assert len([record for record in caplog.records if record.name == "deepseek_gateway"]) == 1

    def test_error_is_logged_as_a_warning_with_remedy_and_request_id(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway.answer = lambda _: Answer(long_form(429, 2045, SPENT), 429, LOGGED)
        failing(call, config_at(gateway))
        (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert "a spend limit of this gateway is reached" in warning
        assert "; wait until its period is over, or raise " in warning
        assert warning.endswith(f" (request id {LOGGED['cf-aig-log-id']})")

    def test_exchange_without_a_response_is_logged_with_the_exception(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="deepseek_gateway")
        with pytest.raises(openai.APIConnectionError):
            call(config_at(gateway, endpoint="http://127.0.0.1:9"), chat, max_retries=0)
        # The exception is ConnectError, or ConnectTimeout with aiohttp.
        assert "POST /chat/completions no answer (Connect" in caplog.text

    def test_log_lines_name_neither_account_nor_gateway_nor_host_nor_secret(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="deepseek_gateway")
        gateway.answer = lambda request: (
            Answer(long_form(401, 2009, "x"), 401) if "stream" in request.json else completion(request)
        )
        config = config_at(gateway)
        call(config, lambda client: chat(client, extra_headers=gateway_headers(event_id="e")))
        failing(call, config, streamed)
        ours = "\n".join(record.getMessage() for record in caplog.records if record.name == "deepseek_gateway")
        assert len(ours.splitlines()) == 3
        assert not [word for word in (KEY, TOKEN, "acct", "my-gateway", "127.0.0.1") if word in ours]

    def test_package_configures_no_logging_so_that_python_shows_its_warnings(self) -> None:
        logger = logging.getLogger("deepseek_gateway")
        assert logger.handlers == []
        assert (logger.level, logger.propagate) == (logging.NOTSET, True)
