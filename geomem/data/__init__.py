"""Data: from what a person names (a recipe, a file, a folder, an array) to points ready for use.

A *point* is one image ``(C, H, W)``, one signal ``(1, L)`` or one vector ``(d,)`` in float32. A *data set* is
a training part, a held-out part of the same shape, and what is known about them.
"""

from geomem._renamed import renamed
from geomem.data.dataset import DataSet
from geomem.data.folds import cut_into_folds
from geomem.data.load import load_data
from geomem.data.pixels import from_uint8, to_uint8
from geomem.data.points import StoredPoints
from geomem.data.table import Table, TableEncoder

__all__ = ["DataSet", "StoredPoints", "Table", "TableEncoder", "cut_into_folds", "from_uint8", "load_data", "to_uint8"]
__getattr__ = renamed(__name__)
