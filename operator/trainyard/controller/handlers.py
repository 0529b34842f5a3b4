"""The watch engine, kept to what it is best at: turning the API server's watches into function calls.

kopf lists and watches, reconnects and resumes. It decides nothing: each handler hands the event to the inbox and returns.
No handler here makes kopf write to an object (no finalizer, no annotation, no timer), and none ever fails, because kopf
does not repeat event handlers. The settings below each have a story in kopf's issue tracker.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import kopf

from trainyard.api.names import MANAGED_BY, MANAGED_BY_LABEL
from trainyard.controller.kube.cluster import JOBS, PODS, PVCS, TRAININGRUNS, Credentials, Resource
from trainyard.controller.kube.resources import TRAININGSCHEDULES, TRAININGSWEEPS
from trainyard.controller.loop.inbox import Inbox
from trainyard.controller.page.board import Board
from trainyard.controller.schedules.inbox import ScheduleInbox
from trainyard.controller.sweeps.inbox import SweepInbox

log = logging.getLogger(__name__)

CHILDREN = (JOBS, PODS)  # what a pod waits for, the pod says; of claims only their deletion is of interest
CHILD_SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"


class NoDiffBase(kopf.DiffBaseStorage):
    """No memory of earlier specs. kopf computes one for every event, which costs more than all else it does."""

    def fetch(self, *, body: kopf.Body) -> None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        raise NotImplementedError("nothing here makes kopf store anything")

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()


def watch_settings() -> kopf.OperatorSettings:
    """Settings of the watch engine."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # the CRD is there before we start; no watch of CRDs and namespaces
    settings.posting.enabled = False
    settings.persistence.finalizer = "trainyard.dev/unused"
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = 70  # bookmarks come every 60 s: a silent stream is a dead one
    settings.watching.chunk_size = 20  # a run may have almost a megabyte of inline data, and a page is held as a whole
    for child in (*CHILDREN, PVCS):
        # The key has to be (group, version, plural): the short form 'batch/jobs' matches nothing, and says nothing.
        settings.watching.label_selectors[child.group, child.version, child.plural] = CHILD_SELECTOR
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = [1, 1, 2, 3, 5, 8, 13, 21, 34, 55]
    settings.queueing.worker_limit = None  # a limit can lock the engine up
    settings.queueing.idle_timeout = 1  # it keeps a task for each object for so long after its last event
    settings.process.ultimate_exiting_timeout = 25
    return settings


def watch_registry(
    inbox: Inbox,
    credentials: Callable[[], Awaitable[Credentials]],
    *,
    schedules: ScheduleInbox,
    sweeps: SweepInbox,
    board: Board,
) -> kopf.OperatorRegistry:
    """Handlers for schedules, sweeps, runs and their children, and the login."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return connection(await credentials())

    @kopf.on.event(TRAININGRUNS.group, TRAININGRUNS.version, TRAININGRUNS.plural, registry=registry)
    async def run_changed(event: Any, **_: Any) -> None:
        inbox.run_event(event["type"], event["object"])
        schedules.run_event(event["type"], event["object"])
        sweeps.run_event(event["type"], event["object"])
        board.run_event(event["type"], event["object"])

    @kopf.on.event(TRAININGSCHEDULES.group, TRAININGSCHEDULES.version, TRAININGSCHEDULES.plural, registry=registry)
    async def schedule_changed(event: Any, **_: Any) -> None:
        schedules.schedule_event(event["type"], event["object"])
        board.schedule_event(event["type"], event["object"])

    @kopf.on.event(TRAININGSWEEPS.group, TRAININGSWEEPS.version, TRAININGSWEEPS.plural, registry=registry)
    async def sweep_changed(event: Any, **_: Any) -> None:
        sweeps.sweep_event(event["type"], event["object"])
        board.sweep_event(event["type"], event["object"])

    def watch(child: Resource) -> None:
        @kopf.on.event(child.group, child.version, child.plural, registry=registry, id=f"{child.plural}_changed")
        async def child_changed(event: Any, **_: Any) -> None:
            inbox.child_event(event["type"], event["object"])

    for child in CHILDREN:
        watch(child)

    @kopf.on.event(PVCS.group, PVCS.version, PVCS.plural, registry=registry)
    async def claim_changed(event: Any, **_: Any) -> None:
        inbox.claim_event(event["type"], event["object"])

    return registry


def connection(credentials: Credentials) -> kopf.ConnectionInfo:
    """The same credentials that our own requests use."""
    scheme, _, token = (credentials.authorization or "").partition(" ")
    return kopf.ConnectionInfo(
        server=credentials.server,
        ca_path=credentials.ca_file,
        insecure=credentials.insecure,
        scheme=scheme or None,
        token=token or None,
        certificate_path=credentials.certificate_file,
        private_key_path=credentials.key_file,
        proxy_url=credentials.proxy,
    )


async def watch(
    *,
    inbox: Inbox,
    schedules: ScheduleInbox,
    sweeps: SweepInbox,
    board: Board,
    credentials: Callable[[], Awaitable[Credentials]],
    namespaces: Sequence[str],
    stop: asyncio.Event,
    started: Callable[[], None],
) -> None:
    """Watch until `stop` is set. Raises when a watch fails for good; the process must end then.

    `started` is called once kopf has put its own handlers of SIGTERM and SIGINT in place, so that they can be replaced.
    """
    ours = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=watch_registry(inbox, credentials, schedules=schedules, sweeps=sweeps, board=board),
        settings=watch_settings(),
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        standalone=True,
        stop_flag=stop,
    )
    started()
    await kopf.run_tasks(tasks, ignored=ours)
