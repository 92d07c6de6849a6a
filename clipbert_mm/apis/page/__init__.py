"""A page in the browser for searching and asking, on Gradio."""

from clipbert_mm.apis.page.server import build_app, serve

__all__ = ["build_app", "serve"]
