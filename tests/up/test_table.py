from __future__ import annotations

import math
from io import StringIO

from rich.console import Console

from hms_addons.up.stats import Row
from hms_addons.up.table import table_of


def shown(*rows: Row) -> list[str]:
    out = StringIO()
    Console(file=out, width=120).print(table_of(rows))
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def test_each_instance_is_a_row() -> None:
    heads, good, bad, away = shown(
        Row("a-1", "ready", 12.34, 0.0, 0.005, (), "24 h", "in sync", "http://127.0.0.1:8000"),
        Row("b-1", "unhealthy", 1.0, 0.5, math.inf, ("auth", "pay"), "2 min", "refused"),
        Row("c-1", "waiting"),
    )
    assert heads == "INSTANCE STATE REQ/S ERRORS P99 BREAKER CERTIFICATE CONFIG APP"
    assert good == "a-1 ready 12.3 0.0% ≤ 5 ms closed 24 h in sync http://127.0.0.1:8000"
    assert bad == "b-1 unhealthy 1.0 50.0% > 10 s open: auth, pay 2 min refused"
    assert away == "c-1 waiting - - - - - -"


def test_seconds_are_told_as_such() -> None:
    assert "≤ 2.5 s" in shown(Row("a-1", "ready", 1.0, 0.0, 2.5))[1]


def test_a_narrow_terminal_keeps_the_numbers() -> None:
    out = StringIO()
    row = Row("a-1", "ready", 12.3, 0.0, 0.005, (), "24 h", "in sync", "http://127.0.0.1:8000")
    Console(file=out, width=70).print(table_of([row]))
    assert "12.3" in out.getvalue()
    assert "ready" in out.getvalue()


def test_a_narrow_terminal_leaves_columns_out_and_cuts_no_name_short() -> None:
    rows = [Row(f"claims-svc-{n}", "unhealthy", 1.0, 0.5, 0.1, ("auth",)) for n in (1, 10)]
    for width, last in ((80, "CONFIG"), (65, "BREAKER"), (45, "ERRORS"), (30, "STATE")):
        out = StringIO()
        Console(file=out, width=width).print(table_of(rows))
        heads, first, second = out.getvalue().splitlines()
        assert heads.split()[-1] == last
        assert first.split()[:2] == ["claims-svc-1", "unhealthy"]
        assert second.split()[:2] == ["claims-svc-10", "unhealthy"]
