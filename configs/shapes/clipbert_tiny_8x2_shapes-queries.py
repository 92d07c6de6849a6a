# Queries as people type them, "a red circle", on the Shapes world: of which videos are they true, in which clips, and is the
# probability of a match to be believed? CHECKPOINT is one of clipbert_tiny_1xb16-2x2-4e_shapes-retrieval.py.
#   python tools/test.py configs/shapes/clipbert_tiny_8x2_shapes-queries.py CHECKPOINT --show-dir work_dirs/queries
_base_ = ["../_base_/models/clipbert_tiny.py", "../_base_/default_runtime.py"]
data_root = "{{$SHAPES_ROOT:data/shapes}}"
tokenizer = f"{data_root}/tokenizer"
captions = [f"{data_root}/pretrain.jsonl", f"{data_root}/train.jsonl"]

model = dict(
    backbone=dict(norm_eval=True),
    head=dict(type="MatchingHead", in_channels=128, hidden_channels=256, dropout=0.0, prior=(0.25, 0.08)),
    pack_pairs=True,
)

test_dataloader = dict(
    batch_size=16,
    num_workers=1,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="RetrievalDataset",
        data_root=data_root,
        ann_file="queries.jsonl",
        media_folder="videos",
        test_mode=True,
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=8, num_frames=2, clip_seconds=1.0, mode="uniform"),
            dict(type="DecodeClips"),
            dict(type="ResizePad", size=64),
            dict(type="Tokenize", tokenizer=tokenizer, max_length=64, train_on=captions, vocab_size=200),
            dict(type="PackInputs"),
        ],
    ),
)
test_cfg = dict(type="RetrievalTestLoop")
test_evaluator = dict(type="RetrievalMetric", multi_positive=True, calibration=True)
