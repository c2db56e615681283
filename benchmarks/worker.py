"""One kind of work with one library, in a fresh interpreter: one turn for each line of input.

Run as `python -m benchmarks.worker JSON`. Each turn prints one JSON line: a value, or the reason why there is none.
Each kind of work yields one value per turn. CPU time is that of the whole process.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.libraries import KEY, LIBRARIES, MODEL, PEERS, Bare, Messages, NotOfferedError
from benchmarks.server import CHUNKS, PACE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def clients(library: Bare, url: str, *, count: int, kind: str) -> Iterator[float]:
    """Make further clients and keep them: CPU milliseconds per client."""
    _first(library, url, kind)
    while True:
        before = time.process_time()
        kept = [library.client(url, kind) for _ in range(count)]
        yield (time.process_time() - before) * 1e3 / count
        del kept


def memory(library: Bare, url: str, *, count: int, kind: str, times: int = 1) -> Iterator[float]:
    """Make further clients and keep them: resident megabytes per client, multiplied by `times`."""
    kept = [_first(library, url, kind)]
    before = _resident()
    kept += [library.client(url, kind) for _ in range(count)]
    yield (_resident() - before) * times / 1e6 / count


def calls(library: Bare, url: str, *, count: int, route: str = "provider", size: int = 60) -> Iterator[float]:
    """Call sequentially: CPU milliseconds per call."""
    client, question = library.client(url, "sync", route), library.question(_conversation(1, size))
    for _ in range(min(count, 20)):
        library.call(client, question)
    while True:
        before = time.process_time()
        for _ in range(count):
            library.call(client, question)
        yield (time.process_time() - before) * 1e3 / count


def chunks(library: Bare, url: str, *, count: int) -> Iterator[float]:
    """Read streams sequentially: CPU microseconds per chunk."""
    client, question = library.client(url, "sync"), library.question(_conversation(1))
    library.stream(client, question)
    while True:
        before = time.process_time()
        read = sum(library.stream(client, question) for _ in range(count))
        yield (time.process_time() - before) * 1e6 / read


def together(
    library: Bare,
    url: str,
    *,
    count: int,
    width: int = 64,
    kind: str = "async",
    messages: int = 1,
    long: bool = False,
    of: str = "rate",
) -> Iterator[float]:
    """Call concurrently in one event loop: calls per second of CPU time, or CPU milliseconds per call."""
    client = library.client(url, kind)
    question = (library.long_question if long else library.question)(_conversation(messages))
    loop = asyncio.new_event_loop()

    async def turn(count: int) -> None:
        waiting = iter(range(count))

        async def ask() -> None:
            for _ in waiting:
                await library.call_async(client, question)

        await asyncio.gather(*(ask() for _ in range(width)))

    loop.run_until_complete(turn(width))
    while True:
        before = time.process_time()
        loop.run_until_complete(turn(count))
        spent = time.process_time() - before
        yield count / spent if of == "rate" else spent * 1e3 / count


def paced(library: Bare, url: str, *, count: int, kind: str = "async", caller: str = "paced") -> Iterator[float]:
    """Read streams of DeepSeek's pace, all at once: CPU seconds, and then by how many seconds the last one was late."""
    streams = _Streams(library, f"{url}/{caller}", kind)
    while True:
        yield from streams.read(count)


def on_time(library: Bare, url: str, *, kind: str = "async", step: int = 25, most: int = 600) -> Iterator[float]:
    """Find the most streams of DeepSeek's pace of which the last one is less than a second late."""
    streams = _Streams(library, f"{url}/paced", kind)
    while True:
        few, many = 0, most // step + 1
        while many - few > 1:
            middle = (few + many) // 2
            _, late = streams.read(middle * step)
            few, many = (middle, many) if late < 1 else (few, middle)
        yield few * step


class _Streams:
    """Streams of DeepSeek's pace, relayed by one client in one event loop."""

    def __init__(self, library: Bare, url: str, kind: str) -> None:
        self._library, self._loop = library, asyncio.new_event_loop()
        self._client, self._question = library.client(url, kind), library.question(_conversation(1))
        self.read(1)

    def read(self, count: int) -> tuple[float, float]:
        """Read streams to their ends: CPU seconds, and the seconds by which the last one was late."""

        async def streams() -> None:
            one = self._library.stream_async
            await asyncio.gather(*(one(self._client, self._question) for _ in range(count)))

        before, began = time.process_time(), time.perf_counter()
        self._loop.run_until_complete(streams())
        return time.process_time() - before, time.perf_counter() - began - (CHUNKS + 2) / PACE


