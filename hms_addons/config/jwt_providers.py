"""Token providers as configured, made ready to verify with."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hms_addons.errors import ConfigError
from hms_addons.identity.jwks_uri import UriKeySource
from hms_addons.identity.jwt_verifier import JwtProvider
from hms_addons.identity.key_source import FileKeySource, SecretKeySource

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping

    import httpx

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import JwtProvider as ProviderSpec
    from hms_addons.identity.key_source import KeySource
    from hms_addons.tasks import TaskSet

type _Address = tuple[str, str | None]
"""`jwks_uri` and `jwks_ca_file`: providers that have both alike share their keys."""


class RemoteKeys:
    """The key sets of all `jwks_uri`, kept from one configuration to the next.

    Args:
        clock, rng, tasks, changed, transport: see `UriKeySource`.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        rng: random.Random,
        tasks: TaskSet,
        changed: Callable[[], object],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._tasks = tasks
        self._changed = changed
        self._transport = transport
        self._sources: dict[_Address, UriKeySource] = {}
        self._current: frozenset[_Address] = frozenset()
        self._started = False

    def __repr__(self) -> str:
        return f"<RemoteKeys {list(self._sources.values())}>"

    def source(self, uri: str, ca_file: str | None) -> UriKeySource:
        """The keys of an address; the same ones each time."""
        source = self._sources.get((uri, ca_file))
        if source is None:
            # Here, before the sidecar is ready: its import takes 0.3 s, during which nothing else runs.
            importlib.import_module("httpx")
            source = self._sources[uri, ca_file] = UriKeySource(
                uri,
                ca_file,
                clock=self._clock,
                rng=self._rng,
                tasks=self._tasks,
                changed=self._changed,
                transport=self._transport,
            )
        return source

    def keep(self, current: Iterable[ProviderSpec], previous: Iterable[ProviderSpec]) -> None:
        """Ask for what `current` names, only keep what `previous` does, and forget all others."""
        self._current = _addresses(current)
        kept = self._current | _addresses(previous)
        for address, source in list(self._sources.items()):
            if address not in self._current:
                source.stop()
            elif self._started:
                source.start()
            if address not in kept:
                del self._sources[address]

    def start(self) -> None:
        """Begin to ask."""
        self._started = True
        for address in self._current:
            self._sources[address].start()

    def stop(self) -> None:
        """Stop asking."""
        self._started = False
        for source in self._sources.values():
            source.stop()


def _addresses(specs: Iterable[ProviderSpec]) -> frozenset[_Address]:
    return frozenset(
        (spec.jwks_uri, spec.jwks_ca_file) for spec in specs if spec.jwks_uri is not None
    )


def make_provider(
    spec: ProviderSpec, environ: Mapping[str, str], remote: RemoteKeys | None = None
) -> JwtProvider:
    """One issuer of tokens; keys that are not there yet are its `problem`.

    Args:
        spec: as configured.
        environ: where `hs256_secret_env` is looked up.
        remote: what fetches keys; without it, a `jwks_uri` is no source.

    Raises:
        ConfigError: it has no source of keys.
    """
    return JwtProvider(
        name=spec.name,
        issuer=spec.issuer,
        audiences=frozenset(spec.audiences),
        algorithms=frozenset(spec.algorithms),
        source=_key_source(spec, environ, remote),
        role_claim=spec.role_claim,
        leeway=spec.leeway,
        forward=spec.forward,
    )


def _key_source(
    spec: ProviderSpec, environ: Mapping[str, str], remote: RemoteKeys | None
) -> KeySource:
    if spec.hs256_secret_env is not None:
        return SecretKeySource(spec.hs256_secret_env, environ, spec.algorithms)
    if spec.jwks_uri is not None and remote is not None:
        return remote.source(spec.jwks_uri, spec.jwks_ca_file)
    if spec.jwks_file is not None:
        return FileKeySource.of_jwks(Path(spec.jwks_file))
    if spec.public_key_file is not None:
        return FileKeySource.of_pem(Path(spec.public_key_file))
    raise ConfigError(
        f"rbac.providers: '{spec.name}' has no keys: set jwks_uri, hs256_secret_env, "
        "public_key_file or jwks_file"
    )


def provider_status(providers: Iterable[JwtProvider]) -> list[dict[str, Any]]:
    """Each provider's keys by id, and what is wrong, as JSON-ready types; no keys themselves."""
    return [
        {
            "name": provider.name,
            "issuer": provider.issuer,
            "algorithms": sorted(provider.algorithms),
            "keys": [key.key_id for key in provider.source.keys.keys],
            "problem": provider.problem,
            **(provider.source.status() if isinstance(provider.source, UriKeySource) else {}),
        }
        for provider in providers
    ]
