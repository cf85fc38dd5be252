from __future__ import annotations

from hms_addons.config.installed import BALANCERS, Installed, Known
from hms_addons.config.load import load
from hms_addons.upstream.load_balancer import BUILT_IN


def test_the_built_in_balancers_are_those_of_the_upstream() -> None:
    assert frozenset(BUILT_IN) == BALANCERS


def test_plugins_are_loaded_only_if_it_matters() -> None:
    asked = []

    def balancers() -> frozenset[str]:
        asked.append(1)
        return frozenset({"sticky"})

    known = Known(installed=Installed(frozenset(), balancers))
    assert load([("a", b"clusters: [{name: a, load_balancer: random}]")], known=known).snapshot
    assert not asked
    assert load([("a", b"clusters: [{name: a, load_balancer: sticky}]")], known=known).snapshot
    assert asked == [1]
