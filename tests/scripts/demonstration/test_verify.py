from __future__ import annotations

import json
from email.message import Message

from scripts.demonstration.calls import Answer
from scripts.demonstration.verify import bars, received, replicas_of, statuses_of


def answer(status: int = 200, *, flag: str | None = None, **content: object) -> Answer:
    headers = Message()
    if flag is not None:
        headers["X-HMS-Flag"] = flag
    return Answer(status, headers, json.dumps(content).encode())


def test_only_good_answers_count_for_replicas() -> None:
    answers = [answer(replica="a"), answer(replica="a"), answer(503, flag="UH", replica="b")]
    assert replicas_of(answers) == {"a": 2}
    assert statuses_of(answers) == "1 x 503 UH"
    assert statuses_of(answers[:2]) == "all 200"


def test_every_value_under_every_spelling_is_seen() -> None:
    fields = {"X-Caller-Role": "A", "x_caller_role": "B", "X-Caller": "C"}
    assert received(answer(headers=fields), "X-Caller-Role") == ["A", "B"]


def test_bars_grow_with_counts_and_missing_names_have_none() -> None:
    assert bars({"a": 20, "b": 10}, ["a", "b", "c"]).splitlines() == [
        "a          20  " + "█" * 40,
        "b          10  " + "█" * 20,
        "c           0",
    ]
    assert bars({}, ["a"]) == "a           0"


def test_an_answer_on_one_line() -> None:
    assert answer(503, flag="UH", a=1).describe() == '503 UH {"a": 1}'
