"""The operator as a process: what starts in which order, what ends it, and how it ends.

Start: the API server answers and serves the CRD, ports for health and metrics open, the Lease is taken; only then key of
the tokens, receiver, queue, watches. Nothing is watched or written before the Lease is ours.

End: on SIGTERM no new key is taken, running reconciles end (for a bounded time), ports close, watches stop, the Lease is
given back, exit code 0. When a part fails that cannot be replaced (a watch that gave up, the Lease gone), the process
ends with code 1 and Kubernetes starts a fresh one: everything it knew can be read again.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from aiohttp import web

from trainyard.controller import handlers, logs
from trainyard.controller.alerts.desk import AlertDesk
from trainyard.controller.alerts.door import Door
from trainyard.controller.clock import Clock, SystemClock
from trainyard.controller.datasets.application import Datasets
from trainyard.controller.datasets.gate import Gate
from trainyard.controller.datasets.relay import Relay
from trainyard.controller.datasets.request import Place
from trainyard.controller.health import health_application, metrics_application
from trainyard.controller.kube import definitions, errors
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.events import EventRecorder
from trainyard.controller.kube.lease import Lease, LeaseLost
from trainyard.controller.loop.give_back import GiveBack
from trainyard.controller.loop.inbox import Inbox
from trainyard.controller.loop.queue import WorkQueue
from trainyard.controller.loop.resync import Resync
from trainyard.controller.loop.subjects import Key, log_failure
from trainyard.controller.loop.watchdog import Watchdog
from trainyard.controller.manifests.handing_over import LIFE_SECONDS
from trainyard.controller.manifests.metadata import Defaults
from trainyard.controller.metrics import Metrics
from trainyard.controller.page.application import STREAM_SECONDS, Page
from trainyard.controller.page.board import Board
from trainyard.controller.page.reader import Doorman
from trainyard.controller.page.reviews import ApiReviews
from trainyard.controller.ports import Limits, Served
from trainyard.controller.reports.history import History
from trainyard.controller.reports.keeper import ConfigMaps, Keeper
from trainyard.controller.reports.lab_routes import LabRoutes
from trainyard.controller.reports.memory import HistoryMemory
from trainyard.controller.reports.pacing import Pace
from trainyard.controller.reports.progress_store import Accepted, ProgressStore
from trainyard.controller.reports.receiver import Receiver
from trainyard.controller.reports.tokens import RunTokens, load_or_create_key
from trainyard.controller.runs.cost import Prices
from trainyard.controller.runs.observed import Policy
from trainyard.controller.runs.reconcile import Reconciler
from trainyard.controller.schedules.desk import ScheduleDesk
from trainyard.controller.schedules.triggers.addresses import Rules
from trainyard.controller.settings import Settings
from trainyard.controller.sweeps.desk import SweepDesk

log = logging.getLogger(__name__)

START_SECONDS = 60.0
"""How long the API server may be away at the start before the process gives up (and Kubernetes tries again, later)."""
START_RETRY_SECONDS = 2.0
WATCH_STOP_SECONDS = 8.0
FLUSH_SECONDS = 3.0
SWEEP_WORKERS = 2


class CannotStart(RuntimeError):
    """The surroundings are not as they must be; the message says what to do."""


async def run(settings: Settings) -> int:
    """The whole life of the process. Returns its exit code; raises `CannotStart`."""
    stop = asyncio.Event()
    _on_signals(stop.set)
    metrics = Metrics(per_model=settings.metrics_per_model)
    try:
        cluster = await Cluster.connect(on_request=metrics.api_request)
    except ConnectionError as error:
        raise CannotStart(str(error)) from None
    async with AsyncExitStack() as stack:
        stack.push_async_callback(cluster.close)
        return await _Operator(settings, cluster=cluster, metrics=metrics, clock=SystemClock(), stop=stop).live(stack)


class _Operator:
    """Everything between the first request and the last."""

    def __init__(
        self, settings: Settings, *, cluster: Cluster, metrics: Metrics, clock: Clock, stop: asyncio.Event
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._metrics = metrics
        self._clock = clock
        self._stop = stop
        self._ready = False
        self._queue: WorkQueue[Key] = WorkQueue(clock=clock, retry_after=errors.retry_after, observe=self._looked)
        self._inbox = Inbox(queue=self._queue, runs=metrics)
        self._board = Board(clock=clock, started=format(int(clock.now().timestamp() * 1000), "x"))
        self._schedules = ScheduleDesk(
            cluster=cluster,
            clock=clock,
            registry=metrics.registry,
            rules=_trigger_rules(settings),
            look_memory=settings.triggers_memory_mib * 2**20,
        )
        self._sweeps = SweepDesk(cluster=cluster, clock=clock, registry=metrics.registry)
        self._resync = Resync(
            cluster=cluster,
            clock=clock,
            queue=self._queue,
            inbox=self._inbox,
            metrics=metrics,
            namespaces=settings.namespaces,
            interval=settings.resync_seconds,
        )
        self._watchdog = Watchdog(
            queue=self._queue,
            clock=clock,
            stale=self._resync.overdue,
            others={"schedule": self._schedules.queue, "sweep": self._sweeps.queue},
        )
        self._lease = Lease(
            cluster,
            clock=clock,
            namespace=settings.operator_namespace,
            name=settings.lease_name,
            identity=settings.identity or socket.gethostname(),
            on_change=metrics.leading,
        )
        metrics.gauge("trainyard_queue_depth", "Runs that wait to be looked at.", self._queue.depth)
        metrics.gauge("trainyard_queue_running", "Runs that are being looked at.", self._queue.running)
        metrics.gauge("trainyard_queue_delayed", "Runs that will be looked at later.", self._queue.delayed)
        metrics.gauge("trainyard_queue_oldest_seconds", "Age of the run that waits longest.", self._queue.oldest_ready)

    async def live(self, stack: AsyncExitStack) -> int:
        """From opening the ports to the exit code. What is opened is closed with `stack`."""
        settings = self._settings
        await self._open(
            stack,
            "health",
            health_application(alive=self._watchdog.problems, ready=self._not_ready),
            port=settings.health_listen_port,
        )
        metrics = metrics_application(self._metrics.registry)
        await self._open(stack, "metrics", metrics, port=settings.metrics_listen_port)
        if not await self._unless_stopped(_check_crd(self._cluster, self._clock)):
            return 0
        if settings.lease:
            if not await self._unless_stopped(self._lease.acquire()):
                return 0
            stack.push_async_callback(self._lease.release)
        return await self._work()

    async def _work(self) -> int:
        settings, cluster, clock, queue = self._settings, self._cluster, self._clock, self._queue
        tokens = RunTokens(await self._token_key())
        store = ProgressStore()
        pace = Pace(
            active=store.active,
            clock=clock,
            interval_seconds=settings.progress_interval_seconds,
            writes_per_second=settings.progress_writes_per_second,
        )
        events = EventRecorder(cluster, clock=clock, host=socket.gethostname())
        maps = ConfigMaps(cluster)
        history = HistoryMemory(clock=clock, kept=maps)
        keeper = Keeper(memory=history, maps=maps, clock=clock)
        door = Door(cluster=cluster, rules=replace(_trigger_rules(settings), asker="notifications"))
        alerts = AlertDesk(door=door, clock=clock, look=queue.add, on_result=self._metrics.alert)
        give_back = GiveBack(cluster=cluster, clock=clock, namespaces=settings.namespaces)
        reconciler = Reconciler(
            cluster=cluster,
            policy=_policy(settings),
            progress=store,
            pace=pace,
            tokens=tokens,
            events=events,
            watcher=self._metrics,
            clock=clock,
            alerts=alerts,
            curves=history,
            crowded=queue.crowded,
            take_unseen=self._inbox.take_unseen,
            dying_claims=self._inbox.dying_claims,
            taking=give_back.taking,
        )

        def reported(key: Key, uid: str, accepted: Accepted) -> None:
            if (seconds := pace.look_in(uid, accepted)) is not None:
                reconciler.reported(key, uid)
                queue.add_after(key, seconds)

        def recorded(key: Key, uid: str, accepted: Accepted) -> None:
            if accepted in (Accepted.NEW, Accepted.UPDATED) and (record := store.get(uid)) is not None:
                history.take(key, record)
            reported(key, uid, accepted)

        lab = LabRoutes(
            store=store,
            tokens=tokens,
            clock=clock,
            on_report=reported,
            on_points=history.add,
            on_alert=lambda key, uid, said: alerts.script_said(uid, said.about_the_end()),
            read=history.points,
            on_result=self._metrics.progress_report,
        )
        relay = Relay(tokens=tokens, on_result=self._metrics.progress_report)
        receiver = Receiver(
            store=store,
            tokens=tokens,
            on_report=recorded,
            on_result=self._metrics.progress_report,
            more=[lab.add_to, relay.add_to],
        )

        async def look(key: Key) -> float | None:
            with logs.about(namespace=key[0], run=key[1]):
                return await reconciler.reconcile(key)

        async with AsyncExitStack() as ports:
            limits = Limits(
                in_all=settings.receiver_connections, of_one_address=settings.receiver_connections_per_address
            )
            await self._open(
                ports, "receiver", receiver.application(), port=settings.receiver_listen_port, limits=limits
            )
            if settings.page != "Off":
                await self._open_page(ports, history)
            if settings.datasets_namespace:
                await self._open_datasets(ports, relay)
            stop_watching = asyncio.Event()
            tasks = {
                asyncio.create_task(part, name=name)
                for name, part in {
                    "queue": queue.run(look, workers=settings.workers),
                    "watch": self._watch(stop_watching),
                    "resync": self._catch_up_and_resync(),
                    "canary": self._watchdog.canary(cluster, next(iter(settings.namespaces), None)),
                    "events": events.run(),
                    "give-back": give_back.run(),
                    "history": keeper.run(),
                    "schedules": self._schedules.run(events=events, workers=settings.schedule_workers),
                    "sweeps": self._sweeps.run(history=history, events=events, workers=SWEEP_WORKERS),
                    **({"lease": self._hold_lease()} if settings.lease else {}),
                }.items()
            }
            code = await self._until_stopped(tasks)
            self._ready = False
            queues = (queue, self._schedules.queue, self._sweeps.queue)
            if not all(await asyncio.gather(*(each.drain(settings.shutdown_seconds) for each in queues))):
                log.warning("reconciles still run after %g s; the next start takes them up", settings.shutdown_seconds)
            await alerts.close()
            await door.close()
            await asyncio.gather(events.flush(FLUSH_SECONDS), keeper.flush(FLUSH_SECONDS))
        # The receiver is closed by now: kopf would wait for its connections, as for all tasks younger than itself.
        stop_watching.set()
        watching = {task for task in tasks if task.get_name() == "watch"}
        await asyncio.wait(watching, timeout=WATCH_STOP_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        log.info("stopped")
        return code

    async def _until_stopped(self, tasks: set[asyncio.Task[Any]]) -> int:
        """Wait for a signal (0), or for a part that ends although none should (1)."""
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            ended, _ = await asyncio.wait(tasks | {stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        for task in ended - {stopping}:
            log.critical("%s has ended, the operator ends too", task.get_name(), exc_info=task.exception())
        if ended == {stopping}:
            log.info("stopping")
            return 0
        return 1

    async def _watch(self, stop: asyncio.Event) -> None:
        await handlers.watch(
            inbox=self._inbox,
            schedules=self._schedules.inbox,
            sweeps=self._sweeps.inbox,
            board=self._board,
            credentials=self._cluster.credentials,
            namespaces=self._settings.namespaces,
            stop=stop,
            started=lambda: _on_signals(self._stop.set),
        )

    async def _catch_up_and_resync(self) -> None:
        await self._resync.catch_up()
        self._ready = True
        log.info("ready", extra={"runs": self._inbox.known()})
        await self._resync.run()

    async def _hold_lease(self) -> None:
        try:
            await self._lease.hold()
        except LeaseLost as lost:
            log.critical("%s; ending at once", lost)
            logging.shutdown()
            os._exit(1)  # not one more write: somebody else may be at work

    async def _token_key(self) -> bytes:
        settings = self._settings
        try:
            return await load_or_create_key(
                self._cluster, namespace=settings.operator_namespace, name=settings.receiver_secret
            )
        except (ValueError, errors.ClusterError) as error:
            raise CannotStart(f"no key for the runs' tokens: {error}") from None

    def _not_ready(self) -> list[str]:
        if self._settings.lease and not self._lease.held:
            return ["the lease is not held by this process"]
        return [] if self._ready else ["the runs have not all been listed yet"]

    def _looked(self, key: Key, *, seconds: float, delay: float | None, error: BaseException | None) -> None:
        self._metrics.reconciled(seconds=seconds, error=error)
        if error is not None:
            log_failure("run", key, delay=delay, error=error)

    async def _open_page(self, stack: AsyncExitStack, history: History) -> None:
        settings = self._settings
        page = Page(
            board=self._board,
            history=history,
            cluster=self._cluster,
            doorman=_doorman(settings, self._cluster, self._clock),
        )
        host = "127.0.0.1" if settings.page == "Loopback" else None
        # Whoever forwards a port comes from one address, with a connection for each file and one that stays.
        limits = Limits(in_all=256, of_one_address=256, seconds=STREAM_SECONDS + 60)
        await self._open(stack, "page", page.application(), port=settings.page_listen_port, limits=limits, host=host)

    async def _open_datasets(self, stack: AsyncExitStack, relay: Relay) -> None:
        settings = self._settings
        place = Place(settings.datasets_namespace, settings.datasets_secret, settings.datasets_size)
        if settings.namespaces and place.namespace not in settings.namespaces:
            raise CannotStart(f"TRAINYARD_DATASETS_NAMESPACE {place.namespace} is none of TRAINYARD_NAMESPACES")
        if not settings.receiver_url:
            raise CannotStart(
                "TRAINYARD_DATASETS_NAMESPACE needs TRAINYARD_RECEIVER_URL: pods send a dataset's lines there"
            )
        datasets = Datasets(
            cluster=self._cluster,
            board=self._board,
            gate=Gate(settings.datasets_access, place=place, reviews=ApiReviews(self._cluster)),
            place=place,
            relay=relay,
            defaults=_policy(settings).defaults,
        )
        host = "127.0.0.1" if settings.datasets_access == "Loopback" else None
        limits = Limits(in_all=32, of_one_address=32, seconds=LIFE_SECONDS)
        await self._open(
            stack,
            "datasets",
            datasets.application(),
            port=settings.datasets_listen_port,
            limits=limits,
            host=host,
            cancels=True,
        )

    async def _open(
        self,
        stack: AsyncExitStack,
        name: str,
        application: web.Application,
        *,
        port: int,
        limits: Limits | None = None,
        host: str | None = None,
        cancels: bool = False,
    ) -> None:
        dropped = partial(self._metrics.connection_dropped, name)
        served = Served(
            application, port=port, host=host, limits=limits or Limits(), on_dropped=dropped, cancels=cancels
        )
        try:
            await served.start()
        except OSError as error:
            raise CannotStart(f"port {port} cannot be opened: {error.strerror or error}") from None
        stack.push_async_callback(served.stop)

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do it, or drop it when a signal comes first; tells whether it was done."""
        task, stopping = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return False
            await task
            return True
        finally:
            task.cancel()
            stopping.cancel()


