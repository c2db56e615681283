"""OpenTelemetry: the gateway continues the trace of the program, and the span tells what the gateway reported."""

from __future__ import annotations

import asyncio
import contextvars
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from answers import AT_ONCE, DONE, LOGGED, event, short_form
from calling import FLAVOURS, KEY, TOKEN, chat, failing, streamed
from loopback import COMPLETION, Answer, Loopback, serve

from deepseek_gateway import create_async_client, create_client, gateway_headers

if TYPE_CHECKING:
    from calling import Call, ConfigAt

ABSENT = "OpenTelemetry is not installed: see the dependency group `tracing`"
trace = pytest.importorskip("opentelemetry.trace", reason=ABSENT)
sdk = pytest.importorskip("opentelemetry.sdk.trace", reason=ABSENT)
export = pytest.importorskip("opentelemetry.sdk.trace.export", reason=ABSENT)
in_memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter", reason=ABSENT)
sampling = pytest.importorskip("opentelemetry.sdk.trace.sampling", reason=ABSENT)

TRACE_ID, PARENT_ID = "cf-aig-otel-trace-id", "cf-aig-otel-parent-span-id"
OWN = {TRACE_ID: "4bf92f3577b34da6a3ce929d0e0e4736", PARENT_ID: "00f067aa0ba902b7"}
REPORTED = {**LOGGED, "cf-aig-cache-status": "MISS", "cf-aig-step": "1"}
EXPECTED = {
    "cloudflare.ai_gateway.log_id": LOGGED["cf-aig-log-id"],
    "cloudflare.ai_gateway.cache_status": "MISS",
    "cloudflare.ai_gateway.step": 1,
}

COMMON = """
import pickle, sys
from deepseek_gateway import create_client

client = create_client(pickle.loads(bytes.fromhex(sys.argv[1])), max_retries=0)

def chat():
    client.chat.completions.create(model="deepseek-flash", messages=[{"role": "user", "content": "x"}])
"""
FORKING = """
import os
from opentelemetry.sdk.trace import TracerProvider

with TracerProvider(shutdown_on_exit=False).get_tracer("tests").start_as_current_span("program"):
    chat()
    if not (child := os.fork()):
        chat()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
UNTRACED = """
chat()
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""


@pytest.fixture
def exporter() -> Any:
    return in_memory.InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: Any) -> Any:
    provider = sdk.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    return provider.get_tracer("tests")


def ids_of(span: Any) -> tuple[str, str]:
    context = span.get_span_context()
    return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)


def ids_received(gateway: Loopback) -> list[tuple[str | None, str | None]]:
    return [(received.header(TRACE_ID), received.header(PARENT_ID)) for received in gateway.received]


