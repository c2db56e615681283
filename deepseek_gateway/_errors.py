"""The one exception class of this package; a module of its own because it needs openai, which `_config` does not."""

from openai import OpenAIError


class ConfigError(OpenAIError):
    """The settings do not suffice to reach DeepSeek, or one of them is malformed.

    An `openai.OpenAIError`, as `openai.OpenAI()` raises when its own settings do not suffice, so that a program
    needs no new `except`. The message lists every problem at once, each with the name of the variable and the
    remedy, and never holds a key or token.

    Attributes:
        missing: The variables that are absent, in the order of README's table; empty when all problems are
            malformed values. When either of two would do, both are listed.
    """

    missing: tuple[str, ...]

    def __init__(self, message: str, *, missing: tuple[str, ...] = ()) -> None:
        """Keep the message and the names of the absent variables."""
        super().__init__(message)
        self.missing = missing
