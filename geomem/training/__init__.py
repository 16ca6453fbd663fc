"""Training: the loss, the step, best weights per noise level, and run directories that survive interruption."""

from geomem.training.best_weights import BestWeights
from geomem.training.loop import Interrupted, TrainingDiverged, evaluation_steps, train
from geomem.training.loss import denoising_loss, heldout_losses
from geomem.training.run import Run
from geomem.training.trainer import Trainer, TrainingSettings

__all__ = [
    "BestWeights",
    "Interrupted",
    "Run",
    "Trainer",
    "TrainingDiverged",
    "TrainingSettings",
    "denoising_loss",
    "evaluation_steps",
    "heldout_losses",
    "train",
]
