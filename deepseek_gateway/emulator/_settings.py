"""What the owner of the gateway has configured."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

Action = Literal["BLOCK", "FLAG"]


@dataclass(kw_only=True, eq=False, repr=False)
class Settings:
    """The settings of one gateway; `Emulator` documents each field."""

    account_id: str = "e" * 32
    gateway_id: str = "emulator-gateway"
    api_key: str = "emulator-deepseek-key"
    gateway_token: str = "emulator-gateway-token"  # noqa: S105 - a fake, and meant to look like one
    authenticated: bool = True
    stored_keys: Mapping[str, str] | None = None
    dynamic_routes: Mapping[str, str] = field(default_factory=lambda: {"support": "deepseek-v4-pro"})
    cache_ttl: float | None = None
    rate_limit: tuple[int, float] | None = None
    spend_limit: tuple[float, float] | None = None
    guardrails: Collection[str] | None = None
    dlp: Mapping[str, Action] = field(default_factory=dict[str, Action])
    latency: float = 0.0
    pace: float = 0.0
    padding: bool = False
    crlf: bool = False

    def __post_init__(self) -> None:
        """Refuse what would make the gateway answer for another reason than the test believes; show no value."""
        self.keys: dict[str, str] = {"default": self.api_key} if self.stored_keys is None else dict(self.stored_keys)
        ids, keys = (self.account_id, self.gateway_id), (self.api_key, self.gateway_token, *self.keys.values())
        amounts = (*(self.rate_limit or (1, 1)), *(self.spend_limit or (1, 1)))
        times = self.latency, self.pace, self.cache_ttl or 0
        empty = isinstance(self.guardrails, str) or "" in (*(self.guardrails or ()), *self.dlp)
        rules = [
            (all(re.fullmatch(r"[^\s/?#%]+", each) for each in ids), "Give account_id and gateway_id as URL segments."),
            (all(re.fullmatch(r"[!-~]+", key) for key in keys), "Give keys and tokens as visible ASCII characters."),
            (not empty, "Give guardrails and dlp as several texts; an empty text would match everything."),
            ({"BLOCK", "FLAG"}.issuperset(self.dlp.values()), "Give each text of dlp the action BLOCK or FLAG."),
            (all(time >= 0 for time in times), "Give latency, pace and cache_ttl as 0 or more seconds."),
            (all(amount > 0 for amount in amounts), "Give a limit as an amount and as seconds, both more than 0."),
        ]
        for holds, sentence in rules:
            if not holds:
                raise ValueError(sentence)
