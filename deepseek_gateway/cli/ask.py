"""What `deepseek-gateway ask` does: one question, one answer as it comes, and a line about what it took."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, cast

import typer

from deepseek_gateway._calls import GatewayCall, record_calls
from deepseek_gateway._client import create_client
from deepseek_gateway._settings import VARIABLE

from .options import printable, say, styled

if TYPE_CHECKING:
    from collections.abc import Mapping
    from io import TextIOWrapper
    from types import TracebackType

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.live import Live

    from deepseek_gateway._config import GatewayConfig

_REDRAW = 0.1  # seconds between two drawings of an unfinished block
_LONGEST_LIVE = 10_000  # characters; to lay out Markdown of more takes too long to be done so often


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, and how."""

    prompt: str
    model: str
    system: str | None = None
    thinking: bool = True
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    whole: bool = False
    """Whether to ask for the answer in one piece: the gateway caches no streams (Cloudflare docs: troubleshooting)."""

    @property
    def arguments(self) -> dict[str, Any]:
        """What the SDK's `create()` takes."""
        messages = [{"role": "user", "content": self.prompt}]
        if self.system:
            messages.insert(0, {"role": "system", "content": self.system})
        arguments: dict[str, Any] = {"model": self.model, "messages": messages, "extra_headers": dict(self.headers)}
        if not self.whole:  # DeepSeek sends the usage anyway; what a dynamic route leads to may not
            arguments |= {"stream": True, "stream_options": {"include_usage": True}}
        if not self.thinking:
            arguments["extra_body"] = {"thinking": {"type": "disabled"}}
        return arguments


@dataclass
class Answer:
    """What came back so far."""

    text: str = ""
    thinking: str = ""
    model: str | None = None
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict[str, Any])

    def add(self, piece: Any) -> tuple[str, str]:
        """Take in a chunk, or a whole completion; give the thinking and the text that were new in it."""
        self.model = getattr(piece, "model", None) or self.model  # what comes need not be what the SDK takes it for
        if usage := getattr(piece, "usage", None):
            self.usage = usage.model_dump(exclude_none=True)
        thinking = text = ""
        for choice in getattr(piece, "choices", None) or ():
            part = choice.message if hasattr(choice, "message") else choice.delta
            thinking += getattr(part, "reasoning_content", None) or ""
            text += part.content or ""
            self.finish_reason = choice.finish_reason or self.finish_reason
        self.thinking += thinking
        self.text += text
        return thinking, text


class Silent:
    """Shows nothing as it comes."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Bring what is shown to an end, also after an interrupt."""

    def thinking(self, text: str) -> None:
        """Show a piece of what DeepSeek thinks."""

    def answer(self, text: str) -> None:
        """Show a piece of the answer."""


class Raw(Silent):
    """Shows the answer on stdout as it is, and the thinking, dimmed, on stderr."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._thought = ""
        self._answered = ""

    def __exit__(self, *_: object) -> None:
        """End the line."""
        self._end_thinking()
        if self._answered and not self._answered.endswith("\n"):
            self.answer("\n")

    def thinking(self, text: str) -> None:
        """Show it on stderr, where it is no part of what a pipe carries."""
        self._thought = text
        if sys.stderr.isatty():
            text = printable(text)
        typer.secho(text, err=True, nl=False, dim=styled() or None)

    def answer(self, text: str) -> None:
        """Show it at once; what goes into a pipe or file is not touched."""
        self._end_thinking()
        self._answered = text
        sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
        sys.stdout.flush()

    def _end_thinking(self) -> None:
        if self._thought:
            typer.echo("" if self._thought.endswith("\n") else "\n", err=True)
            self._thought = ""


class Rendered(Raw):
    """Shows the answer as Markdown on a terminal.

    Of a Markdown text only the last block can still change. What is before it is printed for good; the last one alone
    is drawn again and again, and never higher than the screen, for a terminal cannot take back what has left it.
    """

    def __init__(self, console: Console) -> None:
        """Show nothing yet."""
        super().__init__()
        self._console = console
        self._live: Live | None = None
        self._first = True
        self._open = ""
        self._drawn = 0.0

    def __exit__(self, *_: object) -> None:
        """Print the last block for good."""
        self._end_thinking()
        self._settle()

    def thinking(self, text: str) -> None:
        """Show it where no block is being drawn."""
        self._settle()
        super().thinking(text)

    def answer(self, text: str) -> None:
        """Add to the last block, print what is finished by that, and draw the rest, but not too often."""
        self._end_thinking()
        if self._live is None:
            from rich.live import Live  # noqa: PLC0415  # only a terminal needs it

            # Rich's own thread for drawing can come between what is printed and what is drawn below it.
            self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stderr=False)
            self._live.start()
        self._open += printable(text)
        finished: list[str] = []
        if "\n" in text:
            end = self._open.rfind("\n") + 1
            *finished, last = blocks_of(self._open[:end])
            self._open = last + self._open[end:]
        self._live.update(Block(self._open, first=self._first and not finished, live=True))
        self._print(finished)
        if monotonic() - self._drawn > _REDRAW:
            self._live.refresh()
            self._drawn = monotonic()

    def _settle(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None
            self._print(blocks_of(self._open))
            self._open = ""

    def _print(self, blocks: list[str]) -> None:
        for block in blocks:
            if block.strip():
                self._console.print(Block(block, first=self._first))
                self._first = False


@dataclass(frozen=True)
class Block:
    """A block of a Markdown text, with one blank line before it unless it is the first."""

    text: str
    first: bool
    live: bool = False
    """Whether to show no more lines than fit on the screen, those at the end."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay it out, line by line."""
        from rich.markdown import Markdown  # noqa: PLC0415  # see above
        from rich.segment import Segment  # noqa: PLC0415  # likewise
        from rich.text import Text  # noqa: PLC0415  # likewise

        if self.live and len(self.text) > _LONGEST_LIVE:
            whole: RenderableType = Text(self.text[-_LONGEST_LIVE:])
        else:
            whole = Markdown(self.text, hyperlinks=False)  # a reader sees where a link leads
        lines = console.render_lines(whole, options.update(height=None), pad=False)
        shown = [number for number, line in enumerate(lines) if any(segment.text.strip() for segment in line)]
        lines = lines[shown[0] : shown[-1] + 1] if shown else []
        if not self.first:
            lines.insert(0, [])
        for line in lines[1 - max(options.max_height, 2) :] if self.live else lines:
            yield from line
            yield Segment.line()


