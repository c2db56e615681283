"""Ask every line of a file in OpenAI's batch format: `python batch.py INPUT OUTPUT`. Run it again to go on."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
from contextlib import aclosing
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import openai
from batch_calls import Caller, Line, ids_in, requests_in
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deepseek_gateway import GatewayConfig

if TYPE_CHECKING:
    from deepseek_gateway import GatewayCall

FIGURES = "{task.fields[rate]:.1f}/s, {task.fields[tokens]:,} tokens, {task.fields[hits]:,} cache hits"


class Bar(Progress):
    """The progress bar: answers, their rate, tokens, hits in the gateway's cache, and the remaining time."""

    def __init__(self, total: int, answered: int) -> None:
        """Begin with the lines that an earlier run has answered."""
        columns = BarColumn(), MofNCompleteColumn(), TextColumn(FIGURES), TimeRemainingColumn()
        super().__init__(*columns, console=Console(stderr=True))
        self._began, self._earlier = monotonic(), answered
        self._task = self.add_task("", total=total, completed=answered, rate=0.0, tokens=0, hits=0)

    def count(self, call: GatewayCall) -> None:
        """Count one answer. A hit repeats the tokens of the first answer, which are not paid again."""
        fields = self.tasks[0].fields
        hit = call.cache_status == "HIT"
        used = call.usage.prompt_tokens + call.usage.completion_tokens if call.usage and not hit else 0
        rate = (self.tasks[0].completed + 1 - self._earlier) / (monotonic() - self._began)
        self.update(self._task, advance=1, rate=rate, tokens=fields["tokens"] + used, hits=fields["hits"] + hit)


async def ask(lines: list[Line], output: Path, bar: Bar, most: int) -> None:
    """Write each answer when it comes. The first Ctrl-C lets the calls under way end, the second does not."""
    caller = Caller(GatewayConfig.from_env(), most)

    def finish(*_: object) -> None:
        caller.stopping = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        bar.console.print("Waiting for the calls under way. Press Ctrl-C again to give them up.")

    signal.signal(signal.SIGINT, finish)
    with output.open("a", encoding="utf-8", buffering=1) as file:
        async with caller.client, aclosing(caller.answers(lines)) as answers:
            async for answer, call in answers:
                file.write(json.dumps(answer) + "\n")
                bar.count(call)


def main() -> None:
    """Ask the lines that the output does not answer yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--most", type=int, default=64, help="calls under way at a time, unless 429 says fewer")
    options = parser.parse_args()
    logging.getLogger("deepseek_gateway").setLevel(logging.ERROR)  # the output tells what was refused
    try:
        lines, answered = requests_in(options.input), ids_in(options.output)
        waiting = [line for line in lines if line["custom_id"] not in answered]
        with Bar(len(lines), len(lines) - len(waiting)) as bar:
            asyncio.run(ask(waiting, options.output, bar, options.most))
    except (OSError, ValueError, openai.OpenAIError) as error:
        raise SystemExit(f"Stopped: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
