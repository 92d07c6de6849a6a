"""Media: opening, decoding and re-encoding videos and images from folders, LMDBs and file backends."""
