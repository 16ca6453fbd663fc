"""Best weights per noise level: early stopping, level by level.

The noise axis is cut into bands. Whenever held-out losses are given, each band looks for the snapshot with its
smallest loss and takes the earliest among those within a relative tolerance of it. Generation then uses for each
noise level the weights of its band. The rival, one early stop, is kept beside it: the snapshot with the smallest
average loss over all bands.

A network leans on its training points before its held-out loss is smallest. With a limit on held-out over training loss
a band takes the best of the snapshots within it.

Usable in any training loop::

    best = BestWeights.log_spaced()
    best.update(step, losses, ema_model)   # losses: held-out MSE at best.centres
    denoiser = best.stitched(ema_model)

Of a network that is trained in part, with an adapter say, only that part is kept (``trained_state``).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geomem.errors import InputError
from geomem.models.piecewise import PiecewiseDenoiser
from geomem.noise.schedules import SIGMA_MAX, SIGMA_MIN

BANDS = 20  # of noise levels, by default

Snapshot = dict[str, Tensor]


class BestWeights:
    """Chooses one training snapshot per band of noise levels.

    Parameters
    ----------
    edges : (bands + 1,) increasing noise levels in data units; the first and last band are used beyond the ends too.
    tolerance : a band takes its earliest snapshot with loss <= (1 + tolerance) x its smallest loss.
    lean : a band takes no snapshot with a held-out loss above ``lean`` x the loss of training points, but for the very
        first one; None for no limit.
    average_weights : (bands,) weights of the bands in the average loss that picks the one early stop.
    dtype : float type in which snapshots are kept; None leaves them as they come. bfloat16 takes half the space and
        rounds each weight by at most one part in 256.
    """

    def __init__(self, edges: Sequence[float] | np.ndarray, *, tolerance: float = 0.005, lean: float | None = None,
                 average_weights: Sequence[float] | np.ndarray | None = None,
                 dtype: torch.dtype | None = None) -> None:
        self.edges = np.asarray(edges, dtype=np.float64)
        if self.edges.ndim != 1 or len(self.edges) < 2 or not np.all(np.diff(self.edges) > 0) or self.edges[0] <= 0:
            raise InputError("the edges of the noise-level bands must be positive and increase")
        if not tolerance >= 0:
            raise InputError(f"the tolerance of the best weights must be >= 0, not {tolerance}")
        if lean is not None and not lean >= 1:
            raise InputError(f"--lean {lean}: held-out over training loss is 1 for weights that owe nothing to their "
                             "training points; give a limit of at least 1")
        self.tolerance, self.lean, self.dtype = tolerance, lean, dtype
        bands = len(self.edges) - 1
        self.average_weights = np.ones(bands) if average_weights is None else np.asarray(average_weights, dtype=float)
        if self.average_weights.shape != (bands,) or not self.average_weights.sum() > 0:
            raise InputError(f"average_weights must be {bands} numbers, one per band, with a positive sum")
        # Per band the snapshots that can still be chosen, as (step, loss): losses fall strictly, all within the
        # tolerance of the last, which is the smallest so far. The first is the choice.
        self._candidates: list[list[tuple[int, float]]] = [[] for _ in range(bands)]
        self._early_stop: tuple[int, float] | None = None
        self.snapshots: dict[int, Snapshot] = {}

    @classmethod
    def log_spaced(cls, bands: int = BANDS, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX,
                   **options: Any) -> BestWeights:
        """Bands of equal width in log sigma between the ends of the EDM schedule."""
        return cls(np.geomspace(sigma_min, sigma_max, bands + 1), **options)

    @property
    def centres(self) -> np.ndarray:
        """Geometric centre of each band, shape (bands,): where the held-out losses are to be measured."""
        return np.sqrt(self.edges[:-1] * self.edges[1:])

    def update(self, step: int, losses: Sequence[float] | np.ndarray, snapshot: nn.Module | Mapping[str, Tensor],
               training: Sequence[float] | np.ndarray | None = None) -> None:
        """Take in the held-out losses (bands,) of the weights at ``step``; the snapshot is copied if it is needed.

        ``snapshot``: a network, of which ``trained_state`` is kept, or a state that is kept whole. ``training``: the
        losses of training points (bands,), which ``lean`` needs. Raises InputError where the network is trained in
        parts that snapshots before it do not hold.
        """
        losses = np.asarray(losses, dtype=np.float64)
        if losses.shape != (len(self._candidates),):
            raise InputError(f"expected {len(self._candidates)} losses, one per band, not shape {losses.shape}")
        if not np.isfinite(losses).all():
            raise InputError(f"the held-out losses of step {step} are not finite; the training has diverged")
        within = np.ones(len(losses), dtype=bool)
        if self.lean is not None:
            if training is None:
                raise InputError("a limit on held-out over training loss needs the losses of training points")
            within = losses <= self.lean * np.asarray(training)
        for candidates, loss, may in zip(self._candidates, losses, within, strict=True):
            if not candidates or (may and loss < candidates[-1][1]):
                candidates.append((step, float(loss)))
                candidates[:] = [c for c in candidates if c[1] <= (1 + self.tolerance) * loss]
        average = float(np.average(losses, weights=self.average_weights))
        if self._early_stop is None or average < self._early_stop[1]:
            self._early_stop = (step, average)
        needed = self._needed()
        if step in needed:
            self.snapshots[step] = kept_copy(snapshot, self.dtype, self.snapshots)
        self.snapshots = {s: self.snapshots[s] for s in needed}

    def _needed(self) -> list[int]:
        """Steps of the snapshots that are chosen, or may be yet."""
        early_stop = [] if self._early_stop is None else [self._early_stop[0]]
        return sorted({step for candidates in self._candidates for step, _ in candidates}.union(early_stop))

    @property
    def steps(self) -> list[int]:
        """Chosen step of each band, in the order of the bands."""
        self._require_update()
        return [candidates[0][0] for candidates in self._candidates]

    @property
    def smallest(self) -> np.ndarray:
        """Smallest held-out loss of each band so far, shape (bands,)."""
        self._require_update()
        return np.array([candidates[-1][1] for candidates in self._candidates])

    @property
    def early_stop(self) -> int:
        """Step with the smallest average held-out loss."""
        self._require_update()
        assert self._early_stop is not None
        return self._early_stop[0]

    def _require_update(self) -> None:
        if self._early_stop is None:
            raise InputError("the best weights per noise level need at least one update with held-out losses")

    def stitched(self, denoiser: nn.Module) -> PiecewiseDenoiser:
        """Denoiser that uses for each noise level the weights of its band; ``denoiser`` gives the architecture."""
        return stitch(self.edges, [self.snapshots[step] for step in self.steps], denoiser)

    def to_dict(self) -> dict[str, Any]:
        """JSON state without the snapshots themselves."""
        return {"edges": self.edges.tolist(), "tolerance": self.tolerance, "lean": self.lean,
                "average_weights": self.average_weights.tolist(),
                "candidates": self._candidates, "early_stop": self._early_stop}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any], snapshot: Callable[[int], Snapshot],
                  dtype: torch.dtype | None = None) -> BestWeights:
        """Inverse of ``to_dict``; ``snapshot`` gives those kept by their step, ``dtype`` is that of those to come."""
        best = cls(state["edges"], tolerance=state["tolerance"], lean=state.get("lean"),
                   average_weights=state["average_weights"], dtype=dtype)
        best._candidates = [[(int(step), float(loss)) for step, loss in band] for band in state["candidates"]]
        if state["early_stop"] is not None:
            step, average = state["early_stop"]
            best._early_stop = int(step), float(average)
        best.snapshots = {step: snapshot(step) for step in best._needed()}
        return best


def trained_state(network: nn.Module) -> dict[str, Tensor]:
    """The entries of a network's state that training can change: all but the frozen parameters.

    Buffers are among them, since a norm moves its statistics where its parameters are frozen. Where every parameter is
    frozen, as in a moving average, nothing tells which are trained, and the state is whole.
    """
    state = network.state_dict(keep_vars=True)
    if not any(tensor.requires_grad for tensor in state.values()):
        return state
    return {name: tensor for name, tensor in state.items()
            if tensor.requires_grad or not isinstance(tensor, nn.Parameter)}


def kept_copy(snapshot: nn.Module | Mapping[str, Tensor], dtype: torch.dtype | None,
              before: Mapping[int, Snapshot]) -> Snapshot:
    """The tensors on the CPU, copied; those of floats as ``dtype`` where one is given. What needs no gradient and is as
    it was in the last of the snapshots ``before`` is held once.

    Raises InputError where these lack an entry: one that was frozen then, and is trained now.
    """
    if isinstance(snapshot, nn.Module):
        snapshot = trained_state(snapshot)
    last = before[max(before)] if before else {}
    kept: Snapshot = {}
    for name, tensor in snapshot.items():
        like = last.get(name)
        if last and like is None and tensor.requires_grad:
            raise InputError(f"{name!r} is trained now, and was frozen when the weights of step {max(before)} were "
                             "kept; choose what is trained before the first of them, or start with a new monitor")
        copied = tensor.detach().to("cpu", (dtype if tensor.is_floating_point() else None) or tensor.dtype, copy=True)
        unchanged = (like is not None and not tensor.requires_grad and copied.dtype == like.dtype
                     and torch.equal(copied, like))
        kept[name] = like if unchanged and like is not None else copied
    return kept


def with_weights(denoiser: nn.Module, snapshot: Snapshot, held: dict[int, Tensor] | None = None) -> nn.Module:
    """A copy of ``denoiser`` in evaluation mode with the weights of a snapshot. Frozen parameters that are not in it
    are not copied: both networks hold the same ones.

    ``held``: by the identity of a snapshot's tensor, that of an earlier copy with its values; it is shared, and those
    of this copy are added. Raises InputError where the network lacks an entry of the snapshot, or trains another.
    """
    held = {} if held is None else held
    state = denoiser.state_dict(keep_vars=True)
    if left := [name for name in snapshot if name not in state]:
        raise InputError(f"the kept weights hold {left[0]!r}, which this network does not have; give the network that "
                         "was trained, with its adapter")
    if left := [name for name, tensor in state.items() if tensor.requires_grad and name not in snapshot]:
        raise InputError(f"the kept weights lack {left[0]!r}, which is not frozen in this network; give the network "
                         "that was trained, or freeze its base (requires_grad_(False))")
    memo = {id(tensor): held.get(id(snapshot[name])) if name in snapshot else tensor for name, tensor in state.items()}
    copied = copy.deepcopy(denoiser, {key: tensor for key, tensor in memo.items() if tensor is not None}).eval()
    copied.load_state_dict(snapshot, strict=False)
    held |= {id(snapshot[name]): tensor for name, tensor in copied.state_dict(keep_vars=True).items()
             if name in snapshot}
    return copied


def stitch(edges: Sequence[float] | np.ndarray, weights: Sequence[Snapshot], denoiser: nn.Module) -> PiecewiseDenoiser:
    """One denoiser per band from the weights per band; equal snapshots are held once, equal neighbours merged, and
    what no snapshot changes is shared with ``denoiser``.
    """
    held: dict[int, Tensor] = {}
    copies: dict[int, nn.Module] = {}
    chosen, cuts = [], []
    for k, snapshot in enumerate(weights):
        if id(snapshot) not in copies:
            copies[id(snapshot)] = with_weights(denoiser, snapshot, held)
        if k == 0 or snapshot is not weights[k - 1]:
            cuts.append(float(edges[k]))
            chosen.append(copies[id(snapshot)])
    return PiecewiseDenoiser(chosen, cuts[1:])
