"""Web page to search videos and ask questions, built with Gradio."""

from clipbert_mm.apis.page.server import build_api, build_app, serve

__all__ = ["build_api", "build_app", "serve"]
