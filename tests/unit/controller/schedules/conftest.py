"""Servers on loopback, and looks at them in processes of their own."""

from collections.abc import AsyncIterator

import pytest

from tests.unit.controller.schedules.loopback import Serve, servers
from trainyard.controller.schedules.triggers.looks import Looks


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with servers() as start:
        yield start


@pytest.fixture
async def looks() -> AsyncIterator[Looks]:
    taken = Looks(memory=20 * 2**20)
    yield taken
    await taken.close()
