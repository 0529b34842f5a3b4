"""What can go wrong, said once: a reason for programs, a sentence for people, a way out, and the exit code.

Everything that a user can cause is raised as `UserError`. Everything else that reaches the top is translated by
`describe`, so that a full disk or an exhausted GPU ends with its own exit code wherever in the libraries it came up, and
a genuine bug ends as `Error` with its traceback in the log.
"""

from __future__ import annotations

import errno
import re
import sys
from functools import partial
from typing import Any

from trainyard.api.addresses import told
from trainyard.api.conditions import Reason
from trainyard.api.exitcodes import ExitCode

UNEXPECTED = 1
"""Exit code of everything without a meaning of its own; the operator counts it against backoffLimit."""


class UserError(Exception):
    """A fault with a way out.

    `message` names the field or file, the value and what is wrong with it; `hint` says what to do. The exit code decides
    whether the operator tries again; `again` says that the next attempt will not meet the same fault.
    """

    def __init__(self, message: str, *, hint: str = "", reason: Reason, exit_code: int, again: bool = False) -> None:
        super().__init__(told(message))
        self.message = told(message)
        self.hint = told(hint)
        self.reason = reason
        self.exit_code = exit_code
        self.again = again

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> Any:
        """From one process to another."""
        made = partial(UserError, hint=self.hint, reason=self.reason, exit_code=self.exit_code, again=self.again)
        return made, (self.message,)


def invalid_config(message: str, *, hint: str = "") -> UserError:
    """The spec asks for something that cannot be done. Never retried."""
    return UserError(message, hint=hint, reason=Reason.INVALID_CONFIG, exit_code=ExitCode.INVALID_CONFIG)


def invalid_data(message: str, *, hint: str = "") -> UserError:
    """The data is malformed, missing, or refused to us. Never retried."""
    return UserError(message, hint=hint, reason=Reason.INVALID_DATA, exit_code=ExitCode.INVALID_DATA)


def source_unavailable(message: str, *, hint: str = "") -> UserError:
    """A source does not answer at the moment."""
    return UserError(message, hint=hint, reason=Reason.SOURCE_UNAVAILABLE, exit_code=ExitCode.SOURCE_UNAVAILABLE)


def storage(message: str, *, hint: str = "") -> UserError:
    """A volume is full or broken."""
    return UserError(message, hint=hint, reason=Reason.STORAGE, exit_code=ExitCode.STORAGE)


STORAGE_HINT = "raise spec.storage.checkpoints.size, lower spec.checkpoints.keepLast, or free the volume"
_STORAGE_ERRNO = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the quota is used up",
    errno.EIO: "the device reports an I/O error",
    errno.EROFS: "the file system is read-only",
    errno.ESTALE: "the network volume has lost the file",
}


def describe(error: BaseException) -> UserError:
    """Translate any exception that ends a step; the result is never raised, only reported."""
    if isinstance(error, UserError):
        return error
    if is_device_out_of_memory(error):
        return UserError(
            f"the device ran out of memory: {first_line(error)}",
            hint="lower spec.training.perDeviceTrainBatchSize and raise gradientAccumulationSteps by the same factor, "
            "or lower maxLength, or set gradientCheckpointing: true, or train a LoRA adapter (spec.model.adapter)",
            reason=Reason.DEVICE_OUT_OF_MEMORY,
            exit_code=ExitCode.DEVICE_OUT_OF_MEMORY,
        )
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _STORAGE_ERRNO:
            where = cause.filename or cause.filename2
            return storage(
                f"{_STORAGE_ERRNO[cause.errno]}{f' at {where}' if where else ''}: {first_line(cause)}",
                hint=STORAGE_HINT,
            )
        if isinstance(cause, PermissionError):
            return storage(
                f"not allowed to use {cause.filename}: {first_line(cause)}",
                hint="the trainer runs as user 1000; give the volume to it (fsGroup 1000 does on most storage classes)",
            )
        # The writers of torch and safetensors are no Python and raise errors of their own, with the cause in words.
        told = _told_errno(cause)
        if told in _STORAGE_ERRNO:
            return storage(f"{_STORAGE_ERRNO[told]}: {first_line(cause)}", hint=STORAGE_HINT)
    if isinstance(error, MemoryError):
        return UserError(
            "the container ran out of memory",
            hint="raise spec.resources.limits.memory, or lower the batch size",
            reason=Reason.HOST_OUT_OF_MEMORY,
            exit_code=UNEXPECTED,
        )
    return UserError(
        f"{type(error).__name__}: {first_line(error)}",
        hint="the traceback is in the log of the pod",
        reason=Reason.ERROR,
        exit_code=UNEXPECTED,
    )


def _told_errno(error: BaseException) -> int | None:
    """The errno that a message of another language's library quotes."""
    text = str(error)
    if found := re.search(r"\(os error (\d+)\)", text):
        return int(found[1])
    return errno.ENOSPC if "No space left on device" in text else None


def is_device_out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator had too little memory, in any library's words."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "CUDA out of memory" in text or "CUBLAS_STATUS_ALLOC_FAILED" in text or "HIP out of memory" in text
    )


def _causes(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def first_line(error: BaseException | str, limit: int = 500) -> str:
    """The first line of what a library says; the error's kind where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0][:limit] if text else type(error).__name__
