"""Features of any network that was exported to ONNX, as those of SSCD (Pizzi et al. 2022) can be.

The file holds a graph of known operations and their weights; no code of its own is executed. Points go in as they are,
pictures in [-1, 1]: other scales, and standardizing, belong into the graph.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geomem.devices import resolve_device
from geomem.errors import InputError

_LARGEST = 2**31  # bytes of any ONNX file, by protobuf
_ELSEWHERE = b"\x0a\x08location"  # the key of weights outside the file, as protobuf writes it


class ONNXFeatures:
    """Points (n, ...) to (n, F), the first output of the graph with all but its first dimension flattened.

    Of pictures, grey ones are repeated into three channels and all are resized (bicubic, antialiased) where the graph's
    input asks for it. name: of the file, with its SHA-256.
    """

    def __init__(self, session: Any, name: str) -> None:
        self.session, self.name = session, name
        self._input = session.get_inputs()[0]
        self._known = [size if isinstance(size, int) else None for size in self._input.shape]

    def __call__(self, points: Tensor) -> Tensor:
        if len(self._known) == points.ndim == 4:
            points = self._fitted(points)
        wrong = len(self._known) != points.ndim or any(
            size not in (None, found) for size, found in zip(self._known[1:], points.shape[1:], strict=True))
        if wrong:
            raise InputError(f"{self.name} takes points of shape {tuple(self._input.shape[1:])}, not "
                             f"{tuple(points.shape[1:])}")
        found = [self.session.run(None, {self._input.name: part.numpy()})[0]
                 for part in points.split(self._known[0] or len(points))]
        return torch.cat([torch.from_numpy(part) for part in found]).flatten(1)

    def _fitted(self, pictures: Tensor) -> Tensor:
        _, channels, *sides = self._known
        if channels == 3 and pictures.shape[1] == 1:
            pictures = pictures.expand(-1, 3, -1, -1)
        size = [wanted or found for wanted, found in zip(sides, pictures.shape[2:], strict=True)]
        if size != list(pictures.shape[2:]):
            pictures = nn.functional.interpolate(pictures, size, mode="bicubic", antialias=True)
        return pictures.contiguous()

    @classmethod
    def load(cls, path: str, device: str | torch.device = "auto") -> ONNXFeatures:
        """The network in a ``.onnx`` file. Raises InputError without onnxruntime, and for a file that it cannot read,
        whose weights lie elsewhere, or whose input is no float32.
        """
        try:
            import onnxruntime
        except ImportError:
            raise InputError(f"--features {path} needs onnxruntime; pip install 'geomem[features]'") from None
        if Path(path).stat().st_size > _LARGEST:
            raise InputError(f"--features {path}: larger than an ONNX file can be (2 GiB)")
        content = Path(path).read_bytes()
        if _ELSEWHERE in content:
            raise InputError(f"--features {path} keeps weights in other files; export it into one file")
        wanted = ["CUDAExecutionProvider"] if resolve_device(device).type == "cuda" else []
        there = onnxruntime.get_available_providers()
        onnxruntime.set_default_logger_severity(3)
        try:
            session = onnxruntime.InferenceSession(content, providers=[
                *(name for name in wanted if name in there), "CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class for each of its codes, with no common one
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise InputError(f"--features {path} is no network that onnxruntime can read ({reason})") from None
        if [part.type for part in session.get_inputs()] != ["tensor(float)"]:
            raise InputError(f"--features {path} takes {', '.join(part.type for part in session.get_inputs())}; an "
                             "extractor takes one float32 input, pictures (n, C, H, W)")
        return cls(session, f"{Path(path).stem} {hashlib.sha256(content).hexdigest()[:12]}")
