"""Threads for the work on the CPU: many independent pieces, each on one thread.

The pieces are matrix products and short elementwise operations. Handing whole pieces to threads keeps every core
busy with both; splitting each operation over the cores, as torch does, costs more waiting than it saves at these
sizes, and a thousand times more where another program keeps a core busy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

Run = Callable[[Iterable[Callable[[], object]]], None]


@contextmanager
def workers(device: torch.device) -> Iterator[Run]:
    """Gives ``run(pieces)``, which returns once all are done, or raises the first error.

    As many threads as torch may use; none beside a GPU, which takes the pieces one after another. Pieces that run
    together must not write to the same place.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield _one_after_another
        return
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def run(pieces: Iterable[Callable[[], object]]) -> None:
        for future in [pool.submit(_quickly, piece) for piece in pieces]:
            future.result()

    try:
        yield run
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _one_after_another(pieces: Iterable[Callable[[], object]]) -> None:
    for piece in pieces:
        _quickly(piece)


def _quickly(piece: Callable[[], object]) -> None:
    """Without autograd, whose preparations would hold up the other threads at each operation."""
    with torch.inference_mode():
        piece()


def may_look(tensor: torch.Tensor) -> bool:
    """Whether to look at results on the way and leave out what they make needless: on the CPU alone. A GPU would
    wait for the host, which costs more than the work.
    """
    return tensor.device.type == "cpu"
