"""Search, rank and ask on your own videos. Each name is imported when it is first used."""

from typing import TYPE_CHECKING

from clipbert_mm.deprecation import renamed
from clipbert_mm.errors import VideoIndexError
from clipbert_mm.lazy import lazy_exports

if TYPE_CHECKING:
    from clipbert_mm.apis.calibration import CalibrationReport, LabelledPair, read_pairs
    from clipbert_mm.apis.duplicates import Duplicate, DuplicateReport
    from clipbert_mm.apis.explanation import Explanation
    from clipbert_mm.apis.inferencer import ClipBertInferencer, inference_model, init_model
    from clipbert_mm.apis.predictor import Predictor
    from clipbert_mm.apis.results import (
        Answer,
        AnswerResult,
        IndexReport,
        Moment,
    )
    from clipbert_mm.apis.search_results import Hit, RankedText, Ranking, SearchResult
    from clipbert_mm.apis.similar import SimilarVideos
    from clipbert_mm.apis.video_qa import VideoQA
    from clipbert_mm.apis.video_search import VideoSearch
    from clipbert_mm.index import Filter, VideoIndex

__all__ = [
    "Answer",
    "AnswerResult",
    "CalibrationReport",
    "ClipBertInferencer",
    "Duplicate",
    "DuplicateReport",
    "Explanation",
    "Filter",
    "Hit",
    "IndexReport",
    "LabelledPair",
    "Moment",
    "Predictor",
    "RankedText",
    "Ranking",
    "SearchResult",
    "SimilarVideos",
    "VideoIndex",
    "VideoIndexError",
    "VideoQA",
    "VideoSearch",
    "inference_model",
    "init_model",
    "read_pairs",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "calibration": ["CalibrationReport", "LabelledPair", "read_pairs"],
        "duplicates": ["Duplicate", "DuplicateReport"],
        "explanation": ["Explanation"],
        "inferencer": ["ClipBertInferencer", "inference_model", "init_model"],
        "predictor": ["Predictor"],
        "results": [
            "Answer",
            "AnswerResult",
            "IndexReport",
            "Moment",
        ],
        "search_results": ["Hit", "RankedText", "Ranking", "SearchResult"],
        "similar": ["SimilarVideos"],
        "video_qa": ["VideoQA"],
        "video_search": ["VideoSearch"],
        "clipbert_mm.index": ["Filter", "VideoIndex"],
    },
    renamed(
        __name__,
        {"GalleryError": "clipbert_mm.errors.VideoIndexError", "VideoGallery": "clipbert_mm.apis.VideoIndex"},
    ),
)
