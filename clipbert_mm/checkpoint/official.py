"""Rename the tensors of the paper's released implementation to ours."""

import re
from collections.abc import Mapping

from torch import Tensor

RENAMED = (
    (r"^cnn\.feature\.backbone\.stem\.conv1\.norm\.", "backbone.bn1."),
    (r"^cnn\.feature\.backbone\.stem\.conv1\.", "backbone.conv1."),
    (r"^cnn\.feature\.backbone\.res2\.", "backbone.layer1."),
    (r"^cnn\.feature\.backbone\.res3\.", "backbone.layer2."),
    (r"^cnn\.feature\.backbone\.res4\.", "backbone.layer3."),
    (r"^cnn\.feature\.backbone\.res5\.", "backbone.layer4."),
    (r"^(backbone\.layer\d\.\d+)\.shortcut\.norm\.", r"\1.downsample.1."),
    (r"^(backbone\.layer\d\.\d+)\.shortcut\.", r"\1.downsample.0."),
    (r"^(backbone\.layer\d\.\d+)\.conv(\d)\.norm\.", r"\1.bn\2."),
    (r"^cnn\.grid_encoder\.0\.", "projection.conv."),
    (r"^transformer\.bert\.visual_embeddings\.row_position_embeddings\.", "encoder.visual_embedding.row_embeddings."),
    (
        r"^transformer\.bert\.visual_embeddings\.col_position_embeddings\.",
        "encoder.visual_embedding.column_embeddings.",
    ),
    (r"^transformer\.bert\.visual_embeddings\.token_type_embeddings\.", "encoder.visual_embedding.type_embedding."),
    (r"^transformer\.bert\.visual_embeddings\.LayerNorm\.", "encoder.visual_embedding.norm."),
    (r"^transformer\.bert\.", "encoder.bert."),
    (r"^transformer\.classifier\.", "head.classifier."),
    (r"^transformer\.cls\.seq_relationship\.", "head.classifier."),
    (r"^transformer\.cls\.predictions\.transform\.dense\.", "mlm_head.transform.0."),
    (r"^transformer\.cls\.predictions\.transform\.LayerNorm\.", "mlm_head.transform.2."),
    (r"^transformer\.cls\.predictions\.bias$", "mlm_head.bias"),
)
"""Patterns and replacements, applied in this order."""
UNUSED = (
    r"^transformer\.bert\.visual_embeddings\.position_embeddings\.",  # saved, but never used
    r"^transformer\.cls\.predictions\.decoder\.",  # the same as the word embeddings and the bias
)
"""Tensors that the released implementation saves and ours does not need."""


def convert_official_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of the released implementation.

    Args:
        state_dict: Tensors by the released implementation's names, of any of its models (retrieval, question answering,
            multiple choice, pre-training). The tensors are not copied.

    Returns:
        The same tensors by the names of a :class:`~clipbert_mm.models.ClipBert` with a Caffe-style ResNet-50 of mmpretrain,
        as in ``configs/_base_/models/clipbert_r50_bert-base.py``. Other names stay unchanged, so that the load report shows
        them.
    """
    converted = {}
    for name, tensor in state_dict.items():
        if any(re.search(pattern, name) for pattern in UNUSED):
            continue
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        converted[name] = tensor
    return converted
