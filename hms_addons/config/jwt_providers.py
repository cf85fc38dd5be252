"""Token providers as configured, made ready to verify with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hms_addons.errors import ConfigError
from hms_addons.identity.jwt_verifier import JwtProvider
from hms_addons.identity.key_source import FileKeySource, SecretKeySource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hms_addons.config.snapshot import JwtProvider as ProviderSpec
    from hms_addons.identity.key_source import KeySource


def make_provider(spec: ProviderSpec, environ: Mapping[str, str]) -> JwtProvider:
    """One issuer of tokens; keys that are not there yet are its `problem`.

    Args:
        spec: as configured.
        environ: where `hs256_secret_env` is looked up.

    Raises:
        ConfigError: it has no source of keys.
    """
    return JwtProvider(
        name=spec.name,
        issuer=spec.issuer,
        audiences=frozenset(spec.audiences),
        algorithms=frozenset(spec.algorithms),
        source=_key_source(spec, environ),
        role_claim=spec.role_claim,
        leeway=spec.leeway,
    )


def _key_source(spec: ProviderSpec, environ: Mapping[str, str]) -> KeySource:
    if spec.hs256_secret_env is not None:
        return SecretKeySource(spec.hs256_secret_env, environ, spec.algorithms)
    if spec.jwks_file is not None:
        return FileKeySource.of_jwks(Path(spec.jwks_file))
    if spec.public_key_file is not None:
        return FileKeySource.of_pem(Path(spec.public_key_file))
    raise ConfigError(
        f"rbac.providers: '{spec.name}' has no keys: set hs256_secret_env, public_key_file or "
        "jwks_file"
    )
