"""Tests run on one thread: on problems this small a second one costs more than it saves, in child processes too."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
