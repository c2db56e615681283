"""The command `emulator`: serve until Ctrl-C, print the settings to use and a line for each exchange."""

from __future__ import annotations

import sys
import traceback
from queue import SimpleQueue
from time import localtime, strftime
from typing import TYPE_CHECKING, Any

import typer

from deepseek_gateway._settings import VARIABLE

from .interruption import cannot_listen, end_when_interrupted, until_none
from .options import assignments, say, styled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from deepseek_gateway._settings import Route
    from deepseek_gateway.emulator import Emulator, Row

_COLOURS = {2: "green", 4: "yellow", 5: "red"}


def run_emulator(options: Mapping[str, Any], failures: Sequence[str], route: Route, *, debug: bool) -> None:
    """Serve an `Emulator` with these options until the process is interrupted, or report which option is wrong."""
    from deepseek_gateway.emulator import Emulator  # noqa: PLC0415  # it needs the extra

    rows: SimpleQueue[Row | None] = SimpleQueue()
    try:
        emulator = Emulator(**options, on_exchange=rows.put)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    for text in failures:
        _add_failure(emulator, text)
    try:
        serve(emulator, rows, route)
    except (OSError, RuntimeError) as error:
        message = cannot_listen(options["port"], error) if isinstance(error, OSError) else str(error)
        say(f"{traceback.format_exc()}{message}" if debug else message)
        raise typer.Exit(1) from None


def _add_failure(emulator: Emulator, text: str) -> None:
    """Read `CODE[:TIMES]`; a status has three digits, and a code of the gateway has more."""
    number, colon, times = text.partition(":")
    try:
        code, status = (None, int(number)) if len(number) <= len("503") else (int(number), None)
        emulator.fail_next(code, status=status, times=int(times) if colon else 1)
    except ValueError:
        from deepseek_gateway.emulator._faults import CODES, STATUSES  # noqa: PLC0415  # it needs the extra

        codes, statuses = (", ".join(map(str, sorted(known))) for known in (CODES, STATUSES))
        raise typer.BadParameter(
            f"No failure {text!r} is known. Give a code of the gateway ({codes}) or a status ({statuses}), "
            "and after a colon how often, such as 503:2.",
            param_hint="--fail",
        ) from None


def serve(emulator: Emulator, rows: SimpleQueue[Row | None], route: Route = "provider") -> None:
    """Serve until the process is interrupted or asked to terminate."""
    end_when_interrupted(rows)
    with emulator:
        for text in introduction(emulator, route):
            typer.echo(text)
        prefixes = f"/v1/{emulator.account_id}/{emulator.gateway_id}", f"/client/v4/accounts/{emulator.account_id}"
        for row in until_none(rows):
            typer.echo(line(row, prefixes))
            emulator.requests.clear()  # nobody reads them here, and they would fill the memory


def introduction(emulator: Emulator, route: Route = "provider") -> Iterator[str]:
    """Say how to reach the emulator."""
    rest = f"{emulator.url}/client/v4/accounts/{emulator.account_id}/ai"
    chosen: dict[str, str] = {} if route == "provider" else {VARIABLE["route"]: route}
    if route == "rest":
        chosen[VARIABLE["endpoint"]] = rest
    yield "# A local AI Gateway and DeepSeek; nothing leaves this machine. Paste into the shell of your program:\n"
    yield from assignments(emulator.environ | chosen)
    yield "" if route == "rest" else f"\n# On the rest route the endpoint is {rest}"
    yield f"""# To say what it answers: curl {emulator.url}/_emulator/answers --json '{{"text": "Paris"}}'"""
    yield f"# The exchanges are shown at {emulator.url}/ and below; Ctrl-C ends the emulator.\n"


def line(row: Row, prefixes: tuple[str, ...] = ()) -> str:
    """Write an exchange in one line: time, method and path without the prefix, model, status, cache, milliseconds.

    Whatever callers send is escaped, because it could move the cursor of the terminal.
    """
    path, model = row.path, row.asked or "-"
    for prefix in prefixes:
        path = path.removeprefix(prefix)
    if row.sent is not None and row.sent != row.asked:
        model += f" -> {row.sent}"
    status = str(row.status or "no answer") + ("" if row.complete or row.status is None else " cut off")
    colour = _COLOURS.get((row.status or 500) // 100) if row.complete else "red"
    path, model, cache = (ascii(text)[1:-1] for text in (path, model, row.cache or "-"))
    clock, milliseconds = strftime("%H:%M:%S", localtime(row.began)), (row.seconds or 0) * 1000
    if styled(sys.stdout):
        clock, status = typer.style(clock, dim=True), typer.style(status, fg=colour)
    return f"{clock}  {row.method} {path}  {model}  {status}  {cache}  {milliseconds:.0f} ms"
