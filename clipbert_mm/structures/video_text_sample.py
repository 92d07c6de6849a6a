"""VideoTextSample, the record of an item from its dataset to its metric."""

from mmengine.structures import BaseDataElement

IGNORED = -100
"""Label of a token that is not to be predicted, and of an answer outside the vocabulary."""
LOG_ODDS = "log-odds"
"""The kind of scores that stand for probabilities of a match."""
COSINE = "cosine"
"""The kind of scores that are cosine similarities."""
LOG_PROBABILITY = "log-probability"
"""The kind of scores of answers that are the logarithms of their probabilities."""
COUNT = "count"
"""The kind of scores that are themselves the answer."""


class VideoTextSample(BaseDataElement):
    """One video (or image) with its texts, their labels and, later, their predictions.

    Meta information:
        sample_idx (int): Index of the item in its dataset.
        path (str): The video or image file.
        texts (list[str]): The ``m`` texts of this item.
        broken (str | None): Why the file could not be read, if the dataset skips it.
        answer_types (list[str]): Type of each question, if the annotations have it.
        question_ids (list): Number or name of each question, if the annotations have it.
        references (list[list[str]]): All correct answers of each open-ended question; only in testing.
        spans (list[list[list[float]] | None]): Start and end in seconds of each time span in which the video shows a text, one
            list per text, None where they are not known; only if a text has any.
        clip_times (np.ndarray): Start and end of each clip in seconds, (K, 2); only with ``spans``.
        replaced (list[tuple[str, str]]): Files that could not be read and that this item replaces, with the reasons.

    Data:
        match_labels (np.ndarray): 1 where a text belongs to the video, else 0; int64, (m,).
        answer_labels (np.ndarray): The correct answer of each question: its index in the answer vocabulary, or among the
            options of multiple choice; int64, one per question.
        answer_scores (np.ndarray): Score of each answer of the vocabulary, 0 to 1; float32, (m, C).
        counts (np.ndarray): The count that each question asks for; float32, (m,).
        clip_logits (Tensor): Logits of each clip, (m, K, C).
        mlm_correct (Tensor): Whether each masked token was predicted correctly; bool, one per token and clip.
        scores (Tensor): Scores that the head computes from the logits pooled over the clips: one per text, (m,), or one per
            answer, (m, C).
    """
