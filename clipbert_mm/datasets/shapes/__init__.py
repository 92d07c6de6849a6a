"""The embedded captioned-video world: colored shapes that move, with captions and questions, made by seed."""
