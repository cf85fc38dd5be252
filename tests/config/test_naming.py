from __future__ import annotations

from hms_addons.config.naming import digest, redacted
from tests.fakes.configs import snapshot_of


def test_the_version_is_that_of_the_content() -> None:
    one = snapshot_of("clusters: [{name: a, connect_timeout: 1s}]")
    assert (
        one.version == snapshot_of("# moved\nclusters:\n- {connect_timeout: 1s, name: a}").version
    )
    assert one.version != snapshot_of("clusters: [{name: a, connect_timeout: 2s}]").version
    assert (
        one.version
        != snapshot_of("clusters: [{name: a, connect_timeout: 1s}]", service="x").version
    )
    assert len(digest({}, None)) == 12


def test_the_document_hides_what_plugins_keep_secret() -> None:
    data = {
        "clusters": [{"name": "a"}],
        "plugins": {
            "token-bucket": {"api_key": "x", "deep": [{"password": "y", "n": 1}], "rate": 5}
        },
    }
    shown = redacted(data)
    assert shown["plugins"] == {
        "token-bucket": {
            "api_key": "(hidden)",
            "deep": [{"password": "(hidden)", "n": 1}],
            "rate": 5,
        }
    }
    assert shown["clusters"] == data["clusters"]
    assert data["plugins"]["token-bucket"]["api_key"] == "x"  # type: ignore[index]
    text = "plugins: {p: {token: hush}}"
    assert "hush" not in repr(snapshot_of(text).document)
    assert snapshot_of(text).plugins == {"p": {"token": "hush"}}
