"""Read recorded DeepSeek traffic from outside the checkout. INDEX.md there names the source of each folder."""

import functools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(os.environ.get("DEEPSEEK_RECORDINGS") or Path(__file__).resolve().parents[2] / "shared" / "recordings")
RIG = "0xPlaygrounds+rig"
VERCEL = "vercel+ai"
PRISM = "prism-php+prism"
OPENCODE = "anomalyco+opencode"
VELANTRIAN = "velantrian+Velantrim-Continuum"
SOURCES = (RIG, VERCEL, PRISM, OPENCODE, VELANTRIAN)

required = pytest.mark.skipif(
    not FOLDER.is_dir(),
    reason="no recordings: set DEEPSEEK_RECORDINGS to a folder of recordings",
)

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


@dataclass(frozen=True)
class Exchange:
    """One request and its response. `name` is folder/file, followed by #2 and so on for later exchanges of a file."""

    name: str
    method: str
    path: str
    request_json: dict[str, Any] | None
    status: int
    headers: dict[str, str]
    body: bytes
    stream: bool

    @property
    def source(self) -> str:
        return self.name.partition("/")[0]

    @property
    def events(self) -> list[Any]:
        """The JSON objects of the response: every event of a stream except [DONE], or the one object of the body."""
        return (
            events(self.body)
            if self.headers["content-type"].startswith("text/event-stream")
            else [json.loads(self.body)]
        )


def events(body: bytes) -> list[Any]:
    """Split a stream into events. DeepSeek writes only data lines, a blank line after each, and [DONE] last."""
    *blocks, done, rest = body.decode().split("\n\n")
    if (done, rest) != ("data: [DONE]", "") or any("\n" in b or not b.startswith("data: ") for b in blocks):
        raise ValueError(f"not framed as DeepSeek frames a stream: {body[:80]!r} ... {body[-80:]!r}")
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def files() -> list[Path]:
    """Return the path of every recording."""
    return sorted(path for path in FOLDER.glob("*/*") if path.is_file())


@functools.cache
def exchanges() -> tuple[Exchange, ...]:
    """Return all recorded exchanges in a fixed order. Without the folder there are none."""
    readers = {RIG: _rig, VERCEL: _bare, PRISM: _bare, OPENCODE: _opencode, VELANTRIAN: _velantrian}
    return tuple(exchange for path in files() for exchange in readers[path.parent.name](path))


def exchange(name: str) -> Exchange:
    """Return the exchange with this name."""
    return next(each for each in exchanges() if each.name == name)


def _name(path: Path, number: int = 1) -> str:
    return f"{path.parent.name}/{path.name}" + (f"#{number}" if number > 1 else "")


def _rig(path: Path) -> Iterator[Exchange]:
    documents = yaml.load_all(path.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    for number, document in enumerate(documents, 1):
        when, then = document["when"], document["then"]
        request = json.loads(when["body"]) if when["body"] else None
        yield Exchange(
            name=_name(path, number),
            method=when["method"],
            path=when["path"],
            request_json=request,
            status=then["status"],
            headers={header["name"]: header["value"] for header in then["header"]},
            body=then["body"].encode(),
            stream=bool(request and request.get("stream")),
        )


def _bare(path: Path) -> Iterator[Exchange]:
    """Read a body that Vercel or Prism recorded without its request, and make up a request that fits the body."""
    body = path.read_bytes()
    if path.name.endswith(".chunks.txt"):
        body = b"".join(b"data: %s\n\n" % line for line in [*body.splitlines(), b"[DONE]"])
    stream = path.suffix != ".json"
    model = (events(body)[0] if stream else json.loads(body))["model"]
    request = {"model": model, "messages": [{"role": "user", "content": "Hello"}]} | (
        {"stream": True} if stream else {}
    )
    yield Exchange(
        name=_name(path),
        method="POST",
        path="/chat/completions",
        request_json=request,
        status=200,
        headers=EVENTS if stream else JSON,
        body=body,
        stream=stream,
    )


def _opencode(path: Path) -> Iterator[Exchange]:
    for number, interaction in enumerate(json.loads(path.read_bytes())["interactions"], 1):
        request, response = interaction["request"], interaction["response"]
        yield Exchange(
            name=_name(path, number),
            method=request["method"],
            path=request["url"].removeprefix("https://api.deepseek.com"),
            request_json=json.loads(request["body"]),
            status=response["status"],
            headers=response["headers"],
            body=response["body"].encode(),
            stream=json.loads(request["body"])["stream"],
        )


def _velantrian(path: Path) -> Iterator[Exchange]:
    note = json.loads(path.read_bytes())
    status_line, *headers = filter(None, note["response_headers_sanitized"])
    yield Exchange(
        name=_name(path),
        method=note["method"],
        path=note["endpoint"].removeprefix("https://api.deepseek.com"),
        request_json=note["request_body"],
        status=int(status_line.split()[1]),
        headers=dict(header.split(": ", 1) for header in headers),
        body=json.dumps(note["response_body"], separators=(",", ":")).encode(),
        stream=False,
    )
