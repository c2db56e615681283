"""The command `emulator`: serve until Ctrl-C, say how to get there, and print a line for each exchange."""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
from queue import Empty, SimpleQueue
from time import localtime, strftime
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from deepseek_gateway._settings import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deepseek_gateway._settings import Route
    from deepseek_gateway.emulator import Emulator, Row

# A wait without end would keep Ctrl-C from being noticed on Windows.
_LONGEST_WAIT = 0.2
_COLOURS = {2: "green", 4: "yellow", 5: "red"}


def run(  # noqa: PLR0913  # the options of the command
    *,
    port: int,
    authenticated: bool,
    stored_key: bool,
    latency: float,
    failures: list[str],
    route: Route,
    debug: bool,
) -> None:
    """Serve as the options say, or say which of them cannot be and exit."""
    from deepseek_gateway.emulator import Emulator  # noqa: PLC0415  # it needs the extra
    from deepseek_gateway.emulator._faults import CODES, STATUSES  # noqa: PLC0415  # likewise

    rows: SimpleQueue[Row | None] = SimpleQueue()
    keys = None if stored_key else dict[str, str]()
    try:
        serving = Emulator(
            authenticated=authenticated, stored_keys=keys, latency=latency, port=port, on_exchange=rows.put
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    for text in failures:
        try:
            serving.fail_next(**failure(text))
        except ValueError:
            codes, statuses = (", ".join(map(str, sorted(known))) for known in (CODES, STATUSES))
            raise typer.BadParameter(
                f"No failure {text!r} is known. Give a code of the gateway ({codes}) or a status ({statuses}), "
                "and after a colon how often, such as 503:2.",
                param_hint="--fail",
            ) from None
    try:
        serve(serving, rows, Console(highlight=False, soft_wrap=True), route)
    except (OSError, RuntimeError) as error:
        if debug:
            traceback.print_exc()
        message = str(error)
        if isinstance(error, OSError):
            reason = os.strerror(error.errno) if error.errno else message
            message = f"Cannot listen on port {port} of 127.0.0.1 ({reason}); choose another with --port, 0 for any."
        sys.stderr.write(f"{message}\n")
        raise typer.Exit(1) from None


def failure(text: str) -> dict[str, Any]:
    """Read `CODE[:TIMES]` as arguments of `Emulator.fail_next()`; codes of the gateway have four digits or more."""
    found = re.fullmatch(r"([0-9]{3,5})(?::([0-9]{1,6}))?", text)
    if not found:
        raise ValueError(text)
    return {"code" if len(found[1]) > len("503") else "status": int(found[1]), "times": int(found[2] or 1)}


def serve(emulator: Emulator, rows: SimpleQueue[Row | None], console: Console, route: Route = "provider") -> None:
    """Serve until the process is interrupted or asked to terminate."""

    def end(*_: object) -> None:
        rows.put(None)

    for interruption in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interruption, end)
    with emulator:
        for text in introduction(emulator, route):
            console.print(text, markup=False)
        prefixes = f"/v1/{emulator.account_id}/{emulator.gateway_id}", f"/client/v4/accounts/{emulator.account_id}"
        for row in _until_none(rows):
            console.print(line(row, prefixes))
            emulator.requests.clear()  # for tests to read; here they would only fill memory


def introduction(emulator: Emulator, route: Route = "provider") -> Iterator[str]:
    """Say how to get to the emulator."""
    yield "# A local AI Gateway and DeepSeek; nothing leaves this machine. Paste into the shell of your program:\n"
    rest = f"{emulator.url}/client/v4/accounts/{emulator.account_id}/ai"
    chosen: dict[str, str] = {} if route == "provider" else {VARIABLE["route"]: route}
    if route == "rest":
        chosen[VARIABLE["endpoint"]] = rest
    for name, value in (emulator.environ | chosen).items():
        yield f"export {name}='{value}'"
    yield "" if route == "rest" else f"\n# On the rest route the endpoint is {rest}"
    yield f"# What happens is shown at {emulator.url}/ and below; Ctrl-C ends it.\n"


def _until_none(rows: SimpleQueue[Row | None]) -> Iterator[Row]:
    while True:
        try:
            row = rows.get(timeout=_LONGEST_WAIT)
        except Empty:
            continue
        if row is None:
            return
        yield row


def line(row: Row, prefixes: tuple[str, ...] = ()) -> Text:
    """Write an exchange in one line: time, method and path without the prefix, model, status, cache, milliseconds."""
    path, model = row.path, row.asked or "-"
    for prefix in prefixes:
        path = path.removeprefix(prefix)
    if row.sent is not None and row.sent != row.asked:
        model += f" -> {row.sent}"
    status = str(row.status or "no answer") + ("" if row.complete or row.status is None else " cut off")
    colour = _COLOURS.get((row.status or 500) // 100, "") if row.complete else "red"
    return Text.assemble(
        (strftime("%H:%M:%S", localtime(row.began)), "dim"),
        f"  {row.method} {_plain(path)}  {_plain(model)}  ",
        (status, colour),
        f"  {_plain(row.cache) or '-'}  {(row.seconds or 0) * 1000:.0f} ms",
    )


def _plain(text: str) -> str:
    """Keep what callers send from moving the cursor of the terminal."""
    return ascii(text)[1:-1]
