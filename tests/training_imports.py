"""What trainings and tests of models import, for the process that they are forked from; see warm_python.py."""

import gc

import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401

from clipbert_mm import compat, evaluation, models, visualization  # noqa: F401
from clipbert_mm.engine import launch, run_tool  # noqa: F401
from clipbert_mm.retrieval import loops  # noqa: F401

compat.import_mmpretrain()

# As conftest.py does for the process of the tests: a runner lays its whole config out several times, and each of MMEngine's
# datasets searches all that is imported for garbage.
compat.layout_module().FormatCode = lambda text, **style: (text, False)
gc.freeze()
