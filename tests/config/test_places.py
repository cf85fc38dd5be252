from __future__ import annotations

from hms_addons.config.load import load
from hms_addons.config.places import located, located_by_itself
from tests.fakes.configs import snapshot_of

TEXT = """\
plugins:
  stamp:
    value: [1, 2]
clusters:
  - { name: a, load_balancer: tarot }
secrets:
  mine: { certificate: c, key: k, bundle: b }
rbac:
  providers: []
"""


def test_a_message_gets_its_place_or_that_of_what_it_is_in() -> None:
    snapshot = snapshot_of(TEXT)
    assert located(snapshot, "plugins.stamp", "none", "stomp") == (
        "1.yaml:2:3: plugins.stamp: none (did you mean stomp?)"
    )
    assert (
        located(snapshot, "plugins.stamp.value[1]", "x") == "1.yaml:3:16: plugins.stamp.value[1]: x"
    )
    assert located(snapshot, "plugins.stamp.size", "x") == "1.yaml:2:3: plugins.stamp.size: x"
    assert located(snapshot, "clusters.a.load_balancer", "x").startswith("1.yaml:5:31: ")
    assert located(snapshot, "secrets.mine.key", "x").startswith("1.yaml:7:32: ")
    assert located(snapshot, "governance", "x", "y") == "governance: x (did you mean y?)"


def test_a_message_that_says_what_it_is_about() -> None:
    snapshot = snapshot_of(TEXT)
    about = located_by_itself(snapshot, "plugins.stamp.value: no text", "plugins.stamp")
    assert about == "1.yaml:3:12: plugins.stamp.value: no text"
    assert (
        located_by_itself(snapshot, "rbac.providers: no", "x") == "1.yaml:9:14: rbac.providers: no"
    )
    assert located_by_itself(snapshot, "not: with me", "plugins.stamp") == (
        "1.yaml:2:3: not: with me"
    )
    assert located_by_itself(snapshot, "not with me", "plugins.probe") == "not with me"


def test_what_was_written_in_no_file_has_no_place() -> None:
    snapshot = load([], base={"plugins": {"stamp": {}}}).snapshot
    assert snapshot is not None
    assert not snapshot.places
