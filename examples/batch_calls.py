"""What batch.py and batch_ray.py share: OpenAI's batch format, and calls that are as many as the service allows."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import openai

from deepseek_gateway import GatewayCall, GatewayConfig, create_async_client, record_calls

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from pathlib import Path

Line = dict[str, Any]


def requests_in(path: Path) -> list[Line]:
    """Read a batch input file, and refuse the whole file if one line is wrong."""
    lines: dict[str, Line] = {}
    for number, text in enumerate(path.read_text("utf-8").split("\n"), 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            known = line["custom_id"] in lines, line["method"], line["url"].startswith("/v1/"), type(line["body"])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, line {number} is not a JSON object with custom_id, method, url, body") from error
        if known != (False, "POST", True, dict):
            raise ValueError(
                f"{path}, line {number} needs a new custom_id, POST, a url below /v1/, and an object as body"
            )
        lines[line["custom_id"]] = line
    return list(lines.values())


def ids_in(path: Path) -> set[str]:
    """Read which lines have been answered. A last line that was written in part is removed, and will be asked again."""
    ids: set[str] = set()
    end = 0
    with path.open("ab+") as output:
        output.seek(0)
        for text in output:
            if text.endswith(b"\n"):
                ids.add(json.loads(text)["custom_id"])
                end += len(text)
        output.truncate(end)
    return ids


class Caller:
    """Asks lines with one client. The cap on calls under way is halved by a 429, and grows by one call a round."""

    def __init__(self, config: GatewayConfig, most: int) -> None:
        """Make the client. It retries each call up to eight times, with pauses of up to eight seconds."""
        self.most = self.cap = float(most)
        self.stopping = False
        self._fell = 0.0
        hooks = {"event_hooks": {"response": [self._note]}}
        self.client = create_async_client(config, max_retries=8, http_options=hooks)

    async def answers(self, lines: Iterable[Line]) -> AsyncGenerator[tuple[Line, GatewayCall]]:
        """Give the lines of the output as the answers come in. Once `stopping` is true, no further line is asked."""
        waiting, under_way, failure = iter(lines), set[Any](), None
        finished: asyncio.Queue[asyncio.Task[tuple[Line, GatewayCall]]] = asyncio.Queue()
        while True:
            while not self.stopping and len(under_way) < int(self.cap) and (line := next(waiting, None)):
                under_way.add(task := asyncio.create_task(self._ask(line)))
                task.add_done_callback(finished.put_nowait)
            if not under_way:
                break
            under_way.remove(task := await finished.get())
            if error := task.exception():
                self.stopping, failure = True, error
            else:
                self.cap = min(self.most, self.cap + 1 / self.cap)
                yield task.result()
        if failure:
            raise failure

    async def _note(self, response: Any) -> None:
        """Let the cap fall at a 429, of every try. One burst of them counts once."""
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS and time.monotonic() > self._fell + 1:
            self.cap, self._fell = max(1.0, self.cap / 2), time.monotonic()

    async def _ask(self, line: Line) -> tuple[Line, GatewayCall]:
        """Ask one line. A refusal that concerns the account is raised, because it would come for every line."""
        response = error = None
        with record_calls() as calls:
            try:
                body = await self.client.post(line["url"].removeprefix("/v1"), body=line["body"], cast_to=object)
                response = {"status_code": calls[-1].status, "request_id": calls[-1].request_id, "body": body}
            except openai.RateLimitError as refusal:
                if refusal.response.headers.get("x-should-retry") == "false":  # such as a spend limit
                    raise
                return await self._ask(line)
            except openai.APIStatusError as refusal:
                if refusal.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED}:
                    raise
                body = {"error": refusal.body}
                response = {"status_code": refusal.status_code, "request_id": calls[-1].request_id, "body": body}
            except (openai.APIConnectionError, ValueError) as lost:  # ValueError: the body was not JSON
                error = {"code": type(lost).__name__, "message": str(lost)}
        answer = {"id": f"batch_req_{uuid.uuid4().hex}", "custom_id": line["custom_id"]}
        return answer | {"response": response, "error": error}, calls[-1]
