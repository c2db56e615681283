"""JSON in place of a stream becomes the events of that stream. Over real sockets, for every flavour of client."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from answers import LOGGED, RESPONSE
from calling import chat, collect, failing, responses_streamed, run, streamed, warnings_in
from loopback import COMPLETION, Answer, Loopback

from deepseek_gateway import create_client
from deepseek_gateway._events import as_events

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

    def test_events_that_are_made_of_json_are_labelled_as_a_stream(
        self, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer(FULL)
        with (
            create_client(config_at(gateway)) as client,
            chat(client.with_streaming_response, stream=True) as response,
        ):
            assert response.headers.get_list("content-type") == ["text/event-stream"]
            assert response.headers["content-length"] == str(len(response.read()))

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
        assert warnings_in(caplog) == [f"502 upstream_error: {what}"]
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


def events_of(body: bytes) -> list[Any]:
    """Read an event stream. An event with a name becomes its name and its data."""
    events: list[Any] = []
    for block in body.decode().removesuffix("\n\n").split("\n\n"):
        *name, data = block.split("\n")
        value = data.removeprefix("data: ")
        parsed = value if value == "[DONE]" else json.loads(value)
        events.append((name[0].removeprefix("event: "), parsed) if name else parsed)
    return events


class TestEveryMember:
    """Each event has the members that OpenAI's API gives it. What the JSON lacks gets OpenAI's value for nothing."""

    def test_chunks_of_a_completion(self) -> None:
        answer = {
            "id": "x",
            "object": "chat.completion",
            "model": "m",
            "choices": [
                {
                    "message": {"content": "Hello.", "refusal": None, "reasoning_content": "Hm."},
                    "finish_reason": "stop",
                },
                {
                    "index": 7,
                    "message": {"role": "tool", "content": None, "tool_calls": [TOOL, {**TOOL, "index": 5}]},
                    "logprobs": {"content": []},
                },
            ],
            "usage": {"total_tokens": 5},
        }
        before = json.dumps(answer)

        def chunk(index: int, delta: Any, finish_reason: Any = None, logprobs: Any = None, **more: Any) -> Any:
            choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
            return {"id": "x", "model": "m", "object": "chat.completion.chunk", "choices": [choice], **more}

        assert events_of(as_events(answer)) == [
            chunk(0, {"role": "assistant"}),
            chunk(0, {"reasoning_content": "Hm."}),
            chunk(0, {"content": "Hello."}, "stop"),
            chunk(7, {"role": "tool"}),
            chunk(7, {"tool_calls": [{"index": 0, **TOOL}]}),
            chunk(7, {"tool_calls": [{**TOOL, "index": 5}]}, logprobs={"content": []}, usage={"total_tokens": 5}),
            "[DONE]",
        ]
        assert json.dumps(answer) == before

    def test_completion_without_usage_becomes_chunks_without_usage(self) -> None:
        answer = {"object": "chat.completion", "choices": [{"message": {"content": "Hi"}}]}
        assert [chunk for chunk in events_of(as_events(answer))[:-1] if "usage" in chunk] == []

    @pytest.mark.parametrize(
        ("status", "last"),
        [("completed", "completed"), ("incomplete", "incomplete"), ("failed", "failed"), ("queued", "completed")],
    )
    def test_last_event_of_a_response_fits_its_status(self, status: str, last: str) -> None:
        answer = {**RESPONSE, "status": status, "output": None}
        begun = {**answer, "status": "in_progress", "output": []}
        assert events_of(as_events(answer)) == [
            (name, {"type": name, "response": response, "sequence_number": number})
            for number, (name, response) in enumerate(
                [("response.created", begun), ("response.in_progress", begun), (f"response.{last}", answer)]
            )
        ]

    TEXT = {"type": "output_text", "text": "Hello.", "logprobs": [{"token": "Hello."}]}
    PROBABILITIES = {"logprobs": [{"token": "Hello."}]}
    AT = {"item_id": "i", "content_index": 0}
    # The columns are: an item of the output, the same item as it begins, and its events in between.
    ITEMS: dict[str, tuple[dict[str, Any], dict[str, Any], list[tuple[str, dict[str, Any]]]]] = {
        "text": (
            {"id": "i", "status": "completed", "content": [TEXT]},
            {"id": "i", "status": "in_progress", "content": []},
            [
                ("content_part.added", {**AT, "part": {**TEXT, "text": ""}}),
                ("output_text.delta", {**AT, "delta": "Hello.", **PROBABILITIES}),
                ("output_text.done", {**AT, "text": "Hello.", **PROBABILITIES}),
                ("content_part.done", {**AT, "part": TEXT}),
            ],
        ),
        "text without its members, in an item without an id": (
            {"content": [{"type": "output_text"}]},
            {"content": []},
            [
                ("content_part.added", {**AT, "item_id": "", "part": {"type": "output_text", "text": ""}}),
                ("output_text.delta", {**AT, "item_id": "", "delta": "", "logprobs": []}),
                ("output_text.done", {**AT, "item_id": "", "text": "", "logprobs": []}),
                ("content_part.done", {**AT, "item_id": "", "part": {"type": "output_text"}}),
            ],
        ),
        "refusal": (
            {"id": "i", "content": [{"type": "refusal", "refusal": "No."}]},
            {"id": "i", "content": []},
            [
                ("content_part.added", {**AT, "part": {"type": "refusal", "refusal": ""}}),
                ("refusal.delta", {**AT, "delta": "No."}),
                ("refusal.done", {**AT, "refusal": "No."}),
                ("content_part.done", {**AT, "part": {"type": "refusal", "refusal": "No."}}),
            ],
        ),
        "thoughts": (
            {"id": "i", "content": [{"type": "reasoning_text", "text": "Hm."}]},
            {"id": "i", "content": []},
            [
                ("content_part.added", {**AT, "part": {"type": "reasoning_text", "text": ""}}),
                ("reasoning_text.delta", {**AT, "delta": "Hm."}),
                ("reasoning_text.done", {**AT, "text": "Hm."}),
                ("content_part.done", {**AT, "part": {"type": "reasoning_text", "text": "Hm."}}),
            ],
        ),
        "two parts of an unknown type": (
            {"id": "i", "content": [{"type": "audio"}, {"type": "video"}]},
            {"id": "i", "content": []},
            [
                ("content_part.added", {**AT, "part": {"type": "audio"}}),
                ("content_part.done", {**AT, "part": {"type": "audio"}}),
                ("content_part.added", {**AT, "content_index": 1, "part": {"type": "video"}}),
                ("content_part.done", {**AT, "content_index": 1, "part": {"type": "video"}}),
            ],
        ),
        "function call": (
            {"id": "i", "name": "f", "arguments": "{}"},
            {"id": "i", "name": "f", "arguments": ""},
            [
                ("function_call_arguments.delta", {"item_id": "i", "delta": "{}"}),
                ("function_call_arguments.done", {"item_id": "i", "name": "f", "arguments": "{}"}),
            ],
        ),
        "function call without a name": (
            {"id": "i", "arguments": "{}"},
            {"id": "i", "arguments": ""},
            [
                ("function_call_arguments.delta", {"item_id": "i", "delta": "{}"}),
                ("function_call_arguments.done", {"item_id": "i", "name": "", "arguments": "{}"}),
            ],
        ),
        "item of an unknown type": ({"id": "i", "type": "new"}, {"id": "i", "type": "new"}, []),
    }

    @pytest.mark.parametrize(("item", "begun", "between"), ITEMS.values(), ids=ITEMS)
    def test_events_of_the_second_item_of_a_response(self, item: Any, begun: Any, between: Any) -> None:
        expected = [("output_item.added", {"item": begun}), *between, ("output_item.done", {"item": item})]
        events = events_of(as_events({**RESPONSE, "output": [{"id": "first"}, item]}))
        assert events[4:-1] == [
            (kind, {"type": kind, "sequence_number": number, "output_index": 1, **members})
            for number, (name, members) in enumerate(expected, 4)
            for kind in [f"response.{name}"]
        ]
