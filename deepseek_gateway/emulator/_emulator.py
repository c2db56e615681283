"""The emulator as its user meets it: how it is configured, started, asked to fail, and stopped."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from deepseek_gateway._server import Server
from deepseek_gateway.emulator._answers import AnswerFunction, to_script
from deepseek_gateway.emulator._application import OWN_FAULT, Application
from deepseek_gateway.emulator._control import Control
from deepseek_gateway.emulator._deepseek import DeepSeek
from deepseek_gateway.emulator._faults import Fault, Shape
from deepseek_gateway.emulator._gateway import Gateway
from deepseek_gateway.emulator._page import Page, Row
from deepseek_gateway.emulator._record import Record
from deepseek_gateway.emulator._settings import Settings
from deepseek_gateway.emulator._wire import Delivery, ReceivedRequest, Route

if TYPE_CHECKING:
    from deepseek_gateway import GatewayConfig


@dataclass(kw_only=True, eq=False, repr=False)
class Emulator(Settings):
    """A local AI Gateway with a local DeepSeek behind it, which runs while its `with` block does.

    All identifiers and secrets are obvious fakes unless given. Many emulators can run at once. A browser that opens
    `url` shows the exchanges as they happen.

    Args:
        account_id: The Cloudflare account that exists. Another one is answered with 2001.
        gateway_id: The gateway that exists besides `default`, which always requires the gateway token.
        api_key: The DeepSeek key that DeepSeek accepts, besides the stored ones.
        gateway_token: The Cloudflare API token.
        authenticated: Whether the gateway requires the token. Stored keys work only if it does.
        stored_keys: DeepSeek keys stored at Cloudflare, by alias. By default `api_key` as `default`.
        dynamic_routes: Names of dynamic routes, and the DeepSeek model of each. By default there is `support`.
        cache_ttl: Seconds for which responses are cached. 0 means 300, because 0 was seen not to prevent hits. By
            default only requests with a `cf-aig-cache-key` are cached.
        rate_limit: How many requests are served in how many seconds. More are answered with 2003.
        spend_limit: How many USD may be spent in how many seconds. After that the answer is 2045.
        guardrails: Texts, possibly none, that block a prompt (2016) or a response (2017). With guardrails a stream
            arrives as one JSON body, except on the REST API.
        dlp: Texts that data loss prevention finds in requests (2029) or responses (2030), with `BLOCK` or `FLAG`.
        latency: Seconds that DeepSeek takes to begin a response.
        pace: Seconds between the chunks of a stream, as a model needs them; a model takes about 0.02.
        padding: Whether the gateway adds a random member `p` and blanks to the events of a stream, as Cloudflare does.
        crlf: Whether the gateway ends the lines of a stream with CRLF, as Cloudflare does on some paths.
        port: The port on 127.0.0.1; 0 takes any free one.
        on_exchange: Called with each exchange when it has ended, without its secrets, in the emulator's thread.

    Attributes:
        requests: The requests received so far, oldest first; `requests.clear()` starts afresh.

    Raises:
        ValueError: An argument would make the emulator answer otherwise than it says.
    """

    port: int = 0
    on_exchange: Callable[[Row], object] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        keys = {self.api_key, *self.keys.values()}
        deepseek = DeepSeek(keys)
        self._answers, self._gateway, self._record = deepseek.answers, Gateway(self, deepseek), Record()
        page = Page(self._record, {*keys, self.gateway_token}, lambda: self.environ)
        actions: dict[str, Callable[..., None]] = {
            "answers": self.answer_next,
            "failures": self.fail_next,
            "reset": self.reset,
        }
        control = Control(actions, lambda: self.pending)
        self._application = Application(self._gateway, page, control, self._record, self.on_exchange)
        self.requests: list[ReceivedRequest] = self._application.requests
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """Where the emulator listens, such as `http://127.0.0.1:49152`, without a path."""
        if self._server is None:
            raise RuntimeError("The emulator is not running; use it in a `with` block.")
        return self._server.url

    @property
    def direct_url(self) -> str:
        """The base URL of DeepSeek's own API, which answers without the gateway; the `direct_endpoint` of settings."""
        return f"{self.url}/direct"

    def config(self, route: Route = "provider", **overrides: Any) -> "GatewayConfig":
        """Return the settings that reach this emulator, for `create_client()`.

        `overrides` are fields of `GatewayConfig`: `api_key=None` uses the stored key, `gateway_token=None` sends no
        token, another `gateway_id` or `account_id` also changes the URL.
        """
        from deepseek_gateway import GatewayConfig  # noqa: PLC0415 - the emulator works without the client side

        named = {"account_id": self.account_id, "gateway_id": self.gateway_id} | overrides
        account, gateway = named["account_id"], named["gateway_id"]
        path = f"client/v4/accounts/{account}/ai" if route == "rest" else f"v1/{account}/{gateway}"
        credentials = {"api_key": self.api_key, "gateway_token": self.gateway_token}
        addresses = {"endpoint": f"{self.url}/{path}", "direct_endpoint": self.direct_url}
        settings: Any = addresses | credentials | named
        return GatewayConfig(route=route, **settings)

    @property
    def environ(self) -> dict[str, str]:
        """The variables that point a program here on every route but rest; for a child's `os.environ`."""
        token = {"CF_AIG_TOKEN": self.gateway_token} if self.authenticated else {}
        endpoint = f"{self.url}/v1/{self.account_id}/{self.gateway_id}"
        direct = {"DEEPSEEK_DIRECT_ENDPOINT": self.direct_url}
        return {"DEEPSEEK_GATEWAY_ENDPOINT": endpoint, **token, "DEEPSEEK_API_KEY": self.api_key, **direct}

    def fail_next(  # noqa: PLR0913 - keyword-only, all with defaults
        self,
        code: int | str | None = None,
        *,
        status: int | None = None,
        times: int = 1,
        message: str | None = None,
        shape: Shape | None = None,
        body: bytes | str | Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        event: int | None = None,
        unreachable: bool = False,
        reset: bool = False,
        latency: float = 0.0,
        keep_alive: int = 0,
        cut_after: int | None = None,
        clean: bool = False,
        stall_after: int | None = None,
    ) -> None:
        """Make the next `times` calls fail; failures strike in the order in which they were asked for.

        Errors of the gateway and of Cloudflare's edge strike the next request to the gateway, and `reset` the next
        request, whatever it is. All others strike the next attempt to reach DeepSeek, which the gateway retries as
        `cf-aig-max-attempts` says; a request that does not get as far leaves them for the next one. 524 also strikes an
        attempt, because the edge gives up after DeepSeek has been asked, but it is not retried. Without an error the
        answer is the ordinary one, delivered as the last seven arguments say. To have a connection refused, stop the
        emulator.

        Args:
            code: An error of the gateway (2003 rate limited, 2021 no credits, ...) with its documented status and
                message. It may be text, as on an exception's `code`.
            status: The HTTP status. Without a code it stands for DeepSeek's documented error (400, 401, 402, 422, 429,
                500, 503) or for the edge's (403, 502, 520, 524). 200 puts the error, the gateway's if there is a code,
                into a response that looks like a success.
            times: How often.
            message: A message in place of the documented one.
            shape: `short`: the gateway's envelope of older captures. `wholesale`: the rate limit of Unified Billing
                (2018, 2021, and 7003 with status 200). `unbilled`: a model that Unified Billing does not pay for
                (2021). `policy`: a policy's object in place of the list (403, 429). `text`: DeepSeek's plain text (401,
                422). `edge`: Cloudflare's edge, in plain text (403) or HTML. `problem`: the edge, in problem JSON (502,
                520, 524).
            body: A body to send as it is, from DeepSeek or from the sender of the `shape`. The default status is 200.
            headers: Headers to set on the response.
            event: Make the error this event of a stream, counted from 0, and end the stream with it. If the response is
                not a stream, it becomes an HTTP 200 with the error as its body.
            unreachable: DeepSeek cannot be reached. When no attempt is left the gateway answers 2005; a direct
                connection is reset.
            reset: The connection is reset in place of a response.
            latency: Seconds until the response begins, `math.inf` for never.
            keep_alive: Lines of filler: comments in a stream, blank lines before plain JSON. So many are spread over
                `latency` after the headers, which are then sent at once, and one is sent between any two events.
            cut_after: The connection is closed after so many bytes of the body, ...
            clean: ... or the body ends there properly.
            stall_after: Nothing is sent after so many bytes of the body, and the connection stays open.

        Raises:
            ValueError: The arguments do not say what fails, or part of them would have no effect.
        """
        if times < 1:
            raise ValueError(f"Give times as 1 or more, not {times}: nothing would fail.")
        delivery = Delivery(latency, keep_alive, cut_after, clean, stall_after, reset)
        code, headers = None if code is None else int(code), None if headers is None else dict(headers)
        fault = Fault(code, status, message, shape, body, headers, event, unreachable, delivery)
        self._gateway.faults.extend([fault] * times)

    def answer_next(
        self,
        text: str | None = None,
        *,
        tool_calls: Sequence[Mapping[str, Any]] = (),
        json: object = None,
        reasoning: str | None = None,
        finish_reason: str | None = None,
    ) -> None:
        """Make this the answer to the next question, on whichever route and endpoint, streamed or not.

        Answers are given in the order of the calls, then the canned ones again. A request that is refused or fails
        leaves the answer to the next one. The answer is sent whole, whatever `max_tokens` and `stop` say. It also comes
        where the gateway has another answer in its cache, and takes the place of that answer there.

        Args:
            text: The content.
            tool_calls: The calls to make, each as `{"name": ..., "arguments": ...}`. The arguments are a dict, an
                instance of a pydantic model, or text that is sent as it is. Ids are made.
            json: A dict, an instance of a pydantic model or another value to send as the content, in JSON.
            reasoning: The thinking, by default the canned one. It is not sent if the request turns thinking off.
            finish_reason: By default `tool_calls` or `stop`.

        Raises:
            ValueError: The arguments say nothing, or contradict each other.
            TypeError: An argument has a type that cannot be sent.
        """
        script = to_script(text, tool_calls=tool_calls, json=json, reasoning=reasoning, finish_reason=finish_reason)
        self._answers.queue.append(script)

    def answer_with(self, function: AnswerFunction | None) -> None:
        """Let a function answer the questions for which `answer_next()` has no answer; None ends that.

        The function is called in the emulator's thread, with the request as the caller sent it; `upstream` is what
        DeepSeek got. It returns text, the keyword arguments of `answer_next()` as a dict, or None for the canned
        answer. What it raises is raised at the end of `with`. The gateway's cache is emptied first, and then works as
        usual: the function is not called for an answer from the cache.
        """
        self._answers.function = function
        self._gateway.cache.clear()

    def reset(self) -> None:
        """Forget the answers and failures to come, the requests, and what the gateway has cached and counted."""
        self._answers.queue.clear()
        self._answers.function = None
        self._gateway.reset()
        self.requests.clear()

    @property
    def pending(self) -> int:
        """How many failures and answers are still to come; 0 once all have struck and been given."""
        return len(self._gateway.faults) + len(self._answers.queue)

    def __enter__(self) -> Self:
        """Start the emulator; on return the port accepts connections."""
        if self._server is not None:
            raise RuntimeError("The emulator is already running.")
        self._server = Server(self._application, self.port, name="deepseek-gateway-emulator")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop at once; connections that are still open are cut.

        Raises:
            RuntimeError: The emulator itself failed to answer (the cause is the first failure), or does not stop. If
                the block ended with an exception, that exception gets a note instead.
        """
        if self._server is None:
            return
        server, self._server = self._server, None
        stopped = server.stop()
        crashes = list(self._application.crashes)
        self._application.crashes.clear()
        if stopped and not crashes:
            return
        failed = f"{OWN_FAULT} It happened {len(crashes)} time(s), first: {crashes[0]!r}" if crashes else ""
        problem = failed if stopped else "The emulator did not stop: something blocks its thread."
        if error is None:
            raise RuntimeError(problem) from next(iter(crashes), None)
        error.add_note(problem)

    async def __aenter__(self) -> Self:
        """Start as `with` does: the server has a thread and an event loop of its own."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop at once, as `with` does."""
        self.__exit__(kind, error, traceback)
