"""Where an issuer's keys come from: one protocol, and its file and environment forms.

The form that fetches them is `jwks_uri`.

A source never blocks start-up and never fails a request by itself: while it has no keys its `KeySet`
is empty, so its tokens are refused, and `problem` says why. Once it has keys they serve until newer
ones can be read.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

from hms_addons.identity.key_set import (
    KeySet,
    KeySetError,
    key_set_of_jwks,
    key_set_of_pem,
    key_set_of_secret,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

MAX_KEY_FILE_BYTES: Final = 1024 * 1024


class KeySource(Protocol):
    """Yields the current keys of one issuer."""

    @property
    def keys(self) -> KeySet:
        """The keys to verify with now; empty while there are none."""

    @property
    def problem(self) -> str | None:
        """Why there are no keys, or why newer ones could not be read; None while all is well."""

    def refresh(self) -> bool:
        """Look whether there are newer keys, without waiting; called about once a second.

        Returns:
            True if `keys` is not the set that it was at the last call.
        """

    def renewal(self) -> Awaitable[bool] | None:
        """Newer keys on demand, as a token names one that is not here.

        Returns:
            What ends soon, with whether the issuer has answered; None where there is nothing to wait for.
        """


class SecretKeySource:
    """A shared secret from an environment variable (`hs256_secret_env`), read once.

    Args:
        variable: its name.
        environ: the environment.
        algorithms: the HMAC algorithms that it may verify.
    """

    __slots__ = ("_keys", "_problem")

    def __init__(
        self,
        variable: str,
        environ: Mapping[str, str],
        algorithms: Iterable[str] = ("HS256",),
    ) -> None:
        self._keys = KeySet()
        self._problem: str | None = None
        secret = environ.get(variable)
        if not secret:
            self._problem = f"the environment variable {variable} is not set: export the secret"
            return
        try:
            self._keys = key_set_of_secret(secret, algorithms)
        except KeySetError as error:
            self._problem = f"the environment variable {variable}: {error}"

    @property
    def keys(self) -> KeySet:
        """See `KeySource`."""
        return self._keys

    @property
    def problem(self) -> str | None:
        """See `KeySource`."""
        return self._problem

    def refresh(self) -> bool:
        """See `KeySource`; an environment does not change."""
        return False

    def renewal(self) -> None:
        """See `KeySource`."""


def read_key_file(path: Path) -> bytes:
    """The content of a file of keys; no more than 1 MiB of it is read.

    Raises:
        OSError: it cannot be read.
        KeySetError: it is longer than that.
    """
    with path.open("rb") as file:
        content = file.read(MAX_KEY_FILE_BYTES + 1)
    if len(content) > MAX_KEY_FILE_BYTES:
        raise KeySetError(f"it is longer than {MAX_KEY_FILE_BYTES} bytes, as no set of keys is")
    return content


class FileKeySource:
    """Keys in a file, read again when it changes (inode, size or time).

    Args:
        path: the file.
        parse: turns its content into keys; raises `KeySetError`.
    """

    __slots__ = ("_keys", "_parse", "_path", "_problem", "_stamp")

    def __init__(self, path: Path, parse: Callable[[bytes], KeySet]) -> None:
        self._path = path
        self._parse = parse
        self._keys = KeySet()
        self._problem: str | None = None
        self._stamp: tuple[int, ...] | None = None
        self.refresh()

    @classmethod
    def of_jwks(cls, path: Path) -> FileKeySource:
        """A JWK set (`jwks_file`)."""
        return cls(path, key_set_of_jwks)

    @classmethod
    def of_pem(cls, path: Path) -> FileKeySource:
        """PEM public keys (`public_key_file`)."""
        return cls(path, key_set_of_pem)

    def __repr__(self) -> str:
        return f"<FileKeySource {self._path} keys={len(self._keys.keys)} problem={self._problem!r}>"

    @property
    def keys(self) -> KeySet:
        """See `KeySource`."""
        return self._keys

    @property
    def problem(self) -> str | None:
        """See `KeySource`."""
        return self._problem

    def refresh(self) -> bool:
        """See `KeySource`: one `stat`, and a read if the file is another than before."""
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if stamp == self._stamp:
                return False
            self._stamp = stamp
            keys = self._parse(read_key_file(self._path))
        except OSError as error:
            self._stamp = None
            self._note(f"{self._path}: {error.strerror or error}")
            return False
        except KeySetError as error:
            self._note(f"{self._path}: {error}")
            return False
        self._note(None)
        for reason in keys.skipped:
            logger.info("%s: a key is not used: %s", self._path, reason)
        if keys == self._keys:
            return False
        self._keys = keys
        return True

    def renewal(self) -> None:
        """See `KeySource`: the file is looked at every second anyway."""

    def _note(self, problem: str | None) -> None:
        if problem is not None and problem != self._problem:
            kept = "; the old keys stay in use" if self._keys.keys else "; there are none yet"
            logger.warning("%s%s", problem, kept)
        self._problem = problem
