"""Every text against every video through the joint encoder: a gallery of visual tokens, scores by tile, a cascade."""

from clipbert_mm.engine.retrieval.gallery import Gallery
from clipbert_mm.engine.retrieval.identity import ForeignResultsError, claim, digest, digest_files, digest_weights
from clipbert_mm.engine.retrieval.loop import RetrievalTestLoop, RetrievalValLoop
from clipbert_mm.engine.retrieval.score_matrix import ScoreMatrix
from clipbert_mm.engine.retrieval.scoring import PairScorer, encode_with_overview

__all__ = [
    "ForeignResultsError",
    "Gallery",
    "PairScorer",
    "RetrievalTestLoop",
    "RetrievalValLoop",
    "ScoreMatrix",
    "claim",
    "digest",
    "digest_files",
    "digest_weights",
    "encode_with_overview",
]