def batch(_library: Bare, url: str, *, count: int, script: str) -> Iterator[float]:
    """Ask a batch file with a program of `examples/`: prompts per second, without the start of the program."""
    examples = Path(__file__).parents[1] / "examples"
    body = {"model": MODEL, "messages": _conversation(1)}
    lines = [{"custom_id": f"{n}", "method": "POST", "url": "/v1/chat/completions", "body": body} for n in range(count)]
    environment = os.environ | {"DEEPSEEK_GATEWAY_ENDPOINT": url, "CF_AIG_TOKEN": KEY, "DEEPSEEK_API_KEY": KEY}
    while True:
        with tempfile.TemporaryDirectory() as folder:
            given, output = Path(folder, "input.jsonl"), Path(folder, "output.jsonl")
            given.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
            command = [sys.executable, str(examples / script), str(given), str(output)]
            with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
                first = last = (0, 0.0)
                while run.poll() is None or last[0] < count:
                    written = output.read_bytes().count(b"\n") if output.exists() else 0
                    if written > last[0]:
                        last = written, time.perf_counter()
                        first = first if first[0] else last
                    elif run.poll() is not None:
                        raise RuntimeError(run.stderr.read().decode().strip().splitlines()[-1] if run.stderr else "")
                    time.sleep(0.02)
        yield (last[0] - first[0]) / (last[1] - first[1])


def connections(
    library: Bare,
    url: str,
    *,
    pause: float = 0,
    streamed: bool = False,
    kinds: Sequence[str] = ("sync", "async", "aiohttp"),
) -> Iterator[float]:
    """Call ten times with each kind of client: the most connections that any kind opened."""
    loop = asyncio.new_event_loop()
    question = library.question(_conversation(1))

    async def ten(kind: str) -> int:
        caller = f"{kind}-{os.getpid()}"
        try:
            client = library.client(f"{url}/{caller}", kind)
        except NotOfferedError:
            return 0
        for number in range(10):
            await asyncio.sleep(pause if number else 0)
            if kind == "sync":
                await asyncio.to_thread(library.stream if streamed else library.call, client, question)
            else:
                await (library.stream_async if streamed else library.call_async)(client, question)
        server = http.client.HTTPConnection("127.0.0.1", int(os.environ["BENCHMARKS_CONTROL"]))
        server.request("GET", f"/connections/{caller}")
        return int(server.getresponse().read())

    async def every() -> list[int]:
        return await asyncio.gather(*map(ten, kinds))

    yield max(loop.run_until_complete(every()))


def importing(library: Bare, _url: str, *, after: str | None = None) -> Iterator[float]:
    """Import the package in a fresh interpreter, from bytecode: wall milliseconds."""
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(Path("bytecode").absolute())}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before, timed = f"import {after or 'time'}", f"import {library.imported}"
    lines = ["import time", before, "start = time.perf_counter()", timed, "print(time.perf_counter() - start)"]
    command = [sys.executable, "-c", "\n".join(lines)]
    subprocess.run(command, env=environment, capture_output=True, check=True)  # writes the bytecode
    while True:
        run = subprocess.run(command, env=environment, capture_output=True, check=True)
        yield float(run.stdout.split()[-1]) * 1e3


def _first(library: Bare, url: str, kind: str) -> Any:
    if not library.has_clients:
        raise NotOfferedError("has no client objects")
    return library.client(url, kind)


WORKS = (clients, memory, calls, chunks, together, paced, on_time, batch, connections, importing)
WORK = {work.__name__: work for work in WORKS}


def _conversation(count: int, size: int = 60) -> Messages:
    content = ("What is Cloudflare? " * (size // 20 + 1))[:size]
    return [{"role": ("user", "assistant")[number % 2], "content": content} for number in range(count)]


def _resident() -> float:
    """Return the resident bytes, or their peak where the system reports only the peak."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return float(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def _only_loopback(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse any connection that leaves this machine, because some libraries send telemetry."""
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in {"127.0.0.1", "::1"}:
        raise PermissionError(f"benchmarks connect only to loopback, not to {arguments[1][0]}")


def main(task: dict[str, Any]) -> None:
    """Do the work of a task, turn by turn."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep the output of libraries out of the results
    if task["core"] is not None:
        os.sched_setaffinity(0, {task["core"]})
    if task["library"] in PEERS:
        sys.addaudithook(_only_loopback)
    library = LIBRARIES[task["library"]]()
    turns = WORK[task["work"]](library, task["url"], **task["options"])
    for _ in sys.stdin:
        try:
            answer: dict[str, Any] = {"value": next(turns)}
        except Exception as error:
            answer = {"reason": f"{type(error).__name__}: {error}".removeprefix("NotOfferedError: ")}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
