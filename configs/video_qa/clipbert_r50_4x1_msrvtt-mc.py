# Table 8c of the paper, row "CLIPBERT 4x1". The paper's numbers: accuracy 87.9.
# CHECKPOINT is one of retrieval/clipbert_r50_8xb16-4x1-20e_msrvtt.py, which ranks the five captions.
#   python tools/test.py configs/video_qa/clipbert_r50_4x1_msrvtt-mc.py CHECKPOINT
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/msrvtt_mc.py",
    "../_base_/default_runtime.py",
]

model = dict(head=dict(type="MatchingHead", in_channels=768, hidden_channels=1536))

test_clips = dict(type="SampleClips", num_clips=16, num_frames=1, clip_seconds=1.0, mode="uniform")
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), test_clips, *_base_.frames_and_text]))
