"""What is installed here that a configuration may rely on; made above, as plugins are."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, NamedTuple

from hms_addons.config.problems import closest, listing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hms_addons.config.problems import Path, Report
    from hms_addons.config.schema import Config

HASHING: Final = frozenset({"maglev", "ring_hash"})
"""The built-in balancers that choose by `hash_on`."""
BALANCERS: Final = HASHING | {"ewma", "least_request", "random", "round_robin"}
"""The built-in ones."""


NO_OTEL: Final = (
    "spans need the Python package opentelemetry-proto, which is not installed here; "
    "install the extra (pip install 'hms-svc[otel]'), or take `tracing:` out"
)


def has_otel() -> bool:
    """Whether what the extra `otel` brings is installed here."""
    try:
        return find_spec("opentelemetry.proto") is not None
    except ModuleNotFoundError:  # not even `opentelemetry`
        return False


class Installed(NamedTuple):
    """The plugins of this machine."""

    plugins: frozenset[str]
    """Their names, built-ins and those that are left out included."""
    balancers: Callable[[], frozenset[str]]
    """Those that plugins bring; it loads them, so it is called only if it matters.

    Raises `MeshError` if one of them cannot be loaded.
    """
    otel: bool = True
    """The extra `otel` is there."""


class Known(NamedTuple):
    """What `hms check` looks at beforehand, and a sidecar would only find at its start."""

    complete: bool = True
    """All files could be read; otherwise there is an error already, and nothing is concluded from
    what is not here."""
    installed: Installed | None = None
    """The plugins of the machine that it is for; None: not looked at."""
    files: bool | None = None
    """Certificates and keys: True: must be here and good; False: are elsewhere; None: may come yet."""


def _fallback_plugins(config: Config) -> Iterator[tuple[Path, str]]:
    """The plugins that routes fall back to, and where each is named."""
    for at, listener in enumerate(config.listeners):
        for index, route in enumerate(listener.routes):
            for number, step in enumerate(route.action.fallback or ()):
                if step.plugin is not None:
                    place = ("action", "fallback", number, "plugin")
                    yield ("listeners", at, "routes", index, *place), step.plugin


SIDECAR: Final = Known()
"""It will find out."""


def check_installed(
    config: Config, report: Report, installed: Installed | None, *, elsewhere: bool = False
) -> None:
    """Add to `report` which plugins and balancers a configuration relies on that are not there.

    Args:
        config: the configuration.
        report: takes the problems.
        installed: what there is; None: not known; a sidecar itself will refuse.
        elsewhere: it is for other machines, which may have others.
    """
    if installed is None and not elsewhere:
        return
    told = report.warning if elsewhere else report.error
    if installed is not None and not installed.otel and not elsewhere and config.tracing:
        report.error(("tracing",), NO_OTEL, at_key=True)
    if installed is not None:
        for name in config.plugins:
            if name not in installed.plugins and report.known("plugins", name):
                here = "here" if elsewhere else f"here ({listing(installed.plugins)}); install it"
                guess = closest(name, installed.plugins)
                told(("plugins", name), f"no plugin of this name is {here}", guess, at_key=True)
        for path, name in _fallback_plugins(config):
            if name not in installed.plugins:
                message = f"no plugin {name!r} is here ({listing(installed.plugins)}); install it"
                told(path, message, closest(name, installed.plugins))
    unknown = {
        index: cluster.load_balancer
        for index, cluster in enumerate(config.clusters)
        if cluster.load_balancer is not None and cluster.load_balancer not in BALANCERS
    }
    if not unknown:
        return
    known = BALANCERS if installed is None else BALANCERS | installed.balancers()
    for index, name in unknown.items():
        if name not in known:
            message = (
                f"{name} is no built-in balancer ({listing(BALANCERS)}); a plugin must provide it"
            )
            if not elsewhere:
                message = f"{name!r} is not known; use {listing(known)}"
            told(("clusters", index, "load_balancer"), message, closest(name, known))
