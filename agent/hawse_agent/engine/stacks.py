"""Runs the operations of a stack's plan, one after the other.

Every step leaves the host in a state that the next plan understands: a container is replaced by renaming
the old one aside, and comes back under its name when the new one cannot start.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from hawse_agent.distribution import reference
from hawse_agent.distribution.credentials import NO_KEYS, Keyring
from hawse_agent.engine.containers import Containers
from hawse_agent.engine.images import Images
from hawse_agent.engine.networks import Networks
from hawse_agent.engine.views import ContainerState, ContainerView
from hawse_agent.engine.volumes import Volumes
from hawse_agent.errors import HawseError, HostRefused, InternalError
from hawse_agent.plan.operations import Operation
from hawse_agent.spec.container import ContainerSpec
from hawse_agent.spec.host import LABEL_STACK, StackSpec
from hawse_agent.spec.records import NetworkRecord

Tell = Callable[[str], None]
"""Takes a line that says what is being waited for or transferred."""

_LOG_LINES = 5


@dataclass(frozen=True, kw_only=True)
class Stacks:
    containers: Containers
    images: Images
    networks: Networks
    volumes: Volumes

    def recover(self) -> list[str]:
        """Finish or undo replacements that a killed daemon was at; returns ids that must be started again.

        The old container has the data of its anonymous volumes under a name that no plan knows: unless its
        successor runs, it gets its name back, and the next plan replaces it anew.
        """
        again = []
        for view in self.containers.list():
            name, _, suffix = view.name.rpartition(".")
            if not re.fullmatch(r"[0-9a-f]{6}", suffix) or LABEL_STACK not in view.record.spec.labels:
                continue
            successor = next((other for other in self.containers.list() if other.name == name), None)
            if successor is not None and successor.state.started_at:
                self.containers.remove(view.id, force=True)
                continue
            if successor is not None:
                self.containers.remove(successor.id, force=True)
            self.containers.rename(view.id, name)
            if not view.state.running and view.record.spec.restart.mode in ("always", "unless-stopped"):
                again.append(view.id)
        return again

    def run(self, spec: StackSpec, operation: Operation, tell: Tell, keyring: Keyring = NO_KEYS) -> None:
        """One operation; raises HawseError, after which the rest of the stack is not run."""
        match operation.kind:
            case "container":
                self._container(spec, operation, tell)
            case "network":
                self._network(spec, operation)
            case "volume":
                self._volume(spec, operation)
            case "image":
                self._image(spec, operation, tell, keyring)
            case "port":
                self.networks.repair_ports(self.containers.record(operation.name.split()[0]).id)
            case "firewall":
                self.networks.repair_firewall()
            case other:
                raise InternalError(f"a stack's plan has no operation on {other!r}")

    def settle(self, spec: StackSpec, names: list[str], tell: Tell) -> None:
        """Wait until containers that were touched are healthy; raises HostRefused with the last output."""
        deadline = time.monotonic() + spec.wait
        for name in names:
            view = self.containers.get(name)
            if view.state.health is not None and view.state.health.status == "starting":
                tell(f"waiting for {name} to become healthy")
            state = self.containers.wait_healthy(name, max(0.0, deadline - time.monotonic()))
            self._require_healthy(name, state, spec.wait)

    # one noun each

    def _container(self, spec: StackSpec, operation: Operation, tell: Tell) -> None:
        name = operation.name
        if operation.action == "remove":
            self.containers.remove(self._stopped(name).id, volumes=spec.remove_volumes)
            return
        wanted = next(container for container in spec.containers if container.name == name)
        if operation.action in ("create", "recreate", "start"):
            self._await_dependencies(spec, wanted, tell)
        match operation.action:
            case "create":
                self._create(wanted)
            case "recreate":
                self._replace(wanted)
            case "start":
                self.containers.start(name)
            case "update":
                self.containers.update(name, resources=wanted.resources, restart=wanted.restart)
            case "repair":
                self.containers.reapply_limits(name)
            case other:
                raise InternalError(f"a stack's plan has no action {other!r} on a container")

    def _create(self, wanted: ContainerSpec) -> None:
        view = self.containers.create(wanted)
        try:
            self.containers.start(view.id)
        except BaseException:
            self.containers.remove(view.id, force=True, volumes=True)
            raise

    def _replace(self, wanted: ContainerSpec) -> None:
        old = self.containers.get(wanted.name)
        aside = f"{wanted.name}.{secrets.token_hex(3)}"
        was_running = old.state.running
        self.containers.rename(old.id, aside)
        fresh: ContainerView | None = None
        try:
            inherit = {t: v for t, v in old.record.volumes.items() if v in old.record.anonymous}
            fresh = self.containers.create(wanted, inherit=inherit)
            self._stopped(old.id)
            self.containers.start(fresh.id)
        except BaseException:
            if fresh is not None:
                self.containers.remove(fresh.id, force=True)
            self.containers.rename(old.id, wanted.name)
            if was_running and not self.containers.get(old.id).state.running:
                self.containers.start(old.id)
            raise
        self.containers.remove(old.id, force=True)

    def _stopped(self, reference: str) -> ContainerView:
        view = self.containers.get(reference)
        if view.state.status == "paused":
            self.containers.unpause(view.id)
        self.containers.stop(view.id)
        return view

    def _await_dependencies(self, spec: StackSpec, wanted: ContainerSpec, tell: Tell) -> None:
        for name, condition in wanted.depends_on.items():
            if condition == "started":
                continue
            tell(f"{wanted.name} waits for {name} ({condition})")
            if condition == "healthy":
                state = self.containers.wait_healthy(name, spec.wait)
                self._require_healthy(name, state, spec.wait)
                continue
            state = self.containers.wait_completed(name, spec.wait)
            if state.status != "exited" or state.exit_code != 0:
                how = f"exit code {state.exit_code}" if state.status == "exited" else f"still {state.status}"
                raise HostRefused(
                    f"{wanted.name} needs {name} to complete: {how} after {spec.wait:g} s",
                    hint=self._last_words(name),
                )

    def _require_healthy(self, name: str, state: ContainerState, waited: float) -> None:
        if state.status in ("running", "paused") and (
            state.health is None or state.health.status == "healthy"
        ):
            return
        if state.status == "exited" and state.exit_code == 0 and state.health is None:
            return  # a one-shot container that is done already
        if state.status in ("exited", "dead", "created", "restarting"):
            raise HostRefused(
                f"container {name} does not stay up: {state.status} ({state.exit_code})",
                hint=self._last_words(name),
            )
        health = state.health
        output = health.log[-1].output.strip() if health and health.log else ""
        status = health.status if health else state.status
        raise HostRefused(
            f"container {name} is {status} after {waited:g} s" + (f": {output}" if output else ""),
            hint=self._last_words(name),
        )

    def _last_words(self, name: str) -> str:
        lines = self.containers.logs(
            name,
            follow=False,
            since=None,
            until=None,
            tail=_LOG_LINES,
            stdout=True,
            stderr=True,
            stop=lambda: False,
        )
        text = b"".join(line.data for line in lines).decode(errors="replace").strip()
        return f"its last output: {text}" if text else "it has written nothing"

    def _network(self, spec: StackSpec, operation: Operation) -> None:
        if operation.action == "remove":
            self.networks.remove(operation.name)
            return
        if operation.action == "repair":
            self.networks.repair_network(operation.name)
            return
        wanted = next(network for network in spec.networks if network.name == operation.name)
        if operation.action == "recreate":
            old = self.networks.get(operation.name)
            self._require_no_others(spec, old)
            for endpoint in self.networks.endpoints(old.id):
                self._stopped(endpoint.container)  # its container is recreated later in the same plan
            self.networks.remove(old.id)
        self.networks.create(wanted)

    def _require_no_others(self, spec: StackSpec, network: NetworkRecord) -> None:
        """A stack stops nobody else's containers, and nobody would start them again."""
        users = [
            self.containers.record(endpoint.container) for endpoint in self.networks.endpoints(network.id)
        ]
        others = [user.spec.name for user in users if user.spec.labels.get(LABEL_STACK) != spec.name]
        if others:
            raise HostRefused(
                f"network {network.name} must be made anew, but containers of others are on it: "
                + ", ".join(sorted(others)),
                hint="disconnect or stop them first, and start them again afterwards",
            )

    def _volume(self, spec: StackSpec, operation: Operation) -> None:
        if operation.action == "remove":
            self.volumes.remove(operation.name)
            return
        self.volumes.create(next(v for v in spec.volumes if v.name == operation.name))

    def _image(self, spec: StackSpec, operation: Operation, tell: Tell, keyring: Keyring) -> None:
        source = next(image for image in spec.images if image.reference == operation.name)
        obtain_image(self.images, operation, source.manifest, source.id, tell, keyring)


def obtain_image(
    images: Images, operation: Operation, manifest: str, image_id: str, tell: Tell, keyring: Keyring
) -> None:
    """Make an image of sent blobs, or pull it; raises HostRefused when another image came than was meant."""
    if operation.action == "send":
        image = images.commit_manifest(manifest, [operation.name])
        if image_id and image.id != image_id:
            raise HostRefused(f"image {operation.name} is {image.id} here, not {image_id}")
        return

    def progress(event: dict[str, object]) -> None:
        if "progressDetail" not in event:
            tell(f"{event.get('id', operation.name)}: {event.get('status', '')}")

    try:
        registry = reference.parse(operation.name).registry
        images.pull(operation.name, progress, keyring.get(registry))
    except HawseError as error:
        raise HostRefused(
            f"image {operation.name} is not on this host, and cannot be pulled: {error.message}",
            hint="import it at the controller (hawse image import), or correct its name",
        ) from error
