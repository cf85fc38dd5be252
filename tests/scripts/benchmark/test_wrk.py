from __future__ import annotations

from pathlib import Path

import pytest

from scripts.benchmark.process import BenchError, free_port
from scripts.benchmark.wrk import Load, Order, VoidRoundError, parse, run, upload_script

HEAD = """\
Running 3s test @ http://127.0.0.1:40651/verify-id
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.52ms  310.51us  10.46ms   88.79%
    Req/Sec    20.66k     1.05k   21.82k    76.67%
  Latency Distribution
     50%  {p50}
     75%    1.66ms
     90%    1.82ms
     99%  {p99}
  61664 requests in 3.00s, 13.76MB read
"""
TAIL = """\
Requests/sec:  20534.42
Transfer/sec:      4.58MB
"""
GOOD = HEAD.format(p50="  1.48ms", p99="  2.59ms") + TAIL


def test_a_good_report() -> None:
    assert parse(GOOD) == Load(61664, 20534.42, 1.48, 2.59)


@pytest.mark.parametrize(
    ("written", "milliseconds"),
    [("312.00us", 0.312), ("  1.20ms", 1.2), ("  1.03s ", 1030.0), ("  1.50m ", 90_000.0)],
)
def test_latencies_in_every_unit(written: str, milliseconds: float) -> None:
    text = HEAD.format(p50=written, p99=written) + TAIL
    load = parse(text)
    assert load.p50_ms == pytest.approx(milliseconds)
    assert load.p99_ms == pytest.approx(milliseconds)


@pytest.mark.parametrize(
    "fault",
    [
        "Socket errors: connect 0, read 3, write 0, timeout 5",
        "Non-2xx or 3xx responses: 12",
    ],
)
def test_a_failed_request_voids_the_round(fault: str) -> None:
    text = HEAD.format(p50="1.48ms", p99="2.59ms") + f"  {fault}\n" + TAIL
    with pytest.raises(VoidRoundError, match=fault):
        parse(text)


def test_both_faults_are_told() -> None:
    faults = "  Socket errors: connect 32, read 0, write 0, timeout 0\n"
    faults += "  Non-2xx or 3xx responses: 2\n"
    with pytest.raises(VoidRoundError, match=r"connect 32.*; Non-2xx or 3xx responses: 2"):
        parse(HEAD.format(p50="1.48ms", p99="2.59ms") + faults + TAIL)


def test_no_request_at_all_voids_the_round() -> None:
    text = GOOD.replace("61664 requests", "0 requests")
    with pytest.raises(VoidRoundError, match="not one"):
        parse(text)


@pytest.mark.parametrize("text", ["", "unable to connect to 127.0.0.1:1 Connection refused\n"])
def test_what_is_not_a_report_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(BenchError, match="something else") as raised:
        parse(text)
    assert text in str(raised.value)
    assert not isinstance(raised.value, VoidRoundError)


def test_a_report_without_the_distribution_is_refused() -> None:
    with pytest.raises(BenchError, match="latency distribution"):
        parse(GOOD.replace("     99%", "     98%"))


def test_the_command_line() -> None:
    order = Order(("127.0.0.1", 80), "/x", {"Authorization": "Bearer t"}, 3, 8, Path("/s.lua"))
    assert order.arguments() == [
        "-t1",
        "-c8",
        "-d3s",
        "--latency",
        "--timeout=10s",
        "-H",
        "Authorization: Bearer t",
        "-s",
        "/s.lua",
        "http://127.0.0.1:80/x",
    ]


def test_the_upload_script_posts_so_many_bytes() -> None:
    script = upload_script(65536)
    assert 'wrk.method = "POST"' in script
    assert 'string.rep("x", 65536)' in script


@pytest.mark.wrk
def test_nobody_listening_is_told_in_wrks_own_words() -> None:
    with pytest.raises(BenchError, match="Connection refused"):
        run(Order(("127.0.0.1", free_port()), "/", {}, 1, 1))
