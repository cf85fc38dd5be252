"""Runs a mesh: its control plane, an instance's sidecar for each app, and what follows the file.

The order: the control plane, the configuration, the instances. Its end is the other way round: first
the sidecars that outside calls come through, then the others, what runs without one, the control plane.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from hms_addons.config.problems import ConfigProblems
from hms_addons.config.source import WatchedFiles
from hms_addons.errors import MeshError
from hms_addons.tasks import TaskSet
from hms_addons.up import child
from hms_addons.up.admin_port import AdminPorts
from hms_addons.up.announcement import Announcement
from hms_addons.up.control_plane import ControlPlane, RefusedConfigError
from hms_addons.up.file_watch import MOST_WATCHED
from hms_addons.up.keeper import Keeper, State
from hms_addons.up.log_files import LogFiles
from hms_addons.up.machine import FreePorts, end_marked, holder, is_free
from hms_addons.up.member import Member
from hms_addons.up.mesh_file import read_mesh, told
from hms_addons.up.plan import diff, wanted_ports
from hms_addons.up.scraped import CONTROL, ScrapeFiles

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from pathlib import Path
    from random import Random

    from hms_addons.clock import Clock
    from hms_addons.up.child import Child
    from hms_addons.up.file_watch import Looks
    from hms_addons.up.mesh_file import Mesh
    from hms_addons.up.plan import Actions, Instance
    from hms_addons.up.report import Report
    from hms_addons.up.run_state import RunState

LOOK: Final = 0.5
"""Seconds between looks at how the instances are."""
RETRY: Final = 2.0
"""Seconds until a configuration is pushed again that the control plane was away for."""
FREE_IT: Final = "end that, or say another port in the file"
STOP_TIME: Final = 75.0
"""Seconds for a drain: a sidecar gives what is in flight 30 s, and its app as long."""


class Supervisor:
    """Runs one mesh until it is stopped.

    Args:
        state: its folder; taken.
        mesh: what the file asks for.
        env: the environment of all that is started.
        report: where it is said what happens.
        clock, rng: time, and jitter.
        verbose: sidecars tell all that they do.
    """

    def __init__(
        self,
        state: RunState,
        mesh: Mesh,
        env: Mapping[str, str],
        report: Report,
        clock: Clock,
        rng: Random,
        *,
        verbose: bool = False,
    ) -> None:
        self._state = state
        self._mesh = mesh
        self._env = {name: value for name, value in env.items() if not name.startswith("HMS_")}
        # Apps are asked to say things at once, and calls to this machine need no proxy.
        self._env.setdefault("PYTHONUNBUFFERED", "1")
        self._report = report
        self._clock = clock
        self._rng = rng
        self._level = "info" if verbose else "warning"
        self._ports = FreePorts()
        self._ports.taken.update(wanted_ports(mesh.instances))
        self._plane = ControlPlane(state, self._ports.take(), clock)
        self._control = Keeper(self._start_control, self._control_is, clock, rng)
        self._members: dict[str, Member] = {}
        self._scraped = ScrapeFiles(state.file)
        self._logs = LogFiles(state.logs, clock)
        self._tasks = TaskSet("up")
        self._watchers = TaskSet("up: watchers")
        self._kept: dict[str, asyncio.Task[None]] = {}
        """Each keeper's task, by its name."""
        self._stopping = asyncio.Event()
        self._failed = asyncio.Event()
        self._announcement = Announcement(self._plane, report, clock)
        report.on_gone = self._stopping.set

    def __repr__(self) -> str:
        return f"<Supervisor {self._state.file} members={len(self._members)}>"

    def stop(self, *, hurry: bool = True) -> None:
        """End in order; a second time: at once, unless whoever asks has time (`hurry`)."""
        if self._stopping.is_set() and hurry:
            self._report.say("killing what is left")
            for member in self._members.values():
                member.keeper.kill()
            self._control.kill()
        self._stopping.set()

    async def run(self) -> int:
        """Run the mesh. Returns the exit code.

        Raises:
            MeshError: it cannot be started.
        """
        self._check_ports(self._mesh.instances)
        if left := await end_marked(self._state.folder, None, self._clock):
            self._report.say(f"ended {left} processes that an earlier `hms up` has left behind")
        async with AdminPorts(self._clock) as ports:
            try:
                return await self._run(ports)
            finally:
                await self._end()
                await self._tasks.close()
                self._logs.close()
                self._scraped.remove()

    async def _run(self, ports: AdminPorts) -> int:
        self._keep(CONTROL, self._control)
        await self._either(self._plane.ready.wait())
        if not self._stopping.is_set():
            # What is in the file was looked at; only a plane with another history can refuse it.
            await self._push(self._mesh, first=True)
        if not self._stopping.is_set():
            for instance in self._mesh.instances.values():
                self._add(instance)
            self._tell()
            self._watchers.start(self._follow(), "file")
            self._watchers.start(self._watch_members(ports), "members")
            self._watchers.start(self._scraped.follow(self._plane.roots, self._clock), "roots")
            await self._stopping.wait()
        return 1 if self._failed.is_set() else 0

    async def _either(self, waiting: Coroutine[Any, Any, object]) -> None:
        """Wait for it, or for being stopped."""
        wait = self._watchers.start(waiting, "wait")
        stop = self._watchers.start(self._stopping.wait(), "stop")
        await asyncio.wait({wait, stop}, return_when=asyncio.FIRST_COMPLETED)
        for task in (wait, stop):
            task.cancel()

    def _check_ports(self, instances: Mapping[str, Instance]) -> None:
        """Name every port that somebody else has."""
        taken = [
            f"port {port} for {names[0]} is in use by {holder(port)}: {FREE_IT}"
            for port, names in wanted_ports(instances).items()
            if not is_free(port)
        ]
        if taken:
            raise MeshError("\n".join(taken))

    # -- starting -------------------------------------------------------------------------------

    def _keep(self, name: str, keeper: Keeper) -> None:
        self._kept[name] = self._tasks.start(keeper.run(), name)

    async def _start_control(self) -> Child:
        def heard(line: str) -> None:
            if not self._plane.heard(line):
                self._line(CONTROL, line)

        self._plane.ready.clear()
        return await child.start(
            self._plane.command(self._mesh.trust_domain, self._mesh.svid_lifetime),
            env=self._env,
            cwd=self._state.folder,
            folder=self._state.folder,
            name=CONTROL,
            on_line=heard,
            clock=self._clock,
        )

    def _control_is(self, state: State, detail: str) -> None:
        self._report.state(CONTROL, state, detail)

    def _line(self, name: str, line: str) -> None:
        self._logs.write(name, line)
        self._report.log(name, line)

    def _add(self, instance: Instance) -> None:
        member = self._members[instance.name] = Member(instance, self._ports)

        async def launch() -> Child:
            return await self._start_member(member)

        def told(state: State, detail: str) -> None:
            self._report.state(instance.name, state, detail)
            if self._stopping.is_set() and self._report.shows_table:
                self._show()  # nobody looks at them any more
            self._tell()

        member.keeper = Keeper(launch, told, self._clock, self._rng)
        self._keep(instance.name, member.keeper)

    async def _start_member(self, member: Member) -> Child:
        instance = member.instance
        member.new_ports(self._ports)
        for port in filter(None, (instance.port, instance.outbound if instance.asked else None)):
            if not is_free(port):
                message = f"port {port} for {instance.name} is in use by {holder(port)}: {FREE_IT}"
                raise MeshError(message)
        folder = self._state.sidecar(instance.name)
        token = "" if instance.alone else await self._join_token(instance, folder)
        member.forget()
        await asyncio.to_thread(member.files.begin)
        if member.files.full:
            message = (
                f"{instance.name} watches more than {MOST_WATCHED} files; the rest is not looked at"
            )
            self._report.say(message)
        return await child.start(
            member.command(self._plane, folder, self._level),
            env=member.environment(self._env, token),
            cwd=instance.folder,
            folder=self._state.folder,
            name=instance.name,
            on_line=lambda line: self._line(instance.name, line),
            clock=self._clock,
        )

    async def _join_token(self, instance: Instance, folder: Path) -> str:
        try:
            return await self._plane.join_token(instance.service)
        except MeshError:
            # One that has joined before needs none, and the control plane may be away just now.
            if not await asyncio.to_thread(folder.exists):
                raise
            return ""

    # -- the configuration ----------------------------------------------------------------------

    async def _push(self, mesh: Mesh, *, first: bool = False) -> bool:
        """Put it in force, however long that takes; whether it was taken."""
        said = False
        while not self._stopping.is_set():
            try:
                version = await self._plane.push(mesh.config)
            except MeshError as error:
                refused = isinstance(error, RefusedConfigError)
                if refused or not said:
                    self._report.say(str(error), event="problem")
                said = True
                if refused:
                    if first:
                        self._failed.set()
                        self._stopping.set()
                    return False
                await self._clock.sleep(RETRY)
            else:
                if version is not None and not first:
                    self._report.say(f"configuration version {version} is in force")
                return True
        return False

    async def _follow(self) -> None:
        """Apply each change of the file, and of those that it names and apps watch."""
        watched = WatchedFiles(self._mesh.files, self._clock)
        watched.read()
        while True:
            try:
                await watched.change()
                mesh = await asyncio.to_thread(read_mesh, self._state.file)
            except ConfigProblems as error:
                self._report.say(f"{told(error)}; what runs goes on", event="problem")
                continue
            if mesh.files != watched.paths:
                watched = WatchedFiles(mesh.files, self._clock)
                watched.read()
            await self._apply(mesh)

    async def _apply(self, mesh: Mesh) -> None:
        if mesh.trust_domain != self._mesh.trust_domain:
            message = (
                f"trust_domain is {self._mesh.trust_domain} while this mesh is up: `hms down`, "
                f"remove {self._state.folder}, and start it again to have another"
            )
            self._report.say(message, event="problem")
            return
        actions = diff(self._mesh.instances, mesh.instances)
        if mesh.meaning != self._mesh.meaning and not await self._push(mesh):
            return
        if mesh.svid_lifetime != self._mesh.svid_lifetime:
            self._report.say("svid_lifetime has changed: restarting the control plane")
            self._control.restart()
        self._mesh = mesh
        self._ports.taken.update(wanted_ports(mesh.instances))
        for problem in mesh.warnings:
            self._report.say(str(problem))
        if actions:
            self._report.say(f"the file has changed: {actions}", event="change")
            await self._act(actions)
        self._tell()

    async def _act(self, actions: Actions) -> None:
        for one in actions.keep:
            self._members[one.name].go_on(one)
        await asyncio.gather(*map(self._drop, actions.stop))
        for one in actions.start:
            self._add(one)
        groups: dict[str, list[Instance]] = {}
        for one in actions.restart:
            groups.setdefault(one.group, []).append(one)
        await asyncio.gather(*map(self._replace, groups.values()))

    async def _replace(self, instances: list[Instance]) -> None:
        """One after the other, so that the service goes on."""
        for number, instance in enumerate(instances):
            await self._drop(instance.name)
            self._add(instance)
            if number < len(instances) - 1:
                await self._members[instance.name].settled()

    async def _drop(self, name: str) -> None:
        member = self._members[name]
        member.keeper.stop()
        await asyncio.wait({self._kept[name]})
        del self._kept[name], self._members[name]
        member.give_back(self._ports)

    # -- how they are ---------------------------------------------------------------------------

    async def _watch_members(self, ports: AdminPorts) -> None:
        while True:
            members = list(self._members.values())
            await asyncio.gather(*(member.look(ports) for member in members))
            await self._restart_changed(members)
            if self._report.shows_table:
                await asyncio.gather(*(member.measure(ports) for member in members))
                self._show()
            if self._plane.ready.is_set():
                self._control.set(State.READY)
            await self._announcement.consider(list(self._members.values()))
            await self._clock.sleep(LOOK)

    async def _restart_changed(self, members: list[Member]) -> None:
        """Restart the instances whose files have changed; those of a group one after the other."""
        groups: dict[str, list[Member]] = {}
        looks: Looks = {}
        for member in members:
            # Many files take a while to look at.
            if changed := await asyncio.to_thread(member.files.changed, looks):
                group = groups.setdefault(member.instance.group, [])
                if not group:
                    self._report.say(
                        f"{changed} has changed: restarting {member.instance.group}", event="change"
                    )
                group.append(member)
        for group in groups.values():
            self._watchers.start(_restart(group), "restart")

    def _show(self) -> None:
        now = self._clock.wall()
        self._report.table([member.row(now) for member in self._members.values()])

    def _tell(self) -> None:
        """Let other commands know, and Prometheus."""
        instances = [member.document() for member in self._members.values()]
        try:
            self._state.tell(
                {
                    "file": str(self._state.file),
                    "control": self._plane.url,
                    "ca_pin": self._plane.pin,
                    "instances": instances,
                }
            )
            self._scraped.tell(self._plane.url, instances)
        except MeshError as error:
            self._report.say(str(error))

    # -- its end --------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Drain all in order; whatever is left after `STOP_TIME` is killed."""
        self._stopping.set()
        await self._watchers.close()
        timer = self._clock.call_later(STOP_TIME, self.stop)
        try:
            first = [m for m in self._members.values() if m.instance.outbound is not None]
            alone = [m for m in self._members.values() if m.instance.alone]
            rest = [m for m in self._members.values() if m not in first + alone]
            for wave in (first, rest, alone):
                for member in wave:
                    member.keeper.stop()
                if tasks := {self._kept[member.instance.name] for member in wave}:
                    await asyncio.wait(tasks)
            self._control.stop()
            if CONTROL in self._kept:
                await asyncio.wait({self._kept[CONTROL]})
        finally:
            timer.cancel()


async def _restart(members: list[Member]) -> None:
    for member in members:
        member.keeper.restart()
        await member.settled()
