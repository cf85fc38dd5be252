from __future__ import annotations

import posixpath
import string
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config import request_target as module
from hms_addons.config.request_target import (
    Target,
    TargetError,
    named_service,
    normalise_path,
    parse_target,
    take_apart,
)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/verify-id", "/verify-id", ""),
        (b"/verify-id?host=auth-svc.svc", "/verify-id", "host=auth-svc.svc"),
        (b"/a?", "/a", ""),
        (b"/a?b?c", "/a", "b?c"),
        (b"/a?x=%2F%00&y[0]={z}", "/a", "x=%2F%00&y[0]={z}"),
        (b"/a?../..//", "/a", "../..//"),
        (b"/a/./b", "/a/b", ""),
        (b"/a/../b", "/b", ""),
        (b"/a/b/..", "/a/", ""),
        (b"/a/b/.", "/a/b/", ""),
        (b"/..", "/", ""),
        (b"/../../etc/passwd", "/etc/passwd", ""),
        (b"//evil.example/x", "/evil.example/x", ""),
        (b"/a//b///c", "/a/b/c", ""),
        (b"/a//../b", "/b", ""),
        (b"/a/", "/a/", ""),
        (b"/a//", "/a/", ""),
        (b"/.well-known/x", "/.well-known/x", ""),
        (b"/...", "/...", ""),
        (b"/..a", "/..a", ""),
        (b"/a/%2e%2e/b", "/b", ""),
        (b"/a/%2E./b", "/b", ""),
        (b"/a/.%2e", "/", ""),
        (b"/%61dmin", "/admin", ""),
        (b"/x%3Adelete", "/x:delete", ""),
        (b"/a%2bb%3bc", "/a%2Bb%3Bc", ""),
        (b"/caf%c3%a9", "/caf%C3%A9", ""),
        (b"/%25%32%65", "/%252e", ""),
        (b"/%252e%252e/", "/%252e%252e/", ""),
        (b"/%0d%0a", "/%0D%0A", ""),
        (b"/[a]{b}|c", "/%5Ba%5D%7Bb%7D%7Cc", ""),
        (b"/;a=b/c", "/;a=b/c", ""),
    ],
)
def test_origin_form(target: bytes, path: str, query: str) -> None:
    assert parse_target(target, b"GET") == Target(path, query, None)


@pytest.mark.parametrize(
    ("target", "path", "authority"),
    [
        (b"http://auth-svc.svc/verify-id", "/verify-id", "auth-svc.svc"),
        (b"HTTP://Auth-SVC.svc:80/verify-id", "/verify-id", "auth-svc.svc:80"),
        (b"https://a", "/", "a"),
        (b"http://[::1]:8080/x/../y", "/y", "[::1]:8080"),
        (b"http://a:/x", "/x", "a:"),
    ],
)
def test_absolute_form(target: bytes, path: str, authority: str) -> None:
    assert parse_target(target, b"GET") == Target(path, "", authority)


def test_absolute_form_with_a_query_and_no_path() -> None:
    assert parse_target(b"http://a?x=1", b"GET") == Target("/", "x=1", "a")


