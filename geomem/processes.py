"""Several processes that share one piece of work, as ``torchrun`` starts them."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NoReturn

from geomem.errors import InputError, LostProcess

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup


def is_first() -> bool:
    """Whether this process is the one that speaks to people: the only one, or rank 0 under torchrun."""
    return os.environ.get("RANK", "0") == "0"


def are_several() -> bool:
    """Whether torchrun started more than one process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def process_group() -> Iterator[ProcessGroup | None]:
    """The processes that torchrun started, this one with a GPU of its own where there are any; None for a single
    process. A group that the caller has begun already is taken as it is.
    """
    if not are_several():
        yield None
        return
    import torch

    if torch.distributed.is_initialized():
        yield torch.distributed.group.WORLD
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield torch.distributed.group.WORLD
    except LostProcess:
        atexit.register(leave_at_once, 1)
        raise
    except BaseException:
        torch.distributed.destroy_process_group()
        raise
    with suppress(RuntimeError):  # all are done before the first one takes its connections down
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def leave_at_once(status: int) -> NoReturn:
    """End the program with this exit status, without what Python does at its end: gloo's threads, those of a broken
    group above all, now and then abort it there.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def reduce(parts: Sequence[tuple[str, torch.Tensor]], group: ProcessGroup) -> None:
    """Replace each tensor by the sum, max or min (the word beside it) over the processes.

    Raises LostProcess if one of them has ended.
    """
    import torch.distributed as dist

    operations = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}
    try:
        for operation, tensor in parts:
            dist.all_reduce(tensor, operations[operation], group)
    except RuntimeError as error:  # what gloo and NCCL raise when a connection closes
        raise LostProcess(f"another of the {group.size()} processes has ended; look at what it said and start all "
                          "again") from error


def require_same(what: Any, group: ProcessGroup) -> None:
    """Raises InputError unless all processes call this with the same ``what`` (bytes, or anything that prints)."""
    import torch

    digest = sha256(what if isinstance(what, bytes) else repr(what).encode()).digest()[:7]
    low = torch.tensor([int.from_bytes(digest)])
    high = low.clone()
    reduce([("min", low), ("max", high)], group)
    if low.item() != high.item():
        with suppress(RuntimeError):  # nobody leaves before all know
            torch.distributed.barrier(group)
        raise InputError("the processes were given different data or settings; start all with the same ones")
