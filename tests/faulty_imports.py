"""What a training imports, for the process that trainings are forked from; see faulty_runs.py."""

from clipbert_mm import compat
from clipbert_mm.engine import launch  # noqa: F401

compat.import_mmpretrain()

import decord  # noqa: E402, F401
import mmaction.datasets.transforms  # noqa: E402, F401
import mmengine.visualization  # noqa: E402, F401
