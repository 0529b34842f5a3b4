"""Importing torch and transformers costs seconds; this makes it one sixth less.

While three thousand modules are executed, Python's garbage collector walks again and again over hundreds of thousands of
objects of which none is garbage. It is off meanwhile, and afterwards all of them are taken out of its sight for good.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Around a block of imports."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
