"""Failures on demand: what a test may ask for, and what each failure does to a response."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from http import HTTPStatus
from typing import Any, Literal, get_args

from deepseek_gateway.emulator._errors import ERRORS, OCTETS, Form, ServiceError, find
from deepseek_gateway.emulator._wire import TEXT_TYPE, Delivery, Reply, body_reply, json_reply

Shape = Literal["short", "wholesale", "unbilled", "policy", "text", "edge", "problem"]
_GATEWAY_FORMS = {"gateway", "wholesale", "unbilled"}
_GAVE_UP = 524

CODES = frozenset(error.code for error in ERRORS if error.code is not None)
STATUSES = frozenset(error.status for error in ERRORS if error.code is None)


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure on demand; `Emulator.fail_next()` documents each field."""

    code: int | None = None
    status: int | None = None
    message: str | None = None
    shape: Shape | None = None
    body: bytes | str | Mapping[str, Any] | None = None
    headers: Mapping[str, str] | None = None
    event: int | None = None
    unreachable: bool = False
    delivery: Delivery = field(default_factory=Delivery)

    def __post_init__(self) -> None:
        """Refuse what would not happen as asked, but pass or fail a test for another reason."""
        how, stated = self.delivery, [(part, each) for part in (self, self.delivery) for each in fields(part)]
        given = {each.name for part, each in stated if getattr(part, each.name) != each.default} - {"delivery"}
        numbers = how.latency, how.keep_alive, how.cut_after or 0, how.stall_after or 0, self.event or 0
        json = self.form in {"deepseek", "policy", *_GATEWAY_FORMS}
        coded = self.shape in {"short", *_GATEWAY_FORMS}
        unknown = given & {"code", "status", "shape", "message"} and not self.form
        known = f"a code ({sorted(CODES)}), or a status ({sorted(STATUSES)}) in a shape that it has"
        lone = given & {"reset", "unreachable"}
        rules: list[tuple[object, str]] = [
            (not given, "Say what fails: give a code, a status, a shape, a body, or a way to deliver the answer."),
            (not all(number >= 0 for number in numbers), "Give seconds, counts and positions as 0 or more."),
            (lone and len(given - {"latency"}) > 1, "A reset and unreachable go with nothing but a latency."),
            (given >= {"cut_after", "stall_after"}, "An answer ends in one way: give cut_after or stall_after."),
            (how.clean and how.cut_after is None, "A clean end is that of a cut answer: give cut_after too."),
            ("body" in given and given & {"code", "message"}, "A body is sent as it is: give no code and no message."),
            (self.shape not in {None, *get_args(Shape)}, f"No shape is called {self.shape!r}."),
            (
                self.shape and coded != ("code" in given),
                "Give short, wholesale and unbilled with a code, and only these.",
            ),
            ("event" in given and not json, "Only an error in JSON can be an event of a stream."),
            (unknown, f"Give a message and a status, or {known}."),
        ]
        for broken, sentence in rules:
            if broken:
                raise ValueError(sentence)

    @property
    def error(self) -> ServiceError | None:
        """The error that is asked for, if it is documented, or stated by status and message."""
        if self.body is not None or (self.code is None and self.status is None and self.shape is None):
            return None
        shape = None if self.shape == "short" else self.shape
        error = find(self.code, shape, self.status if self.code is None else None)
        if error is None and self.status is not None and self.message is not None:
            form: Form = shape or ("deepseek" if self.code is None else "gateway")
            content_type = "text/plain" if form == "text" else OCTETS
            error = ServiceError(form, self.status, self.message, {}, content_type, self.code)
        if error is None:
            return None
        status = error.status if self.status in {None, HTTPStatus.OK} else self.status
        return replace(error, status=status, message=error.message if self.message is None else self.message)

    @property
    def form(self) -> str:
        """The form of the error, empty if there is none; a given body has its shape, or DeepSeek's."""
        error = self.error
        return error.form if error else "" if self.body is None else self.shape or "deepseek"

    @property
    def edge(self) -> bool:
        return self.form in {"edge", "problem"}

    @property
    def cloudflare(self) -> bool:
        """Whether Cloudflare fails; such a fault waits for a request to the gateway."""
        return self.edge or self.form in {"policy", *_GATEWAY_FORMS}

    @property
    def early(self) -> bool:
        """Whether the request gets no further than the gateway; other faults strike a try to reach DeepSeek."""
        late = self.event is not None or (self.edge and self.status == _GAVE_UP)
        return self.delivery.reset or (not late and self.cloudflare)

    def reply(self, route: str) -> Reply | None:
        """Return the error as a response, or None if only the delivery is at fault."""
        error = self.error
        if error is not None:
            reply = error.reply(route, short=self.shape == "short")
        elif isinstance(self.body, bytes):
            reply = Reply(status=200, chunks=(self.body,))
        elif isinstance(self.body, str):
            reply = body_reply(200, self.body.encode(), TEXT_TYPE)
        elif self.body is not None:
            reply = json_reply(200, self.body)
        else:
            return None
        return replace(reply, status=self.status or reply.status)

    def strike(self, reply: Reply, route: str) -> Reply:
        """Return `reply`, or the error in its place, as this fault changes and delivers it."""
        failed = self.reply(route)
        if failed is not None and (self.early or self.edge):
            reply = failed
        elif failed is not None and self.event is not None:
            chunks: tuple[bytes, ...] = (failed.body,)
            if reply.streamed:
                at = min(self.event, len(reply.chunks) - 1)
                chunks = (*reply.chunks[:at], b"data: " + failed.body + b"\n\n")
            reply = replace(reply, status=200, chunks=chunks, unstreamed=failed.body)
        given = {name.lower(): value for name, value in (self.headers or {}).items()}
        kept = tuple(pair for pair in reply.headers if pair[0] not in given)
        return replace(reply, headers=(*kept, *given.items()), delivery=self.delivery)
