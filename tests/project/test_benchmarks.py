"""The code of the benchmarks. No test here depends on a measured time."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks.__main__ import main
from benchmarks.libraries import LIBRARIES, Bare
from benchmarks.report import judged, markdown, table
from benchmarks.rows import GROWTH, ROWS, Growth, Target
from benchmarks.scale import RELAYS


def results(**libraries: Any) -> dict[str, Any]:
    """Make the results of a run with one row."""
    row = {"what": "a call", "unit": "ms", "target": "at most 1.02 x", "by": "ratio", "met": True}
    row["libraries"] = {"bare": {"values": [1.5]}, **libraries}
    about = {"date": "2026-11-22", "python": "3.11.7", "platform": "Linux", "openai": "3.54.0", "rounds": 1}
    return {**about, "rows": {"call": row}, "growth": {}, "skipped": {"chunk": "no time"}}


OURS = {"values": [1.5], "score": [1.0, 0.99, 1.01], "cost": 1.0}


class TestRows:
    def test_every_row_has_a_unique_name_a_target_and_a_measure(self) -> None:
        names = [row.name for row in (*ROWS, *GROWTH)]
        assert len(set(names)) == len(names)
        for row in ROWS:
            assert str(row.target)
            assert callable(row.measure)

    @pytest.mark.parametrize("growth", GROWTH, ids=lambda growth: growth.name)
    def test_growth_can_measure_each_of_its_sizes(self, growth: Growth) -> None:
        assert all(callable(growth.measure(size)) for size in growth.sizes)

    @pytest.mark.parametrize(
        ("target", "bare", "ours", "met"),
        [
            (Target("ratio", 1.02), [10, 20], [10, 20.2], True),
            (Target("ratio", 1.02), [10, 20], [11, 21], False),
            (Target("ratio", 1.3, least=True), [10], [14], True),
            (Target("more", 2), [10, 10], [11, 14], False),
            (Target("value", 1), [10], [1], True),
            (Target("nothing"), [10, 10], [11, 9.9], True),
            (Target("nothing"), [10, 10], [11, 10.1], False),
        ],
    )
    def test_target_judges_the_median_of_the_rounds(
        self, target: Target, bare: list[float], ours: list[float], met: bool
    ) -> None:
        assert target.met(target.scores(bare, ours)) is met

    def test_growth_is_limited_by_proportion_and_by_the_bare_client(self) -> None:
        growth = Growth("g", "g", (1, 10), GROWTH[0].measure)
        bare: dict[int, float] = {1: 10, 10: 100}
        assert growth.steepness(bare) == pytest.approx(1)
        assert growth.met(bare, {1: 1, 10: 10})
        assert not growth.met(bare, {1: 1, 10: 20})  # more than proportional
        assert not growth.met(bare, {1: 12, 10: 100})  # more expensive than the bare client


def test_every_library_implements_the_work_of_the_bare_client() -> None:
    for library in LIBRARIES.values():
        assert issubclass(library, Bare)
        assert library is Bare or library.__doc__ != Bare.__doc__


def test_table_lists_skipped_rows_and_missing_figures() -> None:
    text = table(results(ours=OURS, litellm={"reason": "has no client objects"}))
    assert "1 [0.99 to 1.01] x  at most 1.02 x  met" in text
    assert "skipped: chunk: no time" in text
    assert "not measured: a call: litellm: has no client objects" in text


def test_tables_of_streams_and_batches_show_their_figures() -> None:
    streams = {"150": {name: [4.56, 1.25] for name in RELAYS}}
    found = results(ours=OURS) | {"streams": streams, "batch": {"batch.py": 441.0, "batch_ray.py": "no module ray"}}
    for text in (table(found), markdown(found)):
        assert "| 150 " + "| 4.56 s CPU, 1.2 s late " * 4 + "|" in text
        assert "| one process, `examples/batch.py` | 441 |" in text
        assert "| Ray with two actors, `examples/batch_ray.py` | no module ray |" in text


def test_stored_results_are_judged_by_the_current_targets() -> None:
    found = results(ours={"values": [1.56]})
    assert judged(found)["rows"]["call"]["target"] == "at most 1.03 x"
    assert judged(found)["rows"]["call"]["met"] is False  # 1.04
    found["rows"]["handshakes-1.66.0"] = {"libraries": {"ours": {"reason": "none"}, "bare": {"reason": "none"}}}
    assert judged(found)["rows"]["handshakes-1.66.0"]["what"].endswith(", openai 1.66.0")


class TestChart:
    def test_equal_results_give_an_equal_chart(self) -> None:
        pytest.importorskip("matplotlib", reason="matplotlib is not installed: see the group `benchmarks`")
        from benchmarks.chart import draw  # noqa: PLC0415  # see above

        found = results(ours=OURS, litellm={**OURS, "cost": 2.19})
        chart = draw(found)
        assert chart == draw(found)
        assert len(chart) < 60_000
        texts = [element.text for element in ET.fromstring(chart).iter() if element.tag.endswith("text")]
        assert {"deepseek_gateway", "litellm", "2.19", "CPU of a short call (bare: 1.5 ms)"} <= set(texts)


class TestCommandLine:
    @pytest.mark.parametrize(
        ("arguments", "status"), [(["--help"], 0), (["--only", "nothing"], 2), (["--rounds", "0"], 2)]
    )
    def test_help_exits_with_0_and_wrong_usage_with_2(self, arguments: list[str], status: int) -> None:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == status

    def test_quick_run_prints_and_writes_its_row(self, tmp_path: Any, capfd: pytest.CaptureFixture[str]) -> None:
        written = tmp_path / "results.json"
        assert main(["--quick", "--only", "streams-connections", "handshakes", "--json", str(written)]) == 0
        found = json.loads(written.read_text())
        row = found["rows"]["streams-connections"]
        assert row["libraries"]["bare"]["values"][0] in {1, 10}  # old SDKs read a stream to its end
        assert len(row["libraries"]["ours"]["values"]) == 1
        assert found["skipped"] == {"handshakes": "takes too long for --quick"}
        out, err = capfd.readouterr()
        assert row["what"] in out
        assert row["what"] in err

    def test_from_shows_stored_results(self, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "old.json").write_text(json.dumps(results(ours=OURS)))
        assert main(["--from", str(tmp_path / "old.json")]) == 0
        assert "at most 1.03 x" in capsys.readouterr().out
