"""Feature spaces: pictures compared by the values that a network gives them, in place of their pixels.

Any callable or ``torch.nn.Module`` is an extractor: pictures (n, C, H, W), a float32 tensor in the scale of the data,
to features (n, F). ``load_features`` makes those that are known by name, and reads their weights as safetensors alone
(of Inception also as tensors in a ``.pth``); nothing is executed and nothing is downloaded.

To add one: a class with the class method ``load(path, device)``, registered under a name or under the ``model_type`` of
the config.json in its folder, or under the suffix of its file.
"""

from geomem.features.dinov2 import DINOv2
from geomem.features.inception import InceptionFeatures, inception_features
from geomem.features.onnx import ONNXFeatures
from geomem.features.registry import EXTRACTORS, load_features
from geomem.features.space import PIXELS, FeatureSpace, feature_space, rows_in

__all__ = ["EXTRACTORS", "PIXELS", "DINOv2", "FeatureSpace", "InceptionFeatures", "ONNXFeatures",
           "feature_space", "inception_features", "load_features", "rows_in"]