def test_asterisk_form_is_for_options_only() -> None:
    assert parse_target(b"*", b"OPTIONS") == Target("*", "", None)
    assert parse_target(b"http://a", "OPTIONS") == Target("*", "", "a")
    with pytest.raises(TargetError, match="OPTIONS only"):
        parse_target(b"*", b"GET")


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (b"/a%2fb", r"%2f \(/\)"),
        (b"/a%2Fb", r"%2F \(/\)"),
        (b"/a%5cb", r"%5c"),
        (b"/a\\b", "backslash"),
        (b"/..\\..\\x", "backslash"),
        (b"/a%00", "NUL"),
        (b"/a%", "bad escape"),
        (b"/a%4", "bad escape"),
        (b"/a%zz", "bad escape"),
        (b"/a%4%", "bad escape"),
        (b"/a%+1", "bad escape"),
        (b"/a b", "space"),
        (b"/a?b c", "space"),
        (b"/a#b", "fragment"),
        (b"/a?b#c", "fragment"),
        (b"/a\x00", "control"),
        (b"/a\r\nX: y", "control"),
        (b"/a\x7f", "control"),
        (b"/caf\xc3\xa9", "beyond ASCII"),
        (b"/a?\xff", "beyond ASCII"),
        (b"/public/..;/admin", "parameter"),
        (b"/public/..;a=b/admin", "parameter"),
        (b"/public/..%3b/admin", "parameter"),
        (b"/public/%2e%2e;/admin", "parameter"),
        (b"/.;/admin", "parameter"),
        (b"", "neither"),
        (b"a", "neither"),
        (b"?a", "neither"),
        (b"example.org:443", "neither"),
        (b"ftp://a/", "scheme"),
        (b"http://", "not a host"),
        (b"http:///a", "not a host"),
        (b"http://a b/", "not a host"),
        (b"http://user@a/", "user information"),
        (b"http://auth-svc.svc@evil/", "user information"),
        (b"http://a:port/", "not a host"),
        (b"http://a\\b/", "not a host"),
        (b"http://a/%2f", "%2f"),
    ],
)
def test_refused(target: bytes, why: str) -> None:
    with pytest.raises(TargetError, match=why):
        parse_target(target, b"GET")


def test_an_error_quotes_no_more_than_a_line() -> None:
    with pytest.raises(TargetError) as caught:
        parse_target(b"/" + b"a" * 5000 + b" ", b"GET")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "target", [b"/a?token=hunter2#x", b"/a?token=hunter2\xff", b"ftp://a/?hunter2"]
)
def test_an_error_quotes_no_query(target: bytes) -> None:
    with pytest.raises(TargetError, match=r"/a?\?…': ") as caught:
        parse_target(target, b"GET")
    assert "hunter2" not in str(caught.value)


segments = st.one_of(
    st.sampled_from(
        ["", ".", "..", "...", "a", "%2e", "%2E%2e", ".%2e", "b;c", "%41", "%3a", "%25"]
    ),
    st.text(string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@[]{}|^\"<>`", max_size=5),
    st.binary(max_size=3).map(lambda raw: "".join(f"%{byte:02x}" for byte in raw)),
)
paths = st.lists(segments, max_size=8).map(lambda parts: "/" + "/".join(parts))


@given(paths)
def test_normal_paths_are_fixed_points_and_stay_below_the_root(path: str) -> None:
    try:
        normal = normalise_path(path)
    except TargetError:
        return
    assert normal.startswith("/")
    assert normal_segments(normal).isdisjoint({".", ".."})
    assert "//" not in normal
    assert normalise_path(normal) == normal
    assert parse_target(normal.encode(), b"GET").path == normal


def normal_segments(path: str) -> set[str]:
    return set(unquote(path).split("/"))


