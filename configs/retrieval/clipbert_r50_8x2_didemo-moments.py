# Single sentences of DiDeMo: which videos is each true of, and does its best clip lie in the times that three annotators chose?
# Not in the paper. CHECKPOINT is one of retrieval/clipbert_r50_8xb8-accum4-8x2-20e_didemo.py, which is trained on paragraphs.
#   python tools/test.py configs/retrieval/clipbert_r50_8x2_didemo-moments.py CHECKPOINT
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/didemo.py",
    "../_base_/default_runtime.py",
]

model = dict(head=dict(type="MatchingHead", in_channels=768, hidden_channels=1536))

train_dataloader = None
test_clips = dict(type="SampleClips", num_clips=16, num_frames=2, clip_seconds=1.0, mode="uniform")
test_dataloader = dict(
    dataset=dict(
        ann_file="annotations/test_sentences.jsonl",
        pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text],
    )
)
test_evaluator = dict(multi_positive=True)