def run_program(program: str, config: Any) -> None:
    command = [sys.executable, "-c", COMMON + program, pickle.dumps(config).hex()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr


class TestHeaders:
    """A call under a recording span carries the ids of that span."""

    @pytest.mark.parametrize("use", [chat, streamed])
    @pytest.mark.parametrize("route", ["provider", "compat", "rest"])
    def test_call_under_a_span_sends_its_trace_id_and_span_id(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, tracer: Any, route: str, use: Any
    ) -> None:
        with tracer.start_as_current_span("program") as span:
            call(config_at(gateway, route=route), use)
        assert ids_received(gateway) == [ids_of(span)]

    def test_ids_with_leading_zeros_keep_their_length(self, gateway: Loopback, config_at: ConfigAt) -> None:
        small = sdk.RandomIdGenerator()
        small.generate_trace_id, small.generate_span_id = (lambda: 0xAB), (lambda: 0xC)
        tracer = sdk.TracerProvider(id_generator=small, shutdown_on_exit=False).get_tracer("tests")
        with tracer.start_as_current_span("program"), create_client(config_at(gateway)) as client:
            chat(client)
        assert ids_received(gateway) == [("ab".rjust(32, "0"), "c".rjust(16, "0"))]

    def test_call_after_a_span_sends_no_ids_and_every_span_has_its_own(
        self, gateway: Loopback, config_at: ConfigAt, tracer: Any
    ) -> None:
        expected: list[Any] = []
        with create_client(config_at(gateway)) as client:
            for _ in range(2):
                chat(client)
                with tracer.start_as_current_span("program") as span:
                    chat(client)
                expected += [(None, None), ids_of(span)]
        assert ids_received(gateway) == expected

    def test_every_retry_sends_the_ids(self, call: Call, gateway: Loopback, config_at: ConfigAt, tracer: Any) -> None:
        answers = [Answer(b"x", 500, AT_ONCE)]
        gateway.answer = lambda _: answers.pop() if answers else Answer(COMPLETION)
        with tracer.start_as_current_span("program") as span:
            call(config_at(gateway), chat)
        assert ids_received(gateway) == [ids_of(span)] * 2

    def test_span_that_does_not_record_sends_no_ids(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        remote = trace.SpanContext(0xAB, 0xC, is_remote=True, trace_flags=trace.TraceFlags(1))
        unsampled = sdk.TracerProvider(sampler=sampling.ALWAYS_OFF, shutdown_on_exit=False).get_tracer("tests")
        for span in (trace.INVALID_SPAN, trace.NonRecordingSpan(remote), unsampled.start_span("program")):
            with trace.use_span(span):
                call(config_at(gateway), chat)
        assert ids_received(gateway) == [(None, None)] * 3

    @pytest.mark.parametrize("module", [None, ModuleType("opentelemetry.trace")], ids=["not", "not wholly"])
    def test_call_sends_no_ids_while_opentelemetry_is_not_imported(
        self, gateway: Loopback, config_at: ConfigAt, tracer: Any, monkeypatch: pytest.MonkeyPatch, module: Any
    ) -> None:
        with tracer.start_as_current_span("program"), create_client(config_at(gateway)) as client:
            monkeypatch.setitem(sys.modules, "opentelemetry.trace", module)
            chat(client)
        assert ids_received(gateway) == [(None, None)]

    @pytest.mark.parametrize("given", [OWN, {TRACE_ID: OWN[TRACE_ID]}, {PARENT_ID.title(): OWN[PARENT_ID]}])
    @pytest.mark.parametrize("option", ["extra_headers", "default_headers"])
    def test_ids_that_the_caller_gives_win_and_none_is_added(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, tracer: Any, option: str, given: dict[str, str]
    ) -> None:
        with tracer.start_as_current_span("program"):
            if option == "extra_headers":
                call(config_at(gateway), lambda client: chat(client, extra_headers=given))
            else:
                call(config_at(gateway), chat, default_headers=given)
        lowered = {name.lower(): value for name, value in given.items()}
        assert ids_received(gateway) == [(lowered.get(TRACE_ID), lowered.get(PARENT_ID))]

    def test_ids_of_gateway_headers_win(self, gateway: Loopback, config_at: ConfigAt, tracer: Any) -> None:
        options = gateway_headers(otel_trace_id=OWN[TRACE_ID], otel_parent_span_id=OWN[PARENT_ID])
        with tracer.start_as_current_span("program"), create_client(config_at(gateway)) as client:
            chat(client.with_options(default_headers=options))
        assert ids_received(gateway) == [(OWN[TRACE_ID], OWN[PARENT_ID])]

    def test_deepseek_itself_gets_no_ids(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, tracer: Any, exporter: Any
    ) -> None:
        gateway.answer = lambda _: Answer(COMPLETION, headers=REPORTED)
        with tracer.start_as_current_span("program"):
            call(config_at(gateway, route="direct", endpoint=None, direct_endpoint=gateway.url), chat)
        assert not [name for name, _ in gateway.last.headers if name.startswith("cf-")]
        assert exporter.get_finished_spans()[0].attributes == {}

    def test_fallback_to_deepseek_itself_sends_no_ids(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, tracer: Any
    ) -> None:
        gateway.answer = lambda _: Answer(b"<html>", 522, {"server": "cloudflare", "content-type": "text/html"})
        with serve() as deepseek, tracer.start_as_current_span("program") as span:
            call(config_at(gateway, fallback="direct", direct_endpoint=deepseek.url), chat)
        assert ids_received(gateway) == [ids_of(span)]
        assert not [name for name, _ in deepseek.last.headers if name.startswith("cf-")]

    def test_url_outside_the_base_url_gets_no_ids_and_writes_no_attributes(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, tracer: Any, exporter: Any
    ) -> None:
        gateway.answer = lambda _: Answer(COMPLETION, headers=REPORTED)
        with tracer.start_as_current_span("program"):
            call(config_at(gateway), lambda client: chat(client.with_options(base_url=f"{gateway.url}/elsewhere")))
        assert ids_received(gateway) == [(None, None)]
        assert exporter.get_finished_spans()[0].attributes == {}


class TestAttributes:
    """The span of a call has what the gateway reported as attributes."""

    @pytest.mark.usefixtures("info_logging")
    def test_span_has_log_id_cache_status_and_step(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, tracer: Any, exporter: Any
    ) -> None:
        gateway.answer = lambda _: Answer(COMPLETION, headers=REPORTED)
        with tracer.start_as_current_span("program"):
            call(config_at(gateway), chat)
        assert exporter.get_finished_spans()[0].attributes == EXPECTED

    def test_span_has_attributes_before_the_first_event_of_a_stream(
        self, gateway: Loopback, config_at: ConfigAt, tracer: Any
    ) -> None:
        gateway.answer = lambda _: Answer((event("a"), DONE), headers=REPORTED)
        with tracer.start_as_current_span("program") as span, create_client(config_at(gateway)) as client:
            stream = streamed(client)
            assert span.attributes == EXPECTED
            list(stream)

    def test_span_has_attributes_of_an_error(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, tracer: Any, exporter: Any
    ) -> None:
        gateway.answer = lambda _: Answer(short_form(2003, "Rate limited"), 429, LOGGED)
        with tracer.start_as_current_span("program"):
            failing(call, config_at(gateway), max_retries=0)
        log_id = {"cloudflare.ai_gateway.log_id": LOGGED["cf-aig-log-id"]}
        assert exporter.get_finished_spans()[0].attributes == log_id

    @pytest.mark.parametrize("headers", [{}, {"cf-aig-step": "one", "cf-aig-log-id": ""}], ids=["absent", "unreadable"])
    def test_value_that_the_gateway_did_not_report_makes_no_attribute(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, tracer: Any, exporter: Any, headers: dict[str, str]
    ) -> None:
        gateway.answer = lambda _: Answer(COMPLETION, headers=headers)
        with tracer.start_as_current_span("program"):
            call(config_at(gateway), chat)
        assert exporter.get_finished_spans()[0].attributes == {}

    def test_credential_that_the_gateway_echoes_is_redacted(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, tracer: Any, exporter: Any
    ) -> None:
        echoed = {"cf-aig-log-id": f"log-{TOKEN}", "cf-aig-cache-status": f"HIT {KEY}"}
        gateway.answer = lambda _: Answer(COMPLETION, headers=echoed)
        with tracer.start_as_current_span("program"):
            call(config_at(gateway), chat)
        exported = exporter.get_finished_spans()[0].to_json()
        assert "log-" in exported
        assert TOKEN not in exported
        assert KEY not in exported

    def test_span_that_ends_during_the_call_stays_as_it_is(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, tracer: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        span = tracer.start_span("program")

        def end_span(_: Any) -> Answer:
            span.end()
            return Answer(COMPLETION, headers=REPORTED)

        gateway.answer = end_span
        with trace.use_span(span):
            call(config_at(gateway), chat)
        assert span.attributes == {}
        assert "ended span" not in caplog.text


class TestConcurrency:
    """The span is that of the caller's context, in threads, tasks and processes."""

    def test_threads_with_a_copy_of_the_context_send_its_span(
        self, gateway: Loopback, config_at: ConfigAt, tracer: Any
    ) -> None:
        spans = [tracer.start_span(f"program {number}") for number in range(4)]
        together = threading.Barrier(4)

        def ask(client: Any) -> None:
            together.wait(10)
            chat(client)

        with create_client(config_at(gateway)) as client, ThreadPoolExecutor(4) as pool:
            for span in spans:
                with trace.use_span(span):
                    pool.submit(contextvars.copy_context().run, ask, client)
        assert set(ids_received(gateway)) == set(map(ids_of, spans))

    def test_to_thread_sends_the_span_of_the_task(self, gateway: Loopback, config_at: ConfigAt, tracer: Any) -> None:
        async def main() -> Any:
            with tracer.start_as_current_span("program") as span, create_client(config_at(gateway)) as client:
                await asyncio.to_thread(chat, client)
            return span

        span = asyncio.run(main())
        assert ids_received(gateway) == [ids_of(span)]

    @pytest.mark.parametrize("transport", FLAVOURS[1:])
    def test_tasks_at_the_same_time_send_their_own_spans(
        self, gateway: Loopback, config_at: ConfigAt, tracer: Any, exporter: Any, transport: Any
    ) -> None:
        arrived = threading.Barrier(8)

        def answer(received: Any) -> Answer:
            arrived.wait(10)
            return Answer(COMPLETION, headers={"cf-aig-log-id": received.header(PARENT_ID)})

        gateway.answer = answer

        async def ask(client: Any) -> None:
            with tracer.start_as_current_span("program"):
                await chat(client)

        async def main() -> None:
            async with create_async_client(config_at(gateway), transport=transport) as client:
                await asyncio.gather(*(ask(client) for _ in range(8)))

        asyncio.run(main())
        spans = exporter.get_finished_spans()
        assert len(spans) == 8
        assert all(dict(span.attributes) == {"cloudflare.ai_gateway.log_id": ids_of(span)[1]} for span in spans)

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
    def test_child_after_a_fork_sends_the_span_of_its_parent(self, gateway: Loopback, config_at: ConfigAt) -> None:
        run_program(FORKING, config_at(gateway))
        first, second = ids_received(gateway)
        assert first == second
        assert first != (None, None)


def test_program_without_spans_never_imports_opentelemetry(gateway: Loopback, config_at: ConfigAt) -> None:
    run_program(UNTRACED, config_at(gateway))
    assert ids_received(gateway) == [(None, None)]
