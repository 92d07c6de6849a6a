"""CLIP (Radford et al., ICML 2021), SigLIP and SigLIP2: a tower for images and one for texts, compared by their vectors."""

PREFIXES = {
    "vision_model.": "backbone.vit.",
    "visual_projection.": "backbone.visual_projection.",
    "text_model.": "encoder.text.",
    "text_projection.": "encoder.text_projection.",
    "logit_": "head.logit_",
}
"""How names begin in CLIPModel and SiglipModel of transformers, and how in a ClipBert."""
