"""Average precision and R-precision of rankings with several relevant candidates and ties."""

import numpy as np


def precision_figures(scores: np.ndarray, relevant: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the average precision (AP) and the R-precision of each query.

    AP is the mean, over the R relevant candidates of a query, of the precision at the rank of each. R-precision is the
    precision at rank R (Manning, Raghavan and Schütze, Introduction to Information Retrieval, 2008, Section 8.4). Candidates
    with equal scores are in random order, and both are the expected values (McSherry and Najork, Computing Information
    Retrieval Performance Measures Efficiently in the Presence of Tied Scores, 2008).

    Args:
        scores: Score of each query and candidate, (Q, G), larger is better, without NaN.
        relevant: Which candidates are relevant to a query, bool (Q, G), at least one each.

    Returns:
        ``AP`` and ``R-precision``, 0 to 1, float (Q,) each.

    >>> figures = precision_figures(np.array([[9.0, 7.0, 5.0]]), np.array([[True, False, True]]))
    >>> {name: values.round(3).tolist() for name, values in figures.items()}
    {'AP': [0.833], 'R-precision': [0.5]}
    """
    pairs = np.array([_expected_precision(*query) for query in zip(scores, relevant, strict=True)]).reshape(-1, 2)
    return {"AP": pairs[:, 0], "R-precision": pairs[:, 1]}


def _expected_precision(scores: np.ndarray, relevant: np.ndarray) -> tuple[float, float]:
    """Return AP and R-precision of one query, (G,) each.

    Of a group of n candidates with equal scores, r of them relevant, each rank is relevant with probability r / n; if it is, so
    are (r - 1) / (n - 1) of the ranks of the group before it.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, ranks = scores[order], np.arange(1, len(scores) + 1)
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))  # of the groups, (groups,)
    sizes = np.diff(np.append(starts, len(ranked)))
    counts = np.add.reduceat(relevant[order].astype(float), starts)
    probability = np.repeat(counts / sizes, sizes)  # (G,) as all below
    in_groups_before = np.repeat(np.cumsum(counts) - counts, sizes)
    in_group_before = np.repeat((counts - 1) / np.maximum(sizes - 1, 1), sizes) * (ranks - 1 - np.repeat(starts, sizes))
    precision = (in_groups_before + in_group_before + 1) / ranks
    total = int(relevant.sum())
    return float((probability * precision).sum() / total), float(probability[:total].mean())
