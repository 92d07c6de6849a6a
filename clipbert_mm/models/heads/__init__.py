"""Task heads: clip logits, losses, scores."""

from clipbert_mm.models.heads.masked_language_head import MaskedLanguageHead
from clipbert_mm.models.heads.matching_head import MatchingHead

__all__ = ["MaskedLanguageHead", "MatchingHead"]
