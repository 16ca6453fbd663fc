"""Training in bfloat16, and with the channels of images innermost, resumes exactly."""

import numpy as np
import pytest
import torch
from test_training import CONFIG, after_step, assert_same_run, terminate

from geomem.noise import LogNormalSampler
from geomem.training import Interrupted, Run, Trainer, TrainingSettings, train


@pytest.mark.parametrize("how", [{"precision": "bf16"}, {"channels_last": True}])
def test_stopping_and_resuming_images_changes_nothing(tmp_path, how):
    """The moments of the optimizer are stored with the channels outermost, and must not stay so."""
    images = np.random.default_rng(2).standard_normal((40, 1, 8, 8), dtype=np.float32)

    def start(path):
        run = Run(path)
        if not run.exists:
            run.create({**CONFIG, "shape": [1, 8, 8], "network": "unet-tiny"})
        torch.manual_seed(0)
        settings = TrainingSettings(iterations=5, batch=8, precision=how.get("precision", "fp32"))
        return run, Trainer(run.untrained(), LogNormalSampler(), images, settings,
                            channels_last="channels_last" in how)

    train(*start(tmp_path / "whole"), images[:10])
    run, trainer = start(tmp_path / "stopped")
    after_step(trainer, 3, terminate)
    with pytest.raises(Interrupted, match="stopped at step 3"):
        train(run, trainer, images[:10])
    train(*start(run.path), images[:10])
    assert_same_run(tmp_path / "whole", run.path)
