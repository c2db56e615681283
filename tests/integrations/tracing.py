"""Each tracing library sees every call of a client, the gateway continues its trace, and no span has a credential.

These tests are not collected with the rest, because one environment cannot hold all the libraries.
`nox -s tracing` runs each library in its own environment.
"""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import openai
import pytest
from calling import chat, run, streamed
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from deepseek_gateway import record_calls
from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOG_ID = "cloudflare.ai_gateway.log_id"


def by_instrumentor(module: str) -> Callable[[InMemorySpanExporter], Any]:
    def instrument(exporter: InMemorySpanExporter) -> TracerProvider:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        importlib.import_module(module).OpenAIInstrumentor().instrument(tracer_provider=provider)
        return provider

    return instrument


def by_logfire(exporter: InMemorySpanExporter) -> Any:
    logfire = importlib.import_module("logfire")
    processors = [SimpleSpanProcessor(exporter)]
    logfire.configure(send_to_logfire=False, console=False, additional_span_processors=processors)
    logfire.instrument_openai()
    return trace.get_tracer_provider()


def by_langfuse(exporter: InMemorySpanExporter) -> Any:
    provider = TracerProvider()
    keys = {"public_key": "pk-test", "secret_key": "sk-test", "base_url": "http://127.0.0.1:9"}
    langfuse = importlib.import_module("langfuse")
    langfuse.Langfuse(**keys, span_exporter=exporter, tracer_provider=provider)
    importlib.import_module("langfuse.openai")
    return provider


class Tracer(NamedTuple):
    """How a library is switched on, and where its spans have the prompt's tokens."""

    instrument: Callable[[InMemorySpanExporter], Any]
    tokens: Callable[[Any], Any]
    parent: bool = True
    """Whether the library's span is the current span while the call is made."""


def semantic(attributes: Any) -> Any:
    return attributes.get("gen_ai.usage.input_tokens")


TRACERS = {
    "opentelemetry-instrumentation-openai-v2": Tracer(
        by_instrumentor("opentelemetry.instrumentation.openai_v2"), semantic
    ),
    "opentelemetry-instrumentation-genai-openai": Tracer(
        by_instrumentor("opentelemetry.instrumentation.genai.openai"), semantic
    ),
    "openinference-instrumentation-openai": Tracer(
        by_instrumentor("openinference.instrumentation.openai"),
        lambda attributes: attributes.get("llm.token_count.prompt"),
    ),
    "logfire": Tracer(by_logfire, semantic),
    "langfuse": Tracer(
        by_langfuse,
        lambda attributes: json.loads(attributes.get("langfuse.observation.usage_details", "{}")).get("prompt_tokens"),
        parent=False,
    ),
}


class Tracing(NamedTuple):
    """A library that has been switched on."""

    tracer: Tracer
    provider: Any
    exporter: InMemorySpanExporter


@pytest.fixture(scope="module", params=TRACERS)
def tracing(request: pytest.FixtureRequest) -> Iterator[Tracing]:
    """Switch a library on for the whole process, with the text of prompts and answers where that is an option."""
    exporter, tracer = InMemorySpanExporter(), TRACERS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
        yield Tracing(tracer, tracer.instrument(exporter), exporter)


def refused(flavour: str, config: Any) -> None:
    with pytest.raises(openai.RateLimitError):
        run(flavour, config, chat, max_retries=0)


@pytest.mark.parametrize("kind", ["whole", "streamed", "refused"])
@pytest.mark.parametrize("flavour", ["sync", "httpx", "aiohttp"])
def test_library_sees_call_and_gateway_continues_its_trace(tracing: Tracing, flavour: str, kind: str) -> None:
    tracer, provider, exporter = tracing
    exporter.clear()
    with (
        Emulator() as emulator,
        record_calls() as calls,
        provider.get_tracer("tests").start_as_current_span("program") as program,
    ):
        config = emulator.config()
        if kind == "refused":
            emulator.fail_next(status=429)
            refused(flavour, config)
        else:
            run(flavour, config, streamed if kind == "streamed" else chat)
    provider.force_flush()
    spans = [span for span in exporter.get_finished_spans() if span.name != "program"]
    assert spans

    (request,), (call,) = emulator.requests, calls
    ids = {trace.format_span_id(span.get_span_context().span_id): span for span in (*spans, program)}
    assert request.headers["cf-aig-otel-trace-id"] == trace.format_trace_id(program.get_span_context().trace_id)
    parent = ids[request.headers["cf-aig-otel-parent-span-id"]]
    assert (parent is not program) == tracer.parent
    assert call.log_id
    assert parent.attributes[LOG_ID] == call.log_id

    if kind == "refused":
        assert [span.status.is_ok for span in spans] == [False]
        assert "429" in str(spans[0].status.description)
    else:
        assert call.usage
        assert call.usage.prompt_tokens in {tracer.tokens(span.attributes) for span in spans}
        assert "deepseek-flash" in str([span.attributes for span in spans])
    exported = str([span.to_json() for span in (*spans, program)])
    assert emulator.api_key not in exported
    assert emulator.gateway_token not in exported


CAPTURED = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST"
SANITISED = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS"


@pytest.mark.parametrize("sanitised", ["", ".*authorization,cf-access-.*"])
@pytest.mark.parametrize("flavour", ["sync", "httpx"])
@pytest.mark.parametrize("library", ["opentelemetry-instrumentation-httpx"])
def test_captured_headers_hold_credentials_unless_they_are_sanitised(
    library: str, flavour: str, sanitised: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CAPTURED, ".*")
    monkeypatch.setenv(SANITISED, sanitised)
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = importlib.import_module("opentelemetry.instrumentation.httpx").HTTPX2ClientInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    access = "test-access-" + "secret"
    try:
        with Emulator() as emulator:
            run(flavour, emulator.config(), chat, default_headers={"cf-access-client-secret": access})
    finally:
        instrumentor.uninstrument()
    (span,) = exporter.get_finished_spans()
    exported = span.to_json()
    assert "http.request.header.cf_aig_authorization" in exported
    for secret in (emulator.api_key, emulator.gateway_token, access):
        assert (secret in exported) == (not sanitised)
