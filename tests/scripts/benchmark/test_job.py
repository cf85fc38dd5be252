from __future__ import annotations

import pytest

from scripts.benchmark.job import ALL_ROUTES, Job, Task


@pytest.mark.parametrize("count", [1, 100, ALL_ROUTES])
def test_however_many_routes_only_the_last_one_matches_the_same_request(count: int) -> None:
    job = Job(Task.PLAIN, 80, count)
    assert len(set(job.prefixes)) == count
    assert job.path == "/service-4999/verify-id"
    assert [prefix for prefix in job.prefixes if job.path.startswith(prefix)] == [job.prefixes[-1]]


def test_without_a_number_one_route_takes_every_path() -> None:
    assert Job(Task.PLAIN, 80).prefixes == ("/",)
