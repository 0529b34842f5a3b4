"""A tokenizer of a chat model, and a world around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.trainer.data.chats import World
from trainyard.trainer.data.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    train_tokenizer(
        (f"what is up with number {n}? all is well, user and assistant say" for n in range(300)), 500, folder
    )
    return folder


@pytest.fixture
def world(tmp_path: Path, base: Path) -> World:
    return World(tmp_path, base)
