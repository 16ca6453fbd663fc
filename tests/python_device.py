"""A device in Python, for tests of what runs on a GPU where there is none.

Its tensors live elsewhere as far as torch knows (PrivateUse1, here called ``remote``): an operation on one of them and
a CPU tensor is refused, NumPy cannot read one, and only a copy brings values back. Each holds a CPU tensor on which
everything is computed, so the results are the CPU's. ``counted`` gives what would cost time on a GPU: ``waits`` of
the host for the device (a copy back, ``.item()``, a size that depends on values) and ``copies`` to the device.
``present(float64=False)`` is a device like Apple's mps: any float64 on it, or on either side of a copy, is refused.
"""

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import geomem.devices

NAME = "remote"
aten = torch.ops.aten
# The shape of the result depends on values, or the result is a number of Python.
WAITING = {aten._local_scalar_dense, aten.item, aten.equal, aten.is_nonzero, aten.nonzero, aten.masked_select,
           aten.bincount, aten._unique2, aten.unique_dim, aten.unique_consecutive}


@dataclass
class Counts:
    waits: Counter = field(default_factory=Counter)
    copies: int = 0


_counts = Counts()
_float64 = True  # whether the device has it


class Remote(torch.Tensor):
    """A tensor on the device; ``held`` has its values."""

    @staticmethod
    def __new__(cls, held):
        _refuse_float64(held)
        with torch.inference_mode(False):  # in that mode torch makes no views of a tensor that wraps another
            return torch.Tensor._make_wrapper_subclass(cls, held.shape, strides=held.stride(), dtype=held.dtype,
                                                       storage_offset=held.storage_offset(), device=f"{NAME}:0")

    def __init__(self, held):
        self.held = held

    def __repr__(self):
        return f"Remote({self.held})"

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        return on_the_device(op, *args, **(kwargs or {}))


def on_the_device(op, *args, **kwargs):
    """Compute ``op`` on what its tensors hold; results are on the device unless the operation says otherwise."""
    name, leaves = op.overloadpacket, tree_leaves((args, kwargs))
    wanted = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
    home = name in (aten._to_copy, aten.to) and wanted is not None and wanted.type == "cpu"
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if name in (aten._to_copy, aten.to, aten.copy_):
        _refuse_float64(*tensors, kwargs.get("dtype"))
    here = [tensor for tensor in tensors if not isinstance(tensor, Remote)]
    if name is aten.copy_ and here:
        home = args[0] is here[0]
        _counts.copies += not home
    elif any(tensor.dim() for tensor in here):
        raise RuntimeError(f"Expected all tensors to be on the same device, but {op} found {NAME} and cpu")
    masks = name in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_) and any(
        index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    if (home and not kwargs.get("non_blocking")) or masks or name in WAITING:
        _counts.waits[str(op)] += 1
    same = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, Remote)}
    with torch.inference_mode(False):
        results = op(*tree_map(_held, args), **tree_map(_held, kwargs))

    for tensor in same.values():
        assert tensor.shape == tensor.held.shape, f"{op} resizes a tensor, which is not followed here"

    def wrapped(result):
        return same[id(result)] if id(result) in same else Remote(result)

    if name is aten.copy_ and home:
        return args[0]
    return results if home else tree_map(lambda r: wrapped(r) if isinstance(r, torch.Tensor) else r, results)


def _refuse_float64(*values):
    if not _float64 and any(getattr(value, "dtype", value) == torch.float64 for value in values):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. "
                        "Please use float32 instead.")


def _held(value):
    """What is computed with on the host in the place of a tensor or the device."""
    if isinstance(value, torch.device) and value.type == NAME:
        return torch.device("cpu")
    return value.held if isinstance(value, Remote) else value


class _Generator(torch.Generator):
    """torch lets no backend in Python have generators: the device's are the CPU's under another name."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls, "cpu" if torch.device(device).type == NAME else device)
        made.named = torch.device(device)
        return made

    def __init__(self, device="cpu"):
        pass

    device = property(lambda self: self.named)


@contextlib.contextmanager
def counted():
    """Counts of what runs within."""
    global _counts
    before, _counts = _counts, Counts()
    try:
        yield _counts
    finally:
        _counts = before


@contextlib.contextmanager
def present(*, float64=True):
    """Within it torch has the device, and geomem knows it as one with or without float64."""
    global _float64
    if not hasattr(torch, NAME):
        _register()
    with torch.autograd.set_multithreading_enabled(False), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(geomem.devices, "WITHOUT_FLOAT64", {"mps"} if float64 else {"mps", NAME})
        for name in ("tensor", "as_tensor"):  # torch's own cannot write to a backend in Python
            patch.setattr(torch, name, _by_copy(getattr(torch, name)))
        before = _float64, torch.__future__.get_swap_module_params_on_conversion()
        _float64 = float64
        torch.__future__.set_swap_module_params_on_conversion(True)  # .data = ... would leave ``held`` behind
        try:
            yield
        finally:
            _float64 = before[0]
            torch.__future__.set_swap_module_params_on_conversion(before[1])


def _register():
    # Autograd starts a thread for each device that there is at its first use, and no process with such a thread may
    # fork: it is used before there is this one.
    torch.ones(1, requires_grad=True).sum().backward()
    _setup_privateuseone_for_python_backend(NAME)
    fallback, of_aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    fallback.fallback(on_the_device, "PrivateUse1")
    for op in (aten.arange.default, aten.arange.start, aten.arange.start_step, aten.randperm.default,
               aten.randperm.generator, aten.linspace.default):  # which would resize an empty tensor
        of_aten.impl(op.name().removeprefix("aten::"), partial(on_the_device, op), "PrivateUse1")
    _register.libraries = fallback, of_aten  # what they registered ends with them


def _by_copy(make):
    def made(data, *, dtype=None, device=None, **options):
        if device is None or torch.device(device).type != NAME:
            return make(data, dtype=dtype, device=device, **options)
        return (data if isinstance(data, torch.Tensor) else make(data, dtype=dtype, **options)).to(device, dtype)
    return made
