"""The record that follows an item from its dataset to its metric."""

from mmengine.structures import BaseDataElement

IGNORED = -100
"""Label of a word piece that is not to be predicted."""


class VideoTextSample(BaseDataElement):
    """One video (or image) with its texts, their labels and, later, their predictions.

    Meta information:
        sample_idx (int): Place of the item in its dataset.
        path (str): The video or image file.
        texts (list[str]): The ``m`` texts of this item.
        broken (str | None): Why the file could not be read, where the dataset was told to go on without it.
        answer_types (list[str]): Kind of each question, where the annotations say it.
        question_ids (list): Number or name of each question, where the annotations say it.
        replaced (list[tuple[str, str]]): Files that could not be read and stand replaced by this item, with the reasons.

    Data:
        match_labels (np.ndarray): 1 where a text belongs to the video, else 0; int64, (m,).
        answer_labels (np.ndarray): The right answer of each question: its place in the answer vocabulary, or among the
            options of multiple choice; int64, one a question.
        answer_scores (np.ndarray): How right each answer of the vocabulary is, 0 to 1; float32, (m, C).
        counts (np.ndarray): The count that each question asks for; float32, (m,).
        clip_logits (Tensor): What the model said of each clip, (m, K, C).
        mlm_correct (Tensor): Which masked word pieces were predicted right; bool, one a piece and clip.
        scores (Tensor): What the head makes of the logits pooled over the clips: one score a text, (m,), or one for each
            answer, (m, C).
    """
