"""Trace a call with OpenTelemetry: `python tracing.py "What is Cloudflare?"` prints the answer and the span."""

import sys

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from deepseek_gateway import create_client

# A real program exports to a collector, with BatchSpanProcessor and OTLPSpanExporter.
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=sys.stderr)))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("tracing")


def main() -> None:
    """Ask inside a span. The gateway's own span becomes its child, and the span gets the id of the gateway's log."""
    messages = [{"role": "user", "content": sys.argv[1]}]
    with create_client() as client, tracer.start_as_current_span("ask"):
        completion = client.chat.completions.create(model="deepseek-flash", messages=messages)
    print(completion.choices[0].message.content)


if __name__ == "__main__":
    main()
