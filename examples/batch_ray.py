"""Ask a batch file on a Ray cluster: `python batch_ray.py INPUT OUTPUT [--address auto]`. Run it again to go on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import ray
from batch_calls import Caller, ids_in, requests_in

from deepseek_gateway import GatewayConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Batch = dict[str, Any]


class Worker:
    """An actor of Ray, with one client for all its batches. Ray gives it the settings, because no client can travel."""

    def __init__(self, config: GatewayConfig, most: int) -> None:
        """Make the client where it is used."""
        self.caller = Caller(config, most)

    async def __call__(self, batch: Batch) -> AsyncIterator[Batch]:
        """Answer a batch whole, so that Ray can repeat it whole when its worker is killed."""
        lines = [json.loads(text) for text in batch["line"]]
        answered, refusal = [], ""
        try:
            async for answer, _ in self.caller.answers(lines):
                answered.append(json.dumps(answer))
        except openai.APIStatusError as error:
            refusal = str(error)  # as text, because the exceptions of openai cannot be unpickled
        yield {"line": [*answered, ""], "refusal": [*[""] * len(answered), refusal]}


def main() -> None:
    """Ask the lines that the output does not answer yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--address", help="of a cluster; without it, Ray is started on this machine")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--most", type=int, default=64, help="calls of each actor at a time, unless 429 says fewer")
    parser.add_argument("--batch", type=int, default=64, help="lines that are asked again if their worker is killed")
    options = parser.parse_args()
    answered = ids_in(options.output)
    lines = [json.dumps(line) for line in requests_in(options.input) if line["custom_id"] not in answered]
    config = GatewayConfig.from_env()
    ray.init(options.address, runtime_env={"working_dir": str(Path(__file__).parent)})
    batches = max(1, -(-len(lines) // options.batch))
    data = ray.data.from_items([{"line": line} for line in lines], override_num_blocks=batches)
    answers = data.map_batches(
        Worker, fn_constructor_args=(config, options.most), concurrency=options.actors, batch_size=options.batch
    )
    with options.output.open("a", encoding="utf-8", buffering=1) as file:
        for row in answers.iter_rows():
            if row["refusal"]:
                raise SystemExit(f"Stopped: {row['refusal']}")
            if row["line"]:
                file.write(row["line"] + "\n")


if __name__ == "__main__":
    main()
