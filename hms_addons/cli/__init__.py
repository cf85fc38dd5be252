"""The `hms` command: wiring only. Each command calls one function and prints what it returns.

A file here holds the commands of one kind: `sidecar`, `config_files` (`check`, `explain`), `certs`,
`plugins`, `control`, `fleet` (`status`, `services`), `config`, `token`, `ca`; `up` (`up`, `down`), `running`
(`logs`, `open`, `top`), `init`, `iptables`; `recordings` (`record`, `replay`). `one_command` leaves the one that is meant, `output` is how they all fail and print, `operator`
what those share that ask a control plane.
"""

from __future__ import annotations

import gc
import sys

import typer

from hms_addons.cli.ca import ca
from hms_addons.cli.certs import certs
from hms_addons.cli.config import config
from hms_addons.cli.config_files import check, explain
from hms_addons.cli.control import control
from hms_addons.cli.fleet import services, status
from hms_addons.cli.init import init
from hms_addons.cli.iptables import iptables
from hms_addons.cli.one_command import leave_only
from hms_addons.cli.output import run
from hms_addons.cli.plugins import plugins
from hms_addons.cli.recordings import record, replay
from hms_addons.cli.running import logs, open_service, top
from hms_addons.cli.sidecar import sidecar
from hms_addons.cli.token import token
from hms_addons.cli.up import down, up
from hms_addons.cli.version import version

app = typer.Typer(
    name="hms",
    help="HMS-SVC, a service mesh whose sidecars are mitmproxy instances.\n\n"
    "Begin with `hms init` and `hms up`; or with `hms check FILE`, then `hms sidecar --config "
    "FILE`; or, for a whole mesh, with `hms control --data DIR`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.callback()(version)
app.command()(init)
app.command()(up)
app.command()(down)
app.command()(logs)
app.command("open")(open_service)
app.command()(top)
app.command(context_settings={"allow_interspersed_args": False})(sidecar)
app.command()(record)
app.command()(replay)
app.command()(check)
app.command()(explain)
app.command()(plugins)
app.command()(control)
app.command()(status)
app.command()(services)
app.add_typer(iptables, name="iptables")
app.add_typer(config, name="config")
app.add_typer(token, name="token")
app.add_typer(ca, name="ca")
app.add_typer(certs, name="certs")


def main() -> None:
    """Entry point of the console script."""
    # Modules and classes are made, and nothing is thrown away: looking for garbage all the while takes
    # a twentieth of a start.
    gc.set_threshold(50_000, 20, 100)
    # httpx loads its own command line, with all of rich, click and pygments, unless that is not installed.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type] # as Python's own import does
    leave_only(app, sys.argv[1] if len(sys.argv) > 1 else "")
    run(app)