@given(st.lists(st.sampled_from(["", ".", "..", "a", "b", "c.d"]), max_size=10))
def test_dot_segments_as_the_file_system_resolves_them(parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    expected = posixpath.normpath("/" + path.lstrip("/"))
    assert normalise_path(path).rstrip("/") == expected.rstrip("/")


@given(st.text(string.ascii_letters + string.digits + "-._~!$&'()*,=:@", min_size=1), st.data())
def test_every_spelling_of_a_path_is_one_path(text: str, data: st.DataObject) -> None:
    """No policy can be passed by escaping a letter of the path that it is for."""
    spelled = "".join(f"%{ord(c):02x}" if data.draw(st.booleans()) else c for c in f"x{text}")
    assert normalise_path(f"/{spelled}") == normalise_path(f"/x{text}") == f"/x{text}"


@given(paths)
def test_what_is_decoded_means_the_same(path: str) -> None:
    try:
        normal = normalise_path(path)
    except TargetError:
        return
    if "." not in unquote(path) and "//" not in path:
        assert unquote(normal) == unquote(path)


@given(st.binary(max_size=40))
def test_any_bytes_are_parsed_or_refused(target: bytes) -> None:
    try:
        path, query, _ = parse_target(target, b"GET")
    except TargetError:
        return
    sent = f"{path}?{query}"
    assert sent.isascii()
    assert sent.isprintable()
    assert " " not in sent


@pytest.mark.parametrize(
    ("query", "host", "expected"),
    [
        ("", b"localhost:15001", (None, "")),
        ("", None, (None, "")),
        ("host=auth-svc.svc", b"localhost:15001", ("auth-svc", "")),
        ("a=1&host=auth-svc.svc&b=2", b"localhost", ("auth-svc", "a=1&b=2")),
        ("host=auth%2Dsvc.svc", None, ("auth-svc", "")),
        ("host=Auth-SVC.SVC", None, ("auth-svc", "")),
        ("host=example.org", b"localhost", (None, "host=example.org")),
        ("host=example.org&host=a.svc", None, ("a", "host=example.org")),
        ("myhost=a.svc", None, (None, "myhost=a.svc")),
        ("host=", None, (None, "host=")),
        ("host=a.svc.evil", None, (None, "host=a.svc.evil")),
        ("x=host=a.svc", None, (None, "x=host=a.svc")),
        ("host=.svc", None, ("", "")),
        ("", b"auth-svc.svc", ("auth-svc", "")),
        ("", b"Auth-Svc.SVC:80", ("auth-svc", "")),
        ("a=b", b"auth-svc.svc.cluster.local", (None, "a=b")),
        ("host=b.svc", b"a.svc", ("b", "")),
        ("host=example.org", b"a.svc", ("a", "host=example.org")),
        ("", b"\xff.svc", ("\xff", "")),
        # Once more the same: it goes too.
        ("host=a.svc&x=1&host=A.SVC&host=%61.sv%63", None, ("a", "x=1")),
        ("%68ost=a.svc&ho%73t=a.svc", b"b.svc", ("a", "")),
        ("%68%6F%73%74=A%2eSvC", None, ("a", "")),
        ("host=a.svc&host=example.org&x=%20", None, ("a", "host=example.org&x=%20")),
        # The app's own.
        ("Host=a.svc", None, (None, "Host=a.svc")),
        ("%48ost=a.svc&x=%41", None, (None, "%48ost=a.svc&x=%41")),
        ("h%6fst", None, (None, "h%6fst")),
    ],
)
def test_named_service(query: str, host: bytes | None, expected: tuple[str | None, str]) -> None:
    assert named_service(query, host) == expected


@pytest.mark.parametrize(
    "query",
    [
        "host=a.svc&host=b.svc",
        "host=a.svc&x=1&host=A.svc&host=B.SVC",
        "host=a.svc&%68ost=b.svc",
        "host=a.svc&HOST=c.svc&hos%74=%62%2Esvc",
        "%68ost=a.svc&host=b%2Esvc",
    ],
)
def test_two_services_in_one_query_are_refused(query: str) -> None:
    with pytest.raises(TargetError, match="names two services, 'a' and 'b': leave one `host`"):
        named_service(query, b"localhost:15001")


def test_a_long_name_of_a_service_is_not_repeated_whole() -> None:
    with pytest.raises(TargetError) as caught:
        named_service(f"host=a.svc&host={'b' * 5000}.svc", None)
    assert len(str(caught.value)) < 300


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=5))
def test_other_parameters_pass_untouched(pairs: list[tuple[str, str]]) -> None:
    others = [f"{quote(name)}={quote(value)}" for name, value in pairs if name != "host"]
    for at in range(len(others) + 1):
        query = "&".join([*others[:at], "host=s.svc", *others[at:]])
        assert named_service(query, None) == ("s", "&".join(others))


@given(st.lists(st.binary(max_size=12).map(lambda rest: b"/" + rest), max_size=20))
def test_what_is_remembered_changes_nothing(targets: list[bytes]) -> None:
    def outcome(target: bytes) -> object:
        try:
            return take_apart(target, b"GET")
        except TargetError as error:
            return str(error)

    once = [outcome(target) for target in targets]
    assert [outcome(target) for target in targets] == once
    module._known.clear()
    assert [outcome(target) for target in targets] == once


def test_paths_are_remembered_within_bounds() -> None:
    for number in range(3 * module._CACHED):
        parse_target(b"/%d" % number, b"GET")
    parse_target(b"/" + b"a" * 10_000, b"GET")
    assert len(module._known) <= module._CACHED
    assert max(map(len, module._known)) <= module._CACHED_LENGTH
