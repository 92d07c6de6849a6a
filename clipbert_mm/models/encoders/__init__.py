"""The transformer that reads a text and a clip together."""

from clipbert_mm.models.encoders.joint_encoder import JointEncoder
from clipbert_mm.models.encoders.pair_encoder import PRECISIONS, EncodedTexts, PairEncoder, without_padding

__all__ = ["PRECISIONS", "EncodedTexts", "JointEncoder", "PairEncoder", "without_padding"]
