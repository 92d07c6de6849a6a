"""Pictures and videos: opening, decoding and re-encoding them, wherever they lie."""