async def _check_crd(cluster: Cluster, clock: Clock) -> None:
    deadline = clock.monotonic() + START_SECONDS
    while True:
        try:
            if problem := await definitions.fault(cluster):
                raise CannotStart(problem)
            return
        except errors.Transient as error:
            if clock.monotonic() > deadline:
                raise CannotStart(str(error)) from None
            log.warning("%s; trying again", error)
            await clock.sleep(START_RETRY_SECONDS)
        except errors.ClusterError as error:
            raise CannotStart(str(error)) from None


def _policy(settings: Settings) -> Policy:
    return Policy(
        prices=Prices(settings.gpu_prices, settings.currency),
        monthly_gpu_hours=settings.monthly_gpu_hours,
        defaults=Defaults(
            trainer_image=settings.trainer_image,
            receiver_url=settings.receiver_url,
            image_pull_policy=settings.image_pull_policy,
        ),
        retry_base_seconds=settings.retry_base_seconds,
        retry_cap_seconds=settings.retry_cap_seconds,
    )


def _doorman(settings: Settings, cluster: Cluster, clock: Clock) -> Doorman:
    access = "Open" if settings.page == "Loopback" else settings.page_access
    token = ""
    if access == "Token":
        try:
            token = Path(settings.page_token_file).read_text().strip()
        except OSError as error:
            raise CannotStart(
                f"TRAINYARD_PAGE_TOKEN_FILE {settings.page_token_file!r} cannot be read: {error.strerror}"
            ) from None
        if not token:
            raise CannotStart(f"TRAINYARD_PAGE_TOKEN_FILE {settings.page_token_file} is empty: put the token into it")
    if access == "Header" and not settings.page_proxies:
        raise CannotStart(
            "TRAINYARD_PAGE_ACCESS=Header needs TRAINYARD_PAGE_PROXIES: the networks of the proxies that are believed"
        )
    return Doorman(
        access,
        reviews=ApiReviews(cluster),
        clock=clock,
        token=token,
        user_header=settings.page_user_header,
        groups_header=settings.page_groups_header,
        proxies=tuple(ip_network(str(network)) for network in settings.page_proxies),
    )


def _trigger_rules(settings: Settings) -> Rules:
    return Rules(
        allowed_hosts=settings.triggers_allowed_hosts,
        denied_networks=tuple(map(str, settings.triggers_denied_networks)),
        allow_loopback=settings.triggers_allow_loopback,
    )


def _on_signals(callback: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, callback)
