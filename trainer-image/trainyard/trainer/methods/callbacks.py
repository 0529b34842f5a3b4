"""`spec.training.callbacks`: TrainerCallback classes of the user's own, from the workspace or from the image.

They run in the loop of transformers' Trainer under their own names, in the order of the list, after ours. What one raises ends
the run and names it: a callback that fails once would fail again at the same step. One that has a state (transformers'
ExportableState) gets the attributes of that back when the training goes on from a checkpoint.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from trainyard.api.conditions import Reason
from trainyard.api.names import WORKSPACE_FOLDER
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import UserError, describe, first_line, invalid_config

FIELD = "spec.training.callbacks"
HINT = (
    "correct it in the repository of spec.storage.workspace and start a new run; the traceback is in the log of the pod"
)
EVENTS = tuple(name for name in dir(TrainerCallback) if name.startswith("on_"))

States = dict[str, dict[str, Any]]
"""Attributes by name of the callback; what JSON can say."""


def own_callbacks(context: RunContext) -> list[TrainerCallback]:
    """The callbacks of the spec, in its order.

    Raises:
        UserError: one cannot be imported or made.
    """
    names = context.training.callbacks
    folder = str(context.run_dir / WORKSPACE_FOLDER)
    if names and context.run.spec.storage.workspace is not None and folder not in sys.path:
        sys.path.append(folder)  # last, so that no file of the workspace takes the place of a library
    return [_made(name) for name in names]


def states_of(callbacks: Sequence[TrainerCallback]) -> States:
    """What has to be in a checkpoint of those that have a state.

    Raises:
        UserError: one has a state that JSON cannot say.
    """
    found: States = {}
    for callback in callbacks:
        if isinstance(callback, ExportableState):
            name = type(callback).spelled
            try:
                found[name] = json.loads(json.dumps(callback.state().get("attributes") or {}))
            except (TypeError, ValueError) as error:
                raise _fault(name, f"has a state that no checkpoint can hold: {first_line(error)}") from error
    return found


def restore(callbacks: Sequence[TrainerCallback], states: Mapping[str, Mapping[str, Any]]) -> None:
    """Give each the state that a checkpoint has of it."""
    for callback in callbacks:
        for attribute, value in states.get(type(callback).spelled, {}).items():
            setattr(callback, attribute, value)


def _made(name: str) -> TrainerCallback:
    kind = _guarded(_imported(name), name)
    try:
        return kind()
    except Exception as error:
        traceback.print_exc()
        raise _fault(name, f"cannot be made without arguments: {type(error).__name__}: {first_line(error)}") from error


def _imported(name: str) -> type[TrainerCallback]:
    place, _, word = name.partition(":")
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(f"{error.name}.")):
            text = f"there is no module {error.name} in the workspace or the image"
        else:
            text = f"module {place} needs {error.name}, which is neither in the workspace nor in the image"
        raise _fault(name, text) from error
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        raise _fault(name, f"module {place} cannot be imported: {type(error).__name__}: {first_line(error)}") from error
    found = getattr(module, word, None)
    if found is None:
        classes = [n for n, one in vars(module).items() if inspect.isclass(one) and issubclass(one, TrainerCallback)]
        close = difflib.get_close_matches(word, classes, n=1)
        meant = f"; did you mean {close[0]}?" if close else f"; its callbacks are {', '.join(classes) or 'none'}"
        raise _fault(name, f"module {place} has no {word}{meant}")
    if not (inspect.isclass(found) and issubclass(found, TrainerCallback)):
        raise _fault(name, f"{word} is no class of transformers' TrainerCallback")
    return found


def _guarded(kind: type[TrainerCallback], name: str) -> type[TrainerCallback]:
    """The same class, but for what it raises."""
    own: dict[str, Any] = {
        event: _telling(getattr(kind, event), name, event)
        for event in EVENTS
        if getattr(kind, event) is not getattr(TrainerCallback, event)
    }
    return type(kind.__name__, (kind,), {**own, "spelled": name})


def _telling(method: Any, name: str, event: str) -> Any:
    @functools.wraps(method)
    def called(*arguments: Any, **named: Any) -> Any:
        try:
            return method(*arguments, **named)
        except Exception as error:
            if describe(error).reason is not Reason.ERROR:
                raise  # a full disk is one wherever it is noticed
            traceback.print_exc()
            raise _fault(name, f"failed in {event}: {type(error).__name__}: {first_line(error)}") from error

    return called


def _fault(name: str, text: str) -> UserError:
    return invalid_config(f"{FIELD} {name}: {text}", hint=HINT)
