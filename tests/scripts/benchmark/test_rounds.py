from __future__ import annotations

from scripts.benchmark.rounds import interleave


def test_the_order_alternates_and_figures_stay_with_their_name_and_round() -> None:
    measured: list[str] = []
    reports: list[tuple[int, dict[str, int]]] = []

    def measure(name: str) -> int:
        measured.append(name)
        return len(measured)

    series = interleave(
        ["a", "b", "c"], 3, measure, lambda number, figures: reports.append((number, figures))
    )

    assert "".join(measured) == "abccbaabc"
    assert series == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}
    assert reports[1] == (2, {"a": 6, "b": 5, "c": 4})
    assert [list(figures) for _, figures in reports] == [["a", "b", "c"]] * 3
