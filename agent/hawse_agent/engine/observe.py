"""What is true now: kernel, disk and records put together for the planner."""

from __future__ import annotations

from dataclasses import dataclass

from hawse_agent.engine.containers import Containers
from hawse_agent.engine.images import Images
from hawse_agent.engine.networks import Networks
from hawse_agent.engine.volumes import Volumes
from hawse_agent.plan.observed import ObservedContainer, ObservedHost, ObservedNetwork


@dataclass(frozen=True, kw_only=True)
class Observer:
    containers: Containers
    images: Images
    networks: Networks
    volumes: Volumes

    def observe(self) -> ObservedHost:
        seen = self.networks.observe()
        found = {}
        for view in self.containers.list():
            running = view.state.running
            found[view.name] = ObservedContainer(
                record=view.record,
                status=view.state.status,
                exit_code=view.state.exit_code,
                health=view.state.health.status if view.state.health else "",
                limits=self.containers.limits(view.id) if running else None,
                ports_lost=tuple(p for p in seen.ports_lost if p.container == view.id) if running else (),
                links_lost=tuple(seen.links_lost.get(view.id, ())) if running else (),
            )
        return ObservedHost(
            containers=found,
            networks={
                record.name: ObservedNetwork(
                    record=record,
                    lost=(f"bridge {record.bridge}",) if record.id in seen.bridges_lost else (),
                )
                for record in self.networks.list()
            },
            volumes={info.spec.name: info.spec for info in self.volumes.list()},
            images=self.images.by_reference(),
            firewall_lost=seen.firewall_lost,
        )
