from __future__ import annotations

import json
from email.message import Message

from scripts.demonstration.calls import Answer
from scripts.demonstration.tally import all_good, bars, many, replicas_of, statuses_of


def answer(status: int = 200, *, flag: str | None = None, **content: object) -> Answer:
    headers = Message()
    if flag is not None:
        headers["X-HMS-Flag"] = flag
    return Answer(status, headers, json.dumps(content).encode())


def test_only_good_answers_count_for_replicas() -> None:
    answers = [answer(replica="a"), answer(replica="a"), answer(503, flag="UH", replica="b")]
    assert replicas_of(answers) == {"a": 2}
    assert statuses_of(answers) == "2 x 200, 1 x 503 UH"
    assert not all_good(answers)
    assert all_good([*answers[:2], answer(202)])


def test_something_happens_while_calls_are_under_way() -> None:
    made: list[str] = []

    def once() -> Answer:
        made.append("call")
        return answer()

    assert len(many(once, 8, midway=lambda: made.append("midway"))) == 8
    assert made.count("call") == 8
    assert made.index("midway") >= 2


def test_bars_grow_with_counts_and_missing_names_have_none() -> None:
    assert bars({"a": 20, "b-1": 10}, ["a", "b-1", "c"]).splitlines() == [
        "a     20  " + "█" * 40,
        "b-1   10  " + "█" * 20,
        "c      0",
    ]
    assert bars({}, ["a"]) == "a    0"


def test_an_answer_on_one_line() -> None:
    assert answer(503, flag="UH", a=1).describe() == '503 UH {"a": 1}'
