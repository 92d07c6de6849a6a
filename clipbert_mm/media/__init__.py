"""Media: opening, decoding and re-encoding videos and images from folders, LMDBs and file backends."""

DECODING_RULES = 2
"""Version of the rules that decide frames and their times. An index encodes videos again that it read by older rules."""
