"""Every text against every video through the joint encoder: a gallery of visual tokens, scores by tile, a cascade."""

from clipbert_mm.retrieval.feature_store import FeatureStore
from clipbert_mm.retrieval.fingerprint import ResultsMismatchError, claim, digest, digest_files, digest_weights
from clipbert_mm.retrieval.loops import RetrievalTestLoop, RetrievalValLoop
from clipbert_mm.retrieval.score_matrix import ScoreMatrix
from clipbert_mm.retrieval.scoring import PairScorer, encode_with_coarse_tokens

__all__ = [
    "FeatureStore",
    "PairScorer",
    "ResultsMismatchError",
    "RetrievalTestLoop",
    "RetrievalValLoop",
    "ScoreMatrix",
    "claim",
    "digest",
    "digest_files",
    "digest_weights",
    "encode_with_coarse_tokens",
]
