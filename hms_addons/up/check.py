"""What `hms check` and `hms explain` say of a file of `hms up`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.config.check import CheckResult, counts_of
from hms_addons.config.installed import Known
from hms_addons.config.load import load
from hms_addons.config.problems import ConfigProblems
from hms_addons.config.yaml_marks import load_yaml
from hms_addons.up.mesh_file import read_mesh

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hms_addons.config.snapshot import Snapshot
    from hms_addons.up.mesh_file import Mesh


def mesh_file_among(paths: Sequence[Path]) -> Path | None:
    """The only file there is, if it says which services run: that is a file of `hms up`."""
    if len(paths) != 1:
        return None
    (path,) = paths
    try:
        data = load_yaml(path.read_bytes(), str(path)).data
    except (OSError, ConfigProblems):
        return None  # whoever reads it as a configuration says why
    return path if isinstance(data, dict) and isinstance(data.get("services"), dict) else None


def check_mesh(path: Path) -> CheckResult:
    """The outcome of a check of such a file and of what it names."""
    try:
        mesh = read_mesh(path)
    except ConfigProblems as error:
        return CheckResult((str(path),), tuple(error.problems), {}, None)
    snapshot = _snapshot(mesh)
    counts = {"instances": len(mesh.instances), **counts_of(snapshot)}
    return CheckResult((str(path),), mesh.warnings, counts, snapshot.version)


def snapshot_of_mesh(path: Path) -> Snapshot:
    """The configuration in such a file, for the whole mesh.

    Raises:
        ConfigProblems: it cannot be used.
    """
    return _snapshot(read_mesh(path))


def _snapshot(mesh: Mesh) -> Snapshot:
    config = [(name, text.encode()) for name, text in mesh.config]
    loaded = load(config, control=True, known=Known())
    assert loaded.snapshot is not None  # noqa: S101 - `read_mesh` has seen to it
    return loaded.snapshot
