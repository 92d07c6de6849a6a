"""On your own videos: search, rank, ask."""

from clipbert_mm.apis.explanation import Explanation
from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.apis.results import Answer, AnswerResult, Hit, IndexReport, Moment, RankedText, Ranking, SearchResult
from clipbert_mm.apis.video_index import VideoIndex, VideoIndexError
from clipbert_mm.apis.video_qa import VideoQA
from clipbert_mm.apis.video_search import VideoSearch
from clipbert_mm.deprecation import renamed

__all__ = [
    "Answer",
    "AnswerResult",
    "Explanation",
    "Hit",
    "IndexReport",
    "Moment",
    "Predictor",
    "RankedText",
    "Ranking",
    "SearchResult",
    "VideoIndex",
    "VideoIndexError",
    "VideoQA",
    "VideoSearch",
]

__getattr__ = renamed(
    __name__, {"GalleryError": "clipbert_mm.errors.VideoIndexError", "VideoGallery": "clipbert_mm.apis.VideoIndex"}
)
