"""The transformer that reads a text and a clip together."""

from clipbert_mm.models.encoders.joint_encoder import JointEncoder

__all__ = ["JointEncoder"]
