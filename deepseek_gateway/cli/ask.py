"""The command `ask`: one question, its answer as it arrives, and a closing line."""

from __future__ import annotations

import json
import sys
import traceback
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

import typer

from deepseek_gateway._calls import GatewayCall, record_calls
from deepseek_gateway._client import create_client
from deepseek_gateway._model import model_named
from deepseek_gateway._request import request_facts
from deepseek_gateway._settings import VARIABLE

from .options import explanation, printable, say, styled, without_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping
    from io import TextIOWrapper

    from deepseek_gateway._codes import RequestFacts
    from deepseek_gateway._config import GatewayConfig


def arguments(  # noqa: PLR0913  # one for each option
    *,
    prompt: str,
    model: str,
    system: str | None = None,
    thinking: bool = True,
    streamed: bool = True,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Make the arguments of the SDK's `create()`."""
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    made: dict[str, Any] = {"model": model, "messages": messages, "extra_headers": headers}
    if streamed:  # DeepSeek sends the usage unasked, but the provider of a dynamic route may not
        made |= {"stream": True, "stream_options": {"include_usage": True}}
    if not thinking:
        made["extra_body"] = {"thinking": {"type": "disabled"}}
    return made


@dataclass
class Answer:
    """What has arrived so far."""

    text: str = ""
    thinking: str = ""
    chunks: int = 0
    model: str | None = None
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict[str, Any])

    def add(self, chunk: Any) -> tuple[str, str]:
        """Add a chunk or a whole completion, even one without its usual members; return its thinking and its text."""
        self.chunks += 1
        self.model = getattr(chunk, "model", None) or self.model
        if usage := getattr(chunk, "usage", None):
            self.usage = usage.model_dump(exclude_none=True)
        thinking = text = ""
        for choice in getattr(chunk, "choices", None) or ():
            part = choice.message if hasattr(choice, "message") else choice.delta
            thinking += getattr(part, "reasoning_content", None) or ""
            text += part.content or ""
            self.finish_reason = choice.finish_reason or self.finish_reason
        self.thinking, self.text = self.thinking + thinking, self.text + text
        return thinking, text


class Display:
    """Prints an answer as it arrives: the text to stdout, the thinking, dimmed, to stderr."""

    _open_thinking = _open_text = ""  # what was printed last, and may have to end its line

    def show(self, thinking: str, text: str) -> None:
        """Print a piece at once; only a pipe or a file gets control characters."""
        if thinking:
            self._open_thinking = thinking
            thinking = printable(thinking) if sys.stderr.isatty() else thinking
            typer.secho(thinking, err=True, nl=False, dim=styled(sys.stderr) or None)
        if text:
            self._end_thinking()
            self._open_text = text
            sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
            sys.stdout.flush()

    def close(self) -> None:
        """End the line."""
        self._end_thinking()
        if self._open_text and not self._open_text.endswith("\n"):
            self.show("", "\n")

    def _end_thinking(self) -> None:
        if self._open_thinking:  # a blank line comes before the answer
            typer.echo("" if self._open_thinking.endswith("\n") else "\n", err=True)
            self._open_thinking = ""


def read_prompt(argument: str | None) -> str:
    """Take the prompt from the argument or from standard input, or report wrong usage."""
    if argument is None and sys.stdin.isatty():
        raise typer.BadParameter("there is no prompt: give it as an argument, or - to type it here")
    if argument is None or argument == "-":
        prompt = typer.get_binary_stream("stdin").read().decode("utf-8", "replace")
    else:
        prompt = argument.encode("utf-8", "replace").decode()  # bytes that are not UTF-8 arrive as lone surrogates
    if not prompt.strip():
        raise typer.BadParameter("the prompt is empty")
    return prompt


def print_answer(config: GatewayConfig, question: Mapping[str, Any], *, as_json: bool, debug: bool) -> None:
    """Ask what `arguments()` made, and print the answer as it arrives, or as one JSON object in the end.

    A failure is one readable message, after a traceback if `debug` is set, and ends the command with status 1.
    """
    from openai import OpenAIError  # noqa: PLC0415  # wrong usage and wrong settings do not need it

    for stream in cast("tuple[TextIOWrapper, ...]", (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="replace")  # the answer may hold what the encoding cannot express
    answer, display = Answer(), Display()
    facts: list[RequestFacts] = []

    def on_request(request: Any) -> None:
        facts.append(request_facts(request, config, model_named(request)))

    hooks = {"event_hooks": {"request": [on_request]}}
    try:
        with record_calls() as calls, create_client(config, http_options=hooks) as client, closing(display):
            create: Any = client.chat.completions.create
            reply = create(**question)
            for chunk in reply if question.get("stream") else [reply]:
                thinking, text = answer.add(chunk)
                if not as_json:
                    display.show(thinking, text)
    except (OpenAIError, json.JSONDecodeError) as error:
        texts = ["".join(traceback.format_exception(error))] if debug else []
        for text in [*texts, explanation(error, facts[-1] if facts else None)]:
            say(without_secrets(text, asdict(config)))
        raise typer.Exit(1) from None
    call = calls[-1]
    if not answer.finish_reason and not answer.text:
        say(f"What came back with status {call.status} is no answer. Check {VARIABLE['endpoint']}.")
        raise typer.Exit(1)
    if as_json:
        typer.echo(as_json_object(answer, call))
    else:
        say(f"\n{closing_line(answer, call)}", dim=True)


def as_json_object(answer: Answer, call: GatewayCall) -> str:
    """Write one JSON object with the answer and everything known of its call."""
    members = {"answer": answer.text, "thinking": answer.thinking or None, "finish_reason": answer.finish_reason}
    return json.dumps(members | asdict(call) | {"model": answer.model or call.model, "usage": answer.usage or None})


def closing_line(answer: Answer, call: GatewayCall) -> str:
    """Say in one line what an answer took."""
    usage = answer.usage
    parts: list[str] = []
    if usage:
        hits = usage.get("prompt_cache_hit_tokens")
        cached = "" if hits is None else f" ({hits} from DeepSeek's own cache)"
        details: dict[str, Any] = usage.get("completion_tokens_details") or {}
        thought = details.get("reasoning_tokens")
        thinking = f" ({thought} of them thinking)" if thought else ""
        parts.append(f"{usage.get('prompt_tokens')} tokens in{cached}, {usage.get('completion_tokens')} out{thinking}")
    parts += [f"gateway cache {call.cache_status or 'not reported'}", f"log {call.log_id or 'not reported'}"]
    if call.elapsed is not None:
        parts.append(f"{call.elapsed:.1f} s")
    if answer.finish_reason not in {"stop", None}:
        parts.append(f"ended early: {answer.finish_reason}")
    return f"{answer.model or call.model}: {'; '.join(parts)}"
