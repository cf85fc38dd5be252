"""A secret in three files, followed as they change.

Files are polled, not watched by inotify: it works on every file system, through the symlinks that
Kubernetes and cert-manager swap, and costs three `stat` calls a second. Whatever state the files
are in while somebody replaces them one by one, the running identity is only swapped for one that
is complete and valid; until then the old one serves, and the reason is logged once.
"""

from __future__ import annotations

import logging
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from hms_addons.identity.identity_holder import SecretError, SecretMaterial
from hms_addons.identity.svid import Svid, SvidError, iso_time
from hms_addons.identity.trust_bundle import TrustBundle, TrustBundleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hms_addons.clock import Clock
    from hms_addons.identity.identity_holder import Identity, IdentityHolder

logger = logging.getLogger(__name__)

POLL_INTERVAL: Final = 1.0
"""Seconds between looks at the files."""

MAX_FILE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SecretFiles:
    """Where a secret lies.

    `certificate` is a PEM chain, leaf first; `key` an unencrypted PEM private key; `bundle` the
    roots, as PEM or as a SPIFFE bundle (JSON).
    """

    certificate: Path
    key: Path
    bundle: Path

    def __iter__(self) -> Iterator[Path]:
        return iter((self.certificate, self.key, self.bundle))


class _Stamp(NamedTuple):
    """What changes when a file does, however it was replaced."""

    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class FileSecret:
    """Feeds an `IdentityHolder` from three files.

    Args:
        files: where they are.
        holder: what to feed; its name is the secret's.
        clock: time, injected.
        trust_domain: the only one accepted; None takes the certificate's.
    """

    __slots__ = (
        "_clock",
        "_expiry_logged",
        "_files",
        "_holder",
        "_loaded",
        "_reason",
        "_trust_domain",
    )

    def __init__(
        self,
        files: SecretFiles,
        holder: IdentityHolder,
        clock: Clock,
        trust_domain: str | None = None,
    ) -> None:
        self._files = files
        self._holder = holder
        self._clock = clock
        self._trust_domain = trust_domain
        self._loaded: tuple[_Stamp | None, ...] | None = None
        self._reason: str | None = None
        self._expiry_logged = False

    def __repr__(self) -> str:
        state = self._reason or "in step with its files"
        return f"<FileSecret {self._holder.name} {self._files.certificate}: {state}>"

    @property
    def problem(self) -> str | None:
        """Why the files as they are now cannot be used, or None."""
        return self._reason

    def load(self) -> Identity:
        """Read the files and swap them in.

        Raises:
            SecretError: a file is missing or unreadable, the three do not fit, or the certificate
                is not a valid SVID; what was there before stays.
        """
        # Stamps first: a file replaced while we read is then seen as a change next time.
        stamps = tuple(_stamp(path) for path in self._files)
        identity = self._holder.replace(self.read(), self._clock.wall())
        self._loaded = stamps
        self._reason = None
        self._expiry_logged = False
        return identity

    def read(self) -> SecretMaterial:
        """Read and check the files without swapping anything (`hms check` does only this).

        Raises:
            SecretError: as in `load`.
        """
        name, files, now = self._holder.name, self._files, self._clock.wall()
        chain, key, roots = (_read(path, name) for path in files)
        try:
            svid = Svid.from_pem(chain, key, now=now, trust_domain=self._trust_domain)
        except SvidError as error:
            message = f"secret {name!r}: {files.certificate} with {files.key}: {error}"
            raise SecretError(message) from error
        try:
            bundle = _bundle(svid.spiffe_id.trust_domain, roots)
            material = SecretMaterial(svid, bundle)
            material.check(now)
        except (TrustBundleError, SvidError) as error:
            message = f"secret {name!r}: {files.certificate} with {files.bundle}: {error}"
            raise SecretError(message) from error
        _warn_of_open_key(files.key, name)
        return material

    def poll(self) -> Identity | None:
        """Look once: swap in changed files if they are good, else keep what there is and log why.

        Returns:
            The new identity, or None if nothing was swapped.
        """
        self._log_expiry()
        if self._loaded == tuple(_stamp(path) for path in self._files):
            return None
        try:
            return self.load()
        except SecretError as error:
            # Tried again at each look, not only when a file changes: "not valid before" passes by
            # itself. Logged once per reason.
            if (reason := str(error)) != self._reason:
                self._reason = reason
                kept = "the old one stays in use" if self._holder.current else "there is none yet"
                logger.warning("%s; %s", reason, kept)
            return None

    async def watch(self, interval: float = POLL_INTERVAL) -> None:
        """Poll every `interval` seconds until cancelled."""
        while True:
            await self._clock.sleep(interval)
            self.poll()

    def _log_expiry(self) -> None:
        identity = self._holder.current
        if identity is None or self._expiry_logged:
            return
        if self._clock.wall() > identity.svid.not_after:
            self._expiry_logged = True
            logger.error(
                "secret %s: %s expired at %s and peers refuse it: renew %s",
                self._holder.name,
                identity.spiffe_id,
                iso_time(identity.svid.not_after),
                self._files.certificate,
            )


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return _Stamp(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _read(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        message = (
            f"secret {name!r}: {path}: {error.strerror or error}: give a readable file, for "
            "instance one that `hms certs issue` wrote"
        )
        raise SecretError(message) from error
    if len(content) > MAX_FILE_BYTES:
        message = f"secret {name!r}: {path} is larger than {MAX_FILE_BYTES} bytes"
        raise SecretError(message)
    return content


def _bundle(trust_domain: str, content: bytes) -> TrustBundle:
    if content.lstrip().startswith(b"{"):
        return TrustBundle.from_spiffe_json(trust_domain, content)
    return TrustBundle.from_pem(trust_domain, content)


def _warn_of_open_key(path: Path, name: str) -> None:
    if path.stat().st_mode & stat.S_IROTH:
        logger.warning("secret %s: every user can read the key %s: chmod 600 it", name, path)
