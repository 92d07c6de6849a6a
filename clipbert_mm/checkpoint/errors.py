"""What is raised where a checkpoint is not as it should be."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, does not fit, or cannot be written."""
