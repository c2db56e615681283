"""Identifiers and times that are the same on every run."""

import hashlib

# 2026-11-01T00:00:00Z, so that responses do not depend on the day.
CREATED = 1793491200


def digest(*parts: object) -> str:
    """Return 64 hexadecimal digits that depend on `parts` only."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()
