"""Calibrate the scores of an index by labelled pairs."""

import os
from collections.abc import Sequence

import numpy as np

from clipbert_mm.apis.calibration import CalibrationReport, LabelledPair, fit_stage, keep_calibration
from clipbert_mm.apis.search_options import MODEL, VECTORS, SearchOptions
from clipbert_mm.apis.two_stages import TwoStages
from clipbert_mm.errors import OptionError, VideoIndexError, printable
from clipbert_mm.index import Entry
from clipbert_mm.index.vectors import pool_similarities


def calibrate(stages: TwoStages, pairs: Sequence[LabelledPair]) -> CalibrationReport:
    """Fit probabilities of the model's scores, and of those of vectors alone, and keep them with the index.

    Args:
        stages: The two stages of a search in the index.
        pairs: Texts and videos of the index, at least one pair that matches and one that does not.

    Raises:
        OptionError: If there are no pairs of both kinds, or the scores tell nothing about a match.
        VideoIndexError: If a video is not in the index, or cannot be searched.
        BusyFolderError: If another process is changing the index.
    """
    index, predictor = stages.video_index, stages.predictor
    if {pair.match for pair in pairs} != {True, False}:
        raise OptionError(
            f"A calibration needs at least one pair that matches and one that does not, got {len(pairs)} of one kind."
        )
    texts = list(dict.fromkeys(pair.text for pair in pairs))
    number = {text: i for i, text in enumerate(texts)}
    rows = [number[pair.text] for pair in pairs]
    paths = [os.path.abspath(pair.video) for pair in pairs]
    entries = index.found(list(dict.fromkeys(paths)))
    if missing := [path for path in paths if path not in entries]:
        raise VideoIndexError(
            f"{printable(missing[0])} is not in the index {index.name}. Index the videos of the pairs first."
        )
    wanted: list[dict[str, Entry]] = [{} for _ in texts]
    for row, path in zip(rows, paths, strict=True):
        wanted[row][path] = entries[path]
    token_ids, lost = predictor.token_ids(texts), [dict[str, str]() for _ in texts]
    scored = stages.score(wanted, predictor.encode_texts(token_ids), lost, joined=predictor.model.joins_clips)
    for path, reason in (each for own in lost for each in own.items()):
        raise VideoIndexError(f"{printable(path)} cannot be searched: {reason}.")
    right = [pair.match for pair in pairs]
    own = [scored[row][path] for row, path in zip(rows, paths, strict=True)]
    probabilities = [each.probability for each in own]
    fitted = {MODEL: fit_stage([each.score for each in own], right, stages.score_pooling, probabilities)}
    failed = {}
    if predictor.model.encoder.has_vectors:
        vectors, pooling = stages.text_vectors(token_ids), stages.vector_pooling(SearchOptions())
        similar = []
        for row, path in zip(rows, paths, strict=True):
            clips = (index.vectors(path) @ vectors[row]).numpy()  # (K,)
            similar.append(float(pool_similarities(clips, np.array([0]), np.array([len(clips)]), pooling)[0]))
        try:
            fitted[VECTORS] = fit_stage(similar, right, pooling, [None] * len(pairs))
        except OptionError as error:  # what the vectors tell is no reason to leave the model's scores alone
            failed[VECTORS] = str(error)
    with index.locked():
        keep_calibration(index, fitted)
    return CalibrationReport(fitted, failed)
