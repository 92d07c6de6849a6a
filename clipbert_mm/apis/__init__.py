"""On your own videos: search, rank, ask."""

from clipbert_mm.apis.explanation import Explanation
from clipbert_mm.apis.gallery import GalleryError, VideoGallery
from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.apis.results import Answer, AnswerResult, Hit, IndexReport, Moment, RankedText, Ranking, SearchResult
from clipbert_mm.apis.video_qa import VideoQA
from clipbert_mm.apis.video_search import VideoSearch

__all__ = [
    "Answer",
    "AnswerResult",
    "Explanation",
    "GalleryError",
    "Hit",
    "IndexReport",
    "Moment",
    "Predictor",
    "RankedText",
    "Ranking",
    "SearchResult",
    "VideoGallery",
    "VideoQA",
    "VideoSearch",
]
