"""Several processes that train one model, data parallel.

Every process has the whole model and sees its own share of each batch; gradients are averaged, so weights and optimizer
stay the same on all of them. Rank 0 alone writes checkpoints and the model, and alone reports. What has to be decided
together (whether to stop, whether it is time to save) is decided at the border between two steps, by one small sum over all
processes that also brings the number of tokens together.

Which process one is stands in the environment in torch's own words (RANK, WORLD_SIZE, ...). Between CPUs the data go
through gloo, between GPUs through NCCL.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from trainyard.api import names
from trainyard.api.conditions import Reason
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.errors import UserError, source_unavailable

if TYPE_CHECKING:
    from torch import Tensor

RENDEZVOUS_SECONDS = 600
"""A process that waits so long for the others at the beginning gives its GPU back."""
LONGEST_WAIT = timedelta(minutes=30)
"""Between two processes later on: one may be writing a large checkpoint."""
LOST_PEER = (
    "connection closed by peer",
    "connection reset by peer",
    "connection refused",
    "broken pipe",
    "socket closed",
    "recvvalue failed",
    "sendbytes failed",
    "store is no longer available",
    "remote process exited",
    "process group watchdog",
)
"""In what torch's backends say when another process has gone, in small letters."""


@dataclass(frozen=True)
class Team:
    """This process among those that train together. One alone is a team of one, and nothing here costs it anything."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports for all."""
        return self.rank == 0

    def join(self, *, cuda: bool) -> None:
        """Meet the others.

        Raises:
            UserError: they did not come.
        """
        if self.size == 1:
            return
        import torch

        if cuda:
            torch.cuda.set_device(self.local_rank)
        try:
            store = torch.distributed.TCPStore(  # type: ignore[attr-defined]
                os.environ[names.ENV_MASTER_ADDR],
                int(os.environ[names.ENV_MASTER_PORT]),
                self.size,
                is_master=self.leads,
                timeout=timedelta(seconds=RENDEZVOUS_SECONDS),
            )
            torch.distributed.init_process_group(
                # Sums of numbers that live on the CPU go through gloo also where the gradients go through NCCL.
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=store,
                rank=self.rank,
                world_size=self.size,
                timeout=LONGEST_WAIT,
            )
        except (torch.distributed.DistError, RuntimeError, TimeoutError) as error:
            raise source_unavailable(
                f"not all of {self.size} processes met at {os.environ.get(names.ENV_MASTER_ADDR)} within "
                f"{RENDEZVOUS_SECONDS // 60} minutes: {str(error).splitlines()[0][:200]}",
                hint="all pods have to run at once: check that the cluster has room for spec.numNodes of them, and that "
                "network policies let the pods of the run talk to each other",
            ) from error

    def sum(self, *values: float) -> tuple[float, ...]:
        """The sum of each over all processes."""
        if self.size == 1:
            return values
        import torch

        total = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(total)
        return tuple(total.tolist())

    def gather(self, value: Any) -> list[Any]:
        """What each process gives, by rank, on all of them."""
        if self.size == 1:
            return [value]
        import torch

        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, value)
        return found

    def added(self, *tensors: Tensor) -> list[Tensor]:
        """The sum of each over all processes, in its own size and type: one exchange of 32-bit numbers for all of them. The
        result has the same bits everywhere."""
        if self.size == 1:
            return list(tensors)
        import torch

        flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]

    def brought(self, tensor: Tensor) -> list[Tensor]:
        """What each process gives, by rank and in main memory, on the first one; nothing on the others. All are of one size."""
        own = tensor.detach().contiguous().cpu()
        if self.size == 1:
            return [own]
        import torch

        found = [torch.empty_like(own) for _ in range(self.size)] if self.leads else []
        # As bytes, because not every backend knows every type.
        as_bytes = [one.view(torch.uint8) for one in found]
        torch.distributed.gather(own.view(torch.uint8), as_bytes if self.leads else None)
        return found

    def wait(self) -> None:
        """Go on when all have come here."""
        self.sum(0.0)


ALONE = Team()


def team_of(environment: Mapping[str, str] = os.environ) -> Team:
    """Which process this is."""
    names_and_defaults = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1))
    return Team(*(int(environment.get(name, default)) for name, default in names_and_defaults))


def ranks(environment: Mapping[str, str], local_rank: int) -> dict[str, str]:
    """RANK and the like of one process of this pod; empty where it trains alone."""
    nodes = int(environment.get(names.ENV_NUM_NODES, 1))
    processes = int(environment.get(names.ENV_NUM_PROC_PER_NODE, 1))
    if nodes * processes == 1:
        return {}
    return {
        "RANK": str(int(environment.get(names.ENV_NODE_INDEX, 0)) * processes + local_rank),
        "WORLD_SIZE": str(nodes * processes),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(processes),
    }


def lost_peer(error: BaseException) -> UserError | None:
    """The error of a process whose partner has gone; None for any other.

    It is not this one's fault and says nothing about the cause, so it asks to be run again, uncounted; the partner's own
    end tells why.
    """
    torch = sys.modules.get("torch")
    if torch is None or team_of().size == 1 or isinstance(error, UserError):
        return None
    is_network = isinstance(error, torch.distributed.DistError)
    if not is_network and not (isinstance(error, RuntimeError) and any(t in str(error).lower() for t in LOST_PEER)):
        return None
    return UserError(
        f"another process of this training has gone: {str(error).strip().splitlines()[0][:200]}",
        hint="the group starts again from the newest checkpoint",
        reason=Reason.INTERRUPTED,
        exit_code=ExitCode.RESUME,
    )
