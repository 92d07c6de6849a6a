"""Retrieval over a whole gallery: stored visual tokens, scores by tile, re-ranking of a shortlist.

Each name is imported when it is first used, so that a search does without MMEngine's Runner.
"""

from typing import TYPE_CHECKING

from clipbert_mm.deprecation import renamed
from clipbert_mm.lazy import lazy_exports

if TYPE_CHECKING:
    from clipbert_mm.retrieval.feature_store import FeatureStore
    from clipbert_mm.retrieval.fingerprint import ResultsMismatchError, digest, digest_files, digest_weights, reserve
    from clipbert_mm.retrieval.loops import RetrievalTestLoop, RetrievalValLoop
    from clipbert_mm.retrieval.score_matrix import ScoreMatrix

__all__ = [
    "FeatureStore",
    "ResultsMismatchError",
    "RetrievalTestLoop",
    "RetrievalValLoop",
    "ScoreMatrix",
    "digest",
    "digest_files",
    "digest_weights",
    "reserve",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "feature_store": ["FeatureStore"],
        "fingerprint": ["ResultsMismatchError", "digest", "digest_files", "digest_weights", "reserve"],
        "loops": ["RetrievalTestLoop", "RetrievalValLoop"],
        "score_matrix": ["ScoreMatrix"],
    },
    renamed(
        __name__,
        {
            "ForeignResultsError": "clipbert_mm.retrieval.ResultsMismatchError",
            "Gallery": "clipbert_mm.retrieval.FeatureStore",
            "claim": "clipbert_mm.retrieval.reserve",
        },
    ),
)
