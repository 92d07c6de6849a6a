"""The transformers that read a text and a clip together."""

from clipbert_mm.models.encoders.answer_encoder import AnswerEncoder
from clipbert_mm.models.encoders.attention import without_padding
from clipbert_mm.models.encoders.base_pair_encoder import PRECISIONS, BasePairEncoder, EncodedTexts
from clipbert_mm.models.encoders.cross_encoder import CrossEncoder
from clipbert_mm.models.encoders.dual_encoder import CLIPText, DualEncoder, SiglipText
from clipbert_mm.models.encoders.dual_pair_encoder import DualPairEncoder
from clipbert_mm.models.encoders.joint_encoder import JointEncoder
from clipbert_mm.models.encoders.pair_encoder import PairEncoder
from clipbert_mm.models.encoders.perception_text import PEText
from clipbert_mm.models.encoders.vilt_encoder import ViltEncoder

__all__ = [
    "PRECISIONS",
    "AnswerEncoder",
    "BasePairEncoder",
    "CLIPText",
    "CrossEncoder",
    "DualEncoder",
    "DualPairEncoder",
    "EncodedTexts",
    "JointEncoder",
    "PEText",
    "PairEncoder",
    "SiglipText",
    "ViltEncoder",
    "without_padding",
]
