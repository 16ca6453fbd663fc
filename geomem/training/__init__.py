"""Training: the loss, the step, best weights per noise level, and run directories that survive interruption."""

from geomem._renamed import renamed
from geomem.training.best_weights import BestWeights, trained_state
from geomem.training.classes import Classes, WithNoiseImages, classes_of
from geomem.training.distillation import plan_distillation
from geomem.training.earlier import EarlierWeights
from geomem.training.export import export_run
from geomem.training.level_files import load_best
from geomem.training.loop import (
    Interrupted,
    TrainingDiverged,
    TrainingState,
    evaluation_steps,
    heldout_monitor,
    train,
    train_steps,
    watch_steps,
)
from geomem.training.loss import denoising_loss, heldout_losses
from geomem.training.monitor import Monitor
from geomem.training.plan import TrainingPlan, plan_training
from geomem.training.pretrained import InitialWeights, Pretrained, load_denoiser
from geomem.training.run import Run, initial_denoiser, untrained_denoiser
from geomem.training.trainer import Trainer, TrainingSettings

__all__ = [
    "BestWeights",
    "Classes",
    "EarlierWeights",
    "InitialWeights",
    "Interrupted",
    "Monitor",
    "Pretrained",
    "Run",
    "Trainer",
    "TrainingDiverged",
    "TrainingPlan",
    "TrainingSettings",
    "TrainingState",
    "WithNoiseImages",
    "classes_of",
    "denoising_loss",
    "evaluation_steps",
    "export_run",
    "heldout_losses",
    "heldout_monitor",
    "initial_denoiser",
    "load_best",
    "load_denoiser",
    "plan_distillation",
    "plan_training",
    "train",
    "train_steps",
    "trained_state",
    "untrained_denoiser",
    "watch_steps",
]
__getattr__ = renamed(__name__)
