"""A plugin's options, checked as the rest of a configuration is: by a model, in the same words.

For third parties' plugins, in `hms_configure`:

    class Options(Model):
        url: str
        timeout: PositiveDuration = 1.0

    options = plugin_options(snapshot, "opa", Options)   # None where nobody has configured it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from hms_addons.config.places import located
from hms_addons.config.problems import closest, dotted, listing
from hms_addons.config.schema_base import shown
from hms_addons.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from hms_addons.config.problems import Path
    from hms_addons.config.schema_base import Model
    from hms_addons.config.snapshot import Snapshot


def plugin_options[M: Model](snapshot: Snapshot, name: str, model: type[M]) -> M | None:
    """What stands under `plugins: {name: …}`, as a `model`; None where nothing does.

    Raises:
        ConfigError: something of it is wrong; each fault with its key, and where known its place.
    """
    if name not in snapshot.plugins:
        return None
    try:
        return model.model_validate(dict(snapshot.plugins[name]))
    except ValidationError as error:
        found = [_told(details, name, model) for details in error.errors(include_url=False)]
    (path, message, guess), *others = found
    # The plugin manager adds the first one's place.
    hint = f" (did you mean {guess}?)" if guess else ""
    lines = [f"{path}: {message}{hint}", *(located(snapshot, *other) for other in others)]
    raise ConfigError("\n".join(lines)) from None


def _told(details: ErrorDetails, name: str, model: type[Model]) -> tuple[str, str, str | None]:
    """The dotted path, the message, and what was probably meant."""
    path: Path = ("plugins", name, *details["loc"])
    kind, context = details["type"], details.get("ctx", {})
    if kind == "hms":
        return dotted((*path, *context["at"])), context["message"], context["suggestion"]
    if kind == "extra_forbidden":
        key = path[-1]
        # Only the outermost model's keys are known here; of one further in, no guess is made.
        known = list(model.model_fields) if len(path) == 3 else []  # noqa: PLR2004 - plugins, name, key
        guess = closest(key, known)
        hint = "" if guess or not known else f"; known here: {listing(known, limit=20)}"
        return dotted(path), f"there is no such option{hint}", guess
    if kind == "missing":
        return dotted(path[:-1]), f"the key '{path[-1]}' is missing", None
    # pydantic's words are about the type; the value is quoted as everywhere.
    return dotted(path), f"{details['msg']}, not {shown(details['input'])}", None
