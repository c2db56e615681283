"""The exception class of this package, in a module of its own because only it needs openai."""

from openai import OpenAIError


class ConfigError(OpenAIError):
    """The settings do not suffice to reach DeepSeek, or one of them is malformed.

    An `openai.OpenAIError`, as `openai.OpenAI()` raises for its own settings. The message lists every problem with the
    name of the variable and the remedy. It never contains a key or token.

    Attributes:
        missing: The variables that are absent, in the order of README's table. When either of two would do, both are
            listed.
    """

    missing: tuple[str, ...]

    def __init__(self, message: str, *, missing: tuple[str, ...] = ()) -> None:
        """Keep the message and the names of the absent variables."""
        super().__init__(message)
        self.missing = missing
