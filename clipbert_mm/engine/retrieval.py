"""The old place of :mod:`clipbert_mm.retrieval`."""

from clipbert_mm.deprecation import moved

moved(__name__, "clipbert_mm.retrieval")