def blocks_of(text: str) -> list[str]:
    """Split a Markdown text into its paragraphs, lists, tables and so on; all but the last are finished.

    Args:
        text: The text so far, without a line that is not complete.

    Returns:
        At least one part; together they make the text.
    """
    from markdown_it import MarkdownIt  # noqa: PLC0415  # comes with Rich, and only a terminal needs it

    tokens = MarkdownIt().enable("table").parse(text)
    starts = [token.map[0] for token in tokens if token.map and token.level == 0]
    lines = [f"{line}\n" for line in text.split("\n")]  # not splitlines(), which knows more ends of lines than Markdown
    parts = ["".join(lines[start:end]) for start, end in pairwise([0, *starts[1:], len(lines)])]
    return [*parts[:-1], parts[-1][:-1]]


def ask(config: GatewayConfig, question: Question, *, as_json: bool) -> None:
    """Ask, show the answer as it comes, and say what it took.

    Args:
        config: How to reach DeepSeek.
        question: What to ask.
        as_json: Whether to print one JSON object in the end in place of the text.
    """
    for stream in cast("tuple[TextIOWrapper, ...]", (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="replace")  # a model may say what the encoding cannot
    answer = Answer()
    with record_calls() as calls, create_client(config) as client:
        create: Any = client.chat.completions.create
        with _display(as_json=as_json) as display:
            reply = create(**question.arguments)
            for piece in [reply] if question.whole else reply:
                thinking, text = answer.add(piece)
                if thinking:
                    display.thinking(thinking)
                if text:
                    display.answer(text)
    call = calls[-1]
    if not answer.finish_reason and not answer.text:
        say(f"What came back with status {call.status} is no answer. Check {VARIABLE['endpoint']}.")
        raise typer.Exit(1)
    if as_json:
        typer.echo(json.dumps(as_object(answer, call)))
    else:
        say(f"\n{closing_line(answer, call)}", dim=True)


def _display(*, as_json: bool) -> Silent:
    """Choose how to show an answer, by where it goes."""
    if as_json:
        return Silent()
    if not sys.stdout.isatty():
        return Raw()
    from rich.console import Console  # noqa: PLC0415  # a pipe does not need it

    console = Console(highlight=False)
    return Raw() if console.is_dumb_terminal else Rendered(console)


def as_object(answer: Answer, call: GatewayCall) -> dict[str, Any]:
    """Put an answer and all that is known of its call into one JSON object."""
    told = {name: value for name, value in asdict(call).items() if name != "model"}
    return {
        "answer": answer.text,
        "thinking": answer.thinking or None,
        "model": answer.model or call.model,
        "finish_reason": answer.finish_reason,
        "usage": answer.usage or None,
        **told,
    }


def closing_line(answer: Answer, call: GatewayCall) -> str:
    """Say in one line what an answer took; what was not told is left out, or said to be unknown."""
    usage = answer.usage
    parts: list[str] = []
    if usage:
        hits = usage.get("prompt_cache_hit_tokens")
        cached = "" if hits is None else f" ({hits} from DeepSeek's own cache)"
        details: dict[str, Any] = usage.get("completion_tokens_details") or {}
        thought = details.get("reasoning_tokens")
        thinking = f" ({thought} of them thinking)" if thought else ""
        parts.append(f"{usage.get('prompt_tokens')} tokens in{cached}, {usage.get('completion_tokens')} out{thinking}")
    parts += [f"gateway cache {call.cache_status or 'not told'}", f"log {call.log_id or 'not told'}"]
    if call.elapsed is not None:
        parts.append(f"{call.elapsed:.1f} s")
    if answer.finish_reason not in {"stop", None}:
        parts.append(f"ended early: {answer.finish_reason}")
    return f"{answer.model or call.model}: {'; '.join(parts)}"
