"""JSON in place of a stream becomes the events of that stream. Over real sockets, for every flavour of client."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from answers import LOGGED, RESPONSE
from calling import chat, collect, failing, responses_streamed, run, streamed
from loopback import COMPLETION, Answer, Loopback

if TYPE_CHECKING:
    from calling import Call, ConfigAt

TOOL = {"id": "call_00_x", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
FULL = {
    **COMPLETION,
    "system_fingerprint": "fp",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hello.",
                "reasoning_content": "Hm.",
                "tool_calls": [{"index": 0, **TOOL}],
            },
            "logprobs": None,
            "finish_reason": "tool_calls",
        },
        {
            "index": 1,
            "message": {"role": "assistant", "content": "Other."},
            "logprobs": None,
            "finish_reason": "length",
        },
    ],
}


class TestJsonInPlaceOfAStream:
    """With guardrails, a streamed call is answered with one JSON body (features/guardrails/usage-considerations)."""

    def test_completion_becomes_chunks_and_the_last_has_the_usage(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer(FULL, headers=LOGGED)
        got = collect(flavour, config_at(gateway), streamed)
        assert got.error is None
        assert {(chunk.id, chunk.object, chunk.model, chunk.system_fingerprint) for chunk in got} == {
            (FULL["id"], "chat.completion.chunk", "deepseek-flash", "fp")
        }
        deltas = [(chunk.choices[0].index, chunk.choices[0].delta.model_dump(exclude_unset=True)) for chunk in got]
        assert deltas == [
            (0, {"role": "assistant"}),
            (0, {"reasoning_content": "Hm."}),
            (0, {"content": "Hello."}),
            (0, {"tool_calls": [{"index": 0, **TOOL}]}),
            (1, {"role": "assistant"}),
            (1, {"content": "Other."}),
        ]
        assert [chunk.choices[0].finish_reason for chunk in got] == [None, None, None, "tool_calls", None, "length"]
        assert [chunk.usage and chunk.usage.total_tokens for chunk in got] == [None] * 5 + [5]

    def test_stream_helper_collects_a_completion_from_json(self, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda _: Answer({**FULL, "choices": FULL["choices"][:1]})

        def use(client: Any) -> Any:
            resource = (
                client.chat.completions if hasattr(client.chat.completions, "stream") else client.beta.chat.completions
            )
            with resource.stream(model="deepseek-flash", messages=[]) as stream:
                return stream.get_final_completion()

        final = run("sync", config_at(gateway), use).choices[0]
        assert (final.message.content, final.finish_reason) == ("Hello.", "tool_calls")
        assert final.message.tool_calls[0].function.arguments == '{"a": 1}'

    def test_response_becomes_its_events_in_sequence(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        text = {"type": "output_text", "text": "Hello.", "annotations": []}
        output = [
            {"id": "rs", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
            {"id": "msg", "type": "message", "role": "assistant", "status": "completed", "content": [text]},
            {
                "id": "fc",
                "type": "function_call",
                "call_id": "c",
                "name": "f",
                "arguments": "{}",
                "status": "completed",
            },
        ]
        answer = {**RESPONSE, "output": output, "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}}
        gateway.answer = lambda _: Answer(answer)
        got = collect(flavour, config_at(gateway), responses_streamed)
        assert got.error is None
        part = ["content_part.added", "{}.delta", "{}.done", "content_part.done"]
        assert [item.type.removeprefix("response.") for item in got] == [
            "created",
            "in_progress",
            "output_item.added",
            *(name.format("reasoning_text") for name in part),
            "output_item.done",
            "output_item.added",
            *(name.format("output_text") for name in part),
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
        assert [item.sequence_number for item in got] == list(range(len(got)))
        last = got[-1].response
        assert (last if isinstance(last, dict) else last.model_dump(exclude_unset=True))["usage"] == answer["usage"]

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            (b"<html>portal</html>", "text/html"),
            (b"\n <title>portal</title>", "text/html"),
            (b'{"hello": 1}', "application/json"),
            (b"[]", "application/json"),
            (b"", "application/json"),
        ],
        ids=["page", "indented page", "another object", "list", "empty body"],
    )
    def test_body_that_is_not_a_result_raises_an_upstream_error(
        self,
        call: Call,
        gateway: Loopback,
        config_at: ConfigAt,
        caplog: pytest.LogCaptureFixture,
        body: bytes,
        kind: str,
    ) -> None:
        gateway.answer = lambda _: Answer(body, headers={"content-type": kind})
        error = failing(call, config_at(gateway), streamed)
        assert (error.status_code, error.type) == (502, "upstream_error")
        what = f"200 came with {kind} in place of a stream"
        shown = "portal" if b"portal" in body else body.decode() or "an empty body"
        assert error.body["message"] == f"{what}: {shown}"
        assert error.body["original"] == body.decode()
        assert [record.getMessage() for record in caplog.records] == [f"502 upstream_error: {what}"]
        assert len(gateway.received) == 1

    def test_legacy_completion_becomes_one_chunk(self, flavour: str, gateway: Loopback, config_at: ConfigAt) -> None:
        answer = {
            "id": "x",
            "object": "text_completion",
            "created": 1,
            "model": "m",
            "choices": [{"text": "Hi", "index": 0, "finish_reason": "stop", "logprobs": None}],
        }
        gateway.answer = lambda _: Answer(answer)
        got = collect(
            flavour, config_at(gateway), lambda client: client.completions.create(model="m", prompt="p", stream=True)
        )
        assert (got.error, [chunk.choices[0].text for chunk in got]) == (None, ["Hi"])

    def test_raw_bytes_of_a_json_result_can_still_be_read(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        body = json.dumps(COMPLETION).encode()

        def use(client: Any) -> Any:
            if flavour == "sync":
                with chat(client.with_streaming_response) as response:
                    return b"".join(response.http_response.iter_raw())

            async def main() -> bytes:
                async with chat(client.with_streaming_response) as response:
                    return b"".join([chunk async for chunk in response.http_response.aiter_raw()])

            return main()

        assert run(flavour, config_at(gateway), use) == body
