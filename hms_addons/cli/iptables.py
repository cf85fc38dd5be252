"""`hms iptables`: lead an app's calls to its sidecar, whatever the app calls."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from hms_addons.cli.output import USAGE, Json, fail, print_json, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.iptables.rules import Network

iptables = typer.Typer(
    help="The machine's rules that lead an app's calls to its sidecar, so that unchanged code which "
    "calls http://auth-svc.svc is carried. Needs a listener of kind: transparent.",
    no_args_is_help=True,
)

_LAST_PORT = 65535
_MOST_PORTS = 64
_TLS_PORTS = frozenset({443, 8443, 6443})

Apply = Annotated[
    bool,
    typer.Option(
        "--apply",
        help="Do it, in the network namespace that this runs in; else it is only printed.",
    ),
]
Host = Annotated[
    bool,
    typer.Option(
        "--host",
        help="With --apply: yes, in the machine's own network namespace, for all its programs.",
    ),
]
Variant = Annotated[
    str,
    typer.Option(
        "--variant",
        envvar="HMS_IPTABLES_VARIANT",
        help="`nft` or `legacy`, where the machine's default kind of iptables does not do.",
    ),
]


@iptables.command("up")
def iptables_up(  # noqa: PLR0913 - each is an option of the command
    ports: Annotated[
        str,
        typer.Option(
            "--ports",
            envvar="HMS_IPTABLES_PORTS",
            help="TCP ports whose calls are intercepted, with commas: those of plain HTTP.",
        ),
    ] = "80",
    to: Annotated[
        int,
        typer.Option(
            "--to",
            envvar="HMS_IPTABLES_TO",
            min=1,
            max=_LAST_PORT,
            help="Port of the listener of kind: transparent.",
        ),
    ] = 15001,
    uid: Annotated[
        list[str] | None,
        typer.Option(
            "--uid",
            envvar="HMS_IPTABLES_UID",
            help="User the sidecar runs as, by number or name: its calls are left alone. May be repeated. "
            "Default 1337, the images'.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            envvar="HMS_IPTABLES_EXCLUDE",
            metavar="ADDRESS|NETWORK",
            help="What is called as before, as 169.254.169.254 or 10.0.0.0/8. May be repeated.",
        ),
    ] = None,
    dns: Annotated[
        int | None,
        typer.Option(
            "--dns",
            envvar="HMS_IPTABLES_DNS",
            metavar="PORT",
            min=1,
            max=_LAST_PORT,
            help="Also lead DNS queries (UDP and TCP, port 53) to this port: a listener of kind: dns, as "
            "15053.",
        ),
    ] = None,
    inbound: Annotated[
        str,
        typer.Option(
            "--inbound",
            envvar="HMS_IPTABLES_INBOUND",
            metavar="PORTS",
            help="Also lead calls from outside to these ports of the app to the inbound listener.",
        ),
    ] = "",
    inbound_to: Annotated[
        int,
        typer.Option(
            "--inbound-to",
            envvar="HMS_IPTABLES_INBOUND_TO",
            min=1,
            max=_LAST_PORT,
            help="Port of the inbound listener.",
        ),
    ] = 15006,
    variant: Variant = "",
    *,
    ipv6: Annotated[
        bool,
        typer.Option(
            "--ipv6",
            envvar="HMS_IPTABLES_IPV6",
            help="IPv6 too: the listeners must be on ::1 as well.",
        ),
    ] = False,
    apply: Apply = False,
    host: Host = False,
    as_json: Json = False,
) -> None:
    """Lead an app's calls to its sidecar; prints the commands, or with --apply runs them.

    Calls of the sidecar's own user and to 127.0.0.0/8 are left alone (but 127.240.240.1, which
    names of the mesh stand for). Done again, it replaces what it had done, at once.

    Example: `hms iptables up --ports 80,8080 --dns 15053 --apply`
    """
    from hms_addons.iptables.rules import Redirection, rules_of, script_up  # noqa: PLC0415 - start-up time

    redirection = Redirection(
        ports=_ports("--ports", ports) or (80,),
        to=to,
        uids=tuple(map(_user, uid or ["1337"])),
        exclude=tuple(map(_network, exclude or [])),
        dns=dns,
        inbound=_ports("--inbound", inbound),
        inbound_to=inbound_to,
        ipv6=ipv6,
    )
    _check(redirection.ports, to, dns, redirection.inbound, inbound_to)
    from hms_addons.iptables.applied import Iptables, namespace  # noqa: PLC0415 - start-up time

    if apply:
        _guard(host=host)
        _do(lambda: Iptables(_variant(variant)).up(redirection))
    if as_json:
        print_json(
            {
                "applied": apply,
                "namespace": namespace(),
                "does": str(redirection),
                "rules": {f.command: rules_of(redirection, f) for f in redirection.families},
                "script": script_up(redirection),
            }
        )
    elif apply:
        write(f"{namespace()}: {redirection}\n`hms iptables down --apply` ends it.\n")
    else:
        write(
            f"# {redirection}.\n# Nothing is changed yet: run this as root in the network namespace of the app, "
            f"or add --apply.\n{script_up(redirection)}"
        )


@iptables.command("down")
def iptables_down(
    variant: Variant = "", *, apply: Apply = False, host: Host = False, as_json: Json = False
) -> None:
    """Take away what `hms iptables up` has made, and nothing else.

    Prints the commands, or with --apply runs them.

    Example: `hms iptables down --apply`
    """
    from hms_addons.iptables.applied import Iptables, namespace  # noqa: PLC0415 - start-up time
    from hms_addons.iptables.rules import script_down  # noqa: PLC0415

    if apply:
        _guard(host=host)
        _do(Iptables(_variant(variant)).down)
    if as_json:
        print_json({"applied": apply, "namespace": namespace(), "script": script_down()})
    elif apply:
        write(f"{namespace()}: nothing is led to a sidecar any more\n")
    else:
        write(f"# Nothing is changed yet: run this as root, or add --apply.\n{script_down()}")


def _do(what: Callable[[], None]) -> None:
    from hms_addons.iptables.applied import IptablesError  # noqa: PLC0415 - start-up time

    try:
        what()
    except IptablesError as error:
        raise fail(str(error)) from None


def _guard(*, host: bool) -> None:
    """Keep somebody from intercepting all of a machine's calls by mistake.

    Raises:
        typer.Exit: it would be so, and nobody has said that it is meant.
    """
    from hms_addons.iptables.applied import is_the_machines, namespace  # noqa: PLC0415 - start-up time

    if not host and is_the_machines():
        raise fail(
            f"{namespace()} is the machine's own network namespace: the calls of all its programs would "
            "change. Run it in the app's (a container, a pod's init container, `ip netns exec`), or add "
            "--host if all are meant"
        )


def _variant(word: str) -> str:
    if word not in {"", "nft", "legacy"}:
        raise fail(f"--variant {word}: give nft or legacy", USAGE)
    return word


def _ports(option: str, words: str) -> tuple[int, ...]:
    found: dict[int, None] = {}
    for word in filter(None, (part.strip() for part in words.split(","))):
        if not (word.isascii() and word.isdigit()) or not 1 <= int(word[:6]) <= _LAST_PORT:
            raise fail(f"{option} {words}: give ports with commas, as 80,8080", USAGE)
        found[int(word)] = None
    if len(found) > _MOST_PORTS:
        raise fail(
            f"{option}: {len(found)} ports are more than the {_MOST_PORTS} that are taken", USAGE
        )
    return tuple(found)


def _user(word: str) -> int:
    if word.isascii() and word.isdigit():
        return int(word[:10])
    import pwd  # noqa: PLC0415 - seldom needed

    try:
        return pwd.getpwnam(word).pw_uid
    except (KeyError, ValueError):
        raise fail(f"--uid {word}: there is no such user here; give its number", USAGE) from None


def _network(word: str) -> Network:
    from ipaddress import ip_network  # noqa: PLC0415 - start-up time

    try:
        return ip_network(word, strict=False)
    except ValueError:
        message = f"--exclude {word}: give an address or a network, as 10.0.0.0/8"
        raise fail(message, USAGE) from None


def _check(
    ports: tuple[int, ...], to: int, dns: int | None, inbound: tuple[int, ...], inbound_to: int
) -> None:
    """Refuse what cannot have been meant, and warn of what hardly was."""
    if to in ports:
        raise fail(f"--ports {to} and --to {to}: a listener's own port cannot be led to it", USAGE)
    if inbound_to in inbound:
        message = (
            f"--inbound {inbound_to} and --inbound-to {inbound_to}: that is the listener's own port"
        )
        raise fail(message, USAGE)
    if dns is not None and 53 in ports:  # noqa: PLR2004 - DNS
        raise fail("--ports 53 and --dns: DNS over TCP can go to one of them only", USAGE)
    tls = _TLS_PORTS.intersection(ports)
    if tls:
        sys.stderr.write(
            f"hms: warning: port {min(tls)} is usually TLS, which a transparent listener does not read: "
            "it answers 400\n"
        )
