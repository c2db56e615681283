"""How many exchanges are kept."""

import pytest
from emulated import BOTH, PROVIDER, events, hi, send

from deepseek_gateway.emulator import Emulator, _record


def test_only_the_last_exchanges_are_kept() -> None:
    with Emulator() as emulator:
        for _ in range(_record.MOST_EXCHANGES + 3):
            send(emulator, "/")
        with events(emulator) as stream:
            assert stream.about["most"] == _record.MOST_EXCHANGES
            assert stream.next()["number"] == 4
        assert send(emulator, "/_exchanges/3").status == 404
        assert len(emulator.requests) == _record.MOST_EXCHANGES + 3


def test_oldest_exchanges_are_dropped_above_the_size_limit_but_not_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_record, "_MAX_BYTES", 23_000)
    with Emulator() as emulator, events(emulator) as stream:
        for number, size in enumerate((1000, 1000, 8000, 30_000), 1):
            send(emulator, PROVIDER, BOTH, hi("x" * size))
            stream.ended(number)
            if number == 3:
                assert [send(emulator, f"/_exchanges/{n}").status for n in (1, 2, 3)] == [404, 200, 200]
        assert [send(emulator, f"/_exchanges/{n}").status for n in (3, 4)] == [404, 200]
