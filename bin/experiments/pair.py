"""Two models of one network: one trained on few images, one on many that include them (EDM-1K and EDM-50K of [G])."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from experiments import sources
from experiments.bench import Bench


@dataclass(frozen=True)
class Pair:
    data: str
    few: int
    many: int
    n_heldout: int
    side: int
    network: str
    iterations: int
    batch: int
    precision: str = "fp32"
    learning_rate: float | None = None
    dropout: float = 0.0
    seed: int = 0

    def deviations(self) -> list[str]:
        """What is not as in [G]."""
        lines = [f"few: {self.few:,} images ([G]: 1,000), many: {self.many:,} ([G]: 50,000), {self.side} x {self.side} "
                 "pixels ([G]: 32 x 32)"]
        if self.data == "digits":
            lines.append("digits stand in for CIFAR-10")
        if self.few < 1000:
            lines.append(f"network {self.network}, {self.iterations:,} steps of {self.batch}, one seed; [G] trains a "
                         "DDPM++ of 55.7M parameters on tens of millions of images")
        elif self.many > 5085:
            lines.append("the 50,000 images come from lossy JPEG, 3.4 away from the exact ones")
        return lines


SMOKE = Pair("digits", 40, 400, 200, 8, "mlp", iterations=20, batch=32)
SMALL = Pair("cifar", 128, 5085, 1000, 16, "unet-tiny", iterations=1000, batch=128, precision="bf16")
MEDIUM = replace(SMALL, side=32, precision="fp32")  # bfloat16 takes ten times as long on a CPU without units for it
PAPER = Pair("cifar", 1000, 50_000, 1000, 32, "unet-cifar", iterations=625_000, batch=64, precision="bf16",
             learning_rate=1e-3, dropout=.13)


@dataclass(frozen=True)
class Trained:
    """A model and the file of the data it was trained on."""

    data: Path
    run: Path


def train_pair(bench: Bench, pair: Pair) -> dict[str, Trained]:
    """``few`` and ``many``, trained as they should be or gone on with."""
    trained = {}
    for name, n_train in (("few", pair.few), ("many", pair.many)):
        data = sources.named(bench, pair.data, n_train, pair.n_heldout, pair.side)
        run = bench.model(f"{data.stem}-{pair.network}-{pair.iterations}", data, pair.iterations, pair)
        trained[name] = Trained(data, run)
    return trained
