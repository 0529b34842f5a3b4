"""The sending of alerts: one lane for each run and receiver, in which the next goes when the one before has arrived.

What is owed is told by `edges.py` at each look at a run; here it is tried until the receiver has it, with growing pauses, and
the run is looked at again, so that its status says so. Between the two an operator may be killed, and then the alert is sent
once more, under the same key: it arrives at least once, and by its key a receiver tells that it is the same.

All of this is bounded: lanes, alerts in a lane (there are not many of a run), requests at a time, and the time after which a
receiver that is away is given up, which is written into the status as well.
"""

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from trainyard.api.run.notifications import Notification
from trainyard.api.run.status import AlertStatus, TrainingRunStatus
from trainyard.api.texts import one_line
from trainyard.controller.alerts.bodies import Alert, Posted, alert, posted
from trainyard.controller.alerts.door import Never, NotNow
from trainyard.controller.alerts.edges import owed, warning_in
from trainyard.controller.clock import Clock, rfc3339
from trainyard.controller.logs import seldom
from trainyard.controller.manifests.metadata import RunRef

log = logging.getLogger(__name__)
log.addFilter(seldom(seconds=10.0))

LANES = 4000
AT_A_TIME = 16
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0
GIVE_UP = 24 * 3600.0
"""Seconds that a receiver may be away."""
SAID_KEPT = 1000
"""Runs whose scripts' own words about their end are kept."""
FULL_RECHECK = 60.0
MESSAGE_LIMIT = 1024

Key = tuple[str, str]
State = Literal["Told", "Refused", "GivenUp"]


class Sends(Protocol):
    """The door."""

    async def send(self, namespace: str, notification: Notification, posted: Posted, *, key: str) -> None: ...


@dataclass
class _Lane:
    key: Key
    notification: Notification
    waiting: "OrderedDict[str, Alert]" = field(default_factory=OrderedDict)
    """By name in status.alerts."""
    task: asyncio.Task[None] | None = None


class AlertDesk:
    """Everything that is on its way."""

    def __init__(
        self,
        *,
        door: Sends,
        clock: Clock,
        look: Callable[[Key], None],
        on_result: Callable[[str, str], None] = lambda kind, result: None,
        first_pause: float = FIRST_PAUSE,
        longest_pause: float = LONGEST_PAUSE,
    ) -> None:
        """`look` has a run looked at; `on_result` learns the kind of receiver and what became of an alert."""
        self._door = door
        self._clock = clock
        self._look = look
        self._on_result = on_result
        self._first_pause, self._longest_pause = first_pause, longest_pause
        self._lanes: dict[tuple[str, str], _Lane] = {}  # by uid and receiver
        self._told: dict[str, dict[str, AlertStatus]] = {}  # by uid and name
        self._said: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._slots = asyncio.Semaphore(AT_A_TIME)

    def told(self, uid: str) -> list[AlertStatus]:
        """What has become of alerts since the status was last written."""
        return list(self._told.get(uid, {}).values())

    def consider(self, run: RunRef, status: TrainingRunStatus) -> float | None:
        """Send what is owed by a status that has been written. Seconds after which to ask again, if an event may not say so."""
        if not run.spec.notifications:
            return None
        now, told = self._clock.now(), self._told.get(run.uid, {})
        for alert_of_status in status.alerts or ():
            told.pop(alert_of_status.name, None)
        if not told:
            self._told.pop(run.uid, None)
        full = False
        for one in owed(run.spec, status, now=now):
            if one.name in told:
                continue
            lane = self._lanes.get((run.uid, one.notification.name))
            if lane is None:
                if len(self._lanes) >= LANES:
                    full = True
                    continue
                lane = _Lane((run.namespace, run.name), one.notification)
                self._lanes[run.uid, one.notification.name] = lane
            if one.name not in lane.waiting:
                lane.waiting[one.name] = alert(run, status, one.edge, now=now, said=self._said.get(run.uid))
            if lane.task is None:
                lane.task = asyncio.create_task(self._drive(run.uid, lane), name=f"alerts of {run.name}")
        return FULL_RECHECK if full else warning_in(run.spec, status, now=now)

    def script_said(self, uid: str, words: Mapping[str, Any]) -> None:
        """What a run's own script says of its end; it goes into the alert of that, which the operator sends."""
        known = self._said.pop(uid, {})
        self._said[uid] = {**known, **{name: value for name, value in words.items() if value is not None}}
        if len(self._said) > SAID_KEPT:
            self._said.popitem(last=False)

    def forget(self, uid: str) -> None:
        """The run is gone."""
        self._told.pop(uid, None)
        self._said.pop(uid, None)
        for place in [place for place in self._lanes if place[0] == uid]:
            lane = self._lanes.pop(place)
            if lane.task is not None:
                lane.task.cancel()

    async def close(self) -> None:
        """Nothing more is sent; what was not, is owed still."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def waiting(self) -> int:
        """Alerts that have not arrived."""
        return sum(len(lane.waiting) for lane in self._lanes.values())

    async def _drive(self, uid: str, lane: _Lane) -> None:
        while lane.waiting:
            name, alert = next(iter(lane.waiting.items()))
            state, message = await self._deliver(lane, alert)
            # In one step with the book-keeping: a look in between must find it in one of the two places.
            del lane.waiting[name]
            if not lane.waiting:
                self._lanes.pop((uid, lane.notification.name), None)
            entry = AlertStatus(
                name=name,
                state=state,
                time=rfc3339(self._clock.now()),
                message=one_line(message, limit=MESSAGE_LIMIT) or None,
            )
            self._told.setdefault(uid, {})[name] = entry
            self._on_result(lane.notification.type.lower(), state)
            self._look(lane.key)

    async def _deliver(self, lane: _Lane, alert: Alert) -> tuple[State, str]:
        pause, began = self._first_pause, self._clock.monotonic()
        namespace, name = lane.key
        while True:
            try:
                async with self._slots:
                    await self._door.send(
                        namespace, lane.notification, posted(lane.notification.type, alert), key=alert.key
                    )
                return "Told", ""
            except Never as never:
                return "Refused", str(never)
            except NotNow as error:
                why = str(error)
            except Exception as error:
                why = "a fault of the operator; its log has it"
                log.error("an alert cannot be sent", exc_info=error)
            if self._clock.monotonic() - began > GIVE_UP:
                return "GivenUp", f"not told for {GIVE_UP / 3600:.0f} hours; the last time: {why}"
            log.warning(
                "an alert is sent later: %s",
                why,
                extra={"namespace": namespace, "run": name, "receiver": lane.notification.name},
            )
            self._on_result(lane.notification.type.lower(), "Later")
            await self._clock.sleep(pause * random.uniform(0.7, 1.3))
            pause = min(2 * pause, self._longest_pause)
