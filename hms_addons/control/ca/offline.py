"""The CA as two commands over a folder: `hms certs init` and `hms certs issue`.

For meshes without a control plane: `init` makes a CA, `issue` writes the three files that a
sidecar's config names under `secrets:` (certificate, key, bundle). Run again, `issue` renews; a
running sidecar takes the new files by itself.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hms_addons.atomic_file import PUBLIC_MODE, SECRET_MODE, write_atomic
from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.control.ca.authority import (
    BUNDLE_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    CaError,
    CertificateAuthority,
)
from hms_addons.control.ca.template import DEFAULT_SVID_LIFETIME
from hms_addons.identity.spiffe_id import SpiffeId, SpiffeIdError
from hms_addons.identity.trust_bundle import fingerprint

if TYPE_CHECKING:
    from pathlib import Path

    from hms_addons.clock import Clock

logger = logging.getLogger(__name__)

DEFAULT_TRUST_DOMAIN = "mpsa.mil"


@dataclass(frozen=True, slots=True)
class InitResult:
    """A new CA: where its files are, and when (seconds since the Unix epoch) it ends."""

    trust_domain: str
    certificate: Path
    key: Path
    bundle: Path
    fingerprint: str
    not_after: float


@dataclass(frozen=True, slots=True)
class IssueResult:
    """A new SVID: where its files are, and when (seconds since the Unix epoch) it ends."""

    spiffe_id: SpiffeId
    certificate: Path
    key: Path
    bundle: Path
    serial: int
    not_after: float


def init_ca(
    folder: Path, trust_domain: str = DEFAULT_TRUST_DOMAIN, clock: Clock = SYSTEM_CLOCK
) -> InitResult:
    """Make a CA for `trust_domain` in `folder` (created 0700 if missing).

    Raises:
        CaError: the folder already holds (part of) a CA, which is never overwritten; it cannot be
            written; or the trust domain is bad.
    """
    paths = [folder / name for name in (CERTIFICATE_FILE, KEY_FILE, BUNDLE_FILE)]
    certificate, key, bundle = paths
    present = [path.name for path in paths if path.exists()]
    if present:
        message = (
            f"{folder} already holds {', '.join(present)}: a CA is never overwritten, because all "
            "SVIDs it signed would stop working; choose another folder, or move it away"
        )
        raise CaError(message)
    try:
        authority = CertificateAuthority.create(trust_domain, clock)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority.save(folder)
    except SpiffeIdError as error:
        message = f"cannot make a CA: {error}"
        raise CaError(message) from error
    except OSError as error:
        raise _unwritable(folder, error) from error
    return InitResult(
        trust_domain=trust_domain,
        certificate=certificate,
        key=key,
        bundle=bundle,
        fingerprint=fingerprint(authority.certificate),
        not_after=authority.certificate.not_valid_after_utc.timestamp(),
    )


def issue_svid(
    service: str,
    ca: Path,
    out: Path,
    lifetime: float = DEFAULT_SVID_LIFETIME,
    clock: Clock = SYSTEM_CLOCK,
) -> IssueResult:
    """Issue an SVID to `service`: `out/<service>.pem`, `<service>.key` (0600), `bundle.pem`.

    Files of an earlier issuance are replaced, each in one step, the certificate last: a sidecar
    that watches them keeps the old pair until the new one is complete.

    Args:
        service: the service's name, e.g. `auth-svc` (not `auth-svc.svc`, nor a SPIFFE ID).
        ca: folder of the CA.
        out: folder for the three files, created if missing.
        lifetime: seconds.
        clock: tells now.

    Raises:
        CaError: bad service name, no usable CA in `ca`, bad lifetime, or `out` cannot be written.
    """
    authority = CertificateAuthority.load(ca, clock)
    try:
        spiffe_id = SpiffeId.for_service(authority.trust_domain, service)
    except SpiffeIdError as error:
        raise CaError(str(error)) from error
    certificate, key, bundle = out / f"{service}.pem", out / f"{service}.key", out / BUNDLE_FILE
    if certificate == bundle or certificate.resolve() == (ca / CERTIFICATE_FILE).resolve():
        message = (
            f"an SVID of {service!r} would overwrite {certificate}: give it another name or --out"
        )
        raise CaError(message)
    svid = authority.issue(spiffe_id, lifetime)
    if svid.not_after < clock.wall() + lifetime - 1:
        logger.warning("the SVID of %s is shortened to end with its CA", spiffe_id)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(bundle, authority.bundle.to_pem(), mode=PUBLIC_MODE)
        write_atomic(key, svid.key_pem(), mode=SECRET_MODE)
        write_atomic(certificate, svid.chain_pem(), mode=PUBLIC_MODE)
    except OSError as error:
        raise _unwritable(out, error) from error
    return IssueResult(
        spiffe_id=spiffe_id,
        certificate=certificate,
        key=key,
        bundle=bundle,
        serial=svid.serial,
        not_after=svid.not_after,
    )


def _unwritable(folder: Path, error: OSError) -> CaError:
    return CaError(f"cannot write to {folder}: {error.strerror or error}: check its permissions")
