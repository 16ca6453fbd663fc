"""Training: the loss, the step, best weights per noise level, and run directories that survive interruption."""

from geomem._renamed import renamed
from geomem.training.best_weights import BestWeights
from geomem.training.dummy import WithNoiseImages
from geomem.training.earlier import EarlierWeights
from geomem.training.export import export_run
from geomem.training.loop import Interrupted, TrainingDiverged, evaluation_steps, train, watch_steps
from geomem.training.loss import denoising_loss, heldout_losses
from geomem.training.monitor import Monitor
from geomem.training.pretrained import Origin, Pretrained, load_denoiser
from geomem.training.run import Run, initial_denoiser, untrained_denoiser
from geomem.training.trainer import Trainer, TrainingSettings

__all__ = [
    "BestWeights",
    "EarlierWeights",
    "Interrupted",
    "Monitor",
    "Origin",
    "Pretrained",
    "Run",
    "Trainer",
    "TrainingDiverged",
    "TrainingSettings",
    "WithNoiseImages",
    "denoising_loss",
    "evaluation_steps",
    "export_run",
    "heldout_losses",
    "initial_denoiser",
    "load_denoiser",
    "train",
    "untrained_denoiser",
    "watch_steps",
]
__getattr__ = renamed(__name__)
