from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.path_rewrite import PathRewrite
from hms_addons.config.request_target import normalise_path


@pytest.mark.parametrize(
    ("path", "matched", "replacement", "sent"),
    [  # The Gateway API's table for ReplacePrefixMatch; slashes at the end go when it is compiled.
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/bar", "", "/xyz", "/xyz/foo/bar"),
        ("/", "", "/xyz", "/xyz/"),
    ],
)
def test_a_prefix_is_replaced_by_whole_segments(
    path: str, matched: str, replacement: str, sent: str
) -> None:
    assert PathRewrite(matched=matched, replacement=replacement).apply(path) == sent


def test_a_whole_path_is_replaced() -> None:
    assert PathRewrite(replacement="/one").apply("/full/one/two") == "/one"


def test_the_asterisk_has_no_path_to_rewrite() -> None:
    assert PathRewrite(replacement="/one").apply("*") == "*"
    assert PathRewrite(matched="", replacement="/one").apply("*") == "*"


SEGMENTS = st.lists(st.text(st.sampled_from("ab.~"), min_size=1, max_size=4), max_size=4)


@given(SEGMENTS, SEGMENTS, SEGMENTS, st.booleans())
def test_a_normal_path_becomes_a_normal_path(
    matched: list[str], rest: list[str], replacement: list[str], folder: bool
) -> None:
    prefix = normalise_path("/" + "/".join(matched)).rstrip("/")
    tail = normalise_path("/" + "/".join(rest)) if rest or folder else ""
    rewrite = PathRewrite(
        matched=prefix, replacement=normalise_path("/" + "/".join(replacement)).rstrip("/")
    )
    sent = rewrite.apply(prefix + tail or "/")
    assert normalise_path(sent) == sent


def test_it_says_what_it_does() -> None:
    assert str(PathRewrite(matched="/a", replacement="")) == "/a becomes /"
    assert str(PathRewrite(replacement="/b")) == "/b"
