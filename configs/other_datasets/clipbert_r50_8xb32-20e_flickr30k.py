# Flickr30k image retrieval, Karpathy's split: 1,000 test images of five captions each. Not in the paper: its recipe of
# image-text tasks (Table 9) with the head of retrieval.
#   bash tools/dist_train.sh configs/other_datasets/clipbert_r50_8xb32-20e_flickr30k.py 8
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/text_to_video.py",
    "../_base_/datasets/text_to_video_val.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
load_from = _base_.pretrained  # by images and their captions; docs/where_to_start.md has other starts
flickr30k = "{{$CLIPBERT_FLICKR30K:data/flickr30k}}"

model = dict(head=dict(type="MatchingHead", in_channels=768, hidden_channels=1536))

pipeline = [
    dict(type="LoadImage"),
    dict(type="ResizePad", size=768),
    dict(type="Tokenize", tokenizer="{{$CLIPBERT_BERT:bert-base-uncased}}", max_length=40),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    dataset=dict(
        data_root=flickr30k,
        ann_file="annotations/retrieval_train.jsonl",
        media_folder="images",
        pipeline=pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    dataset=dict(
        data_root=flickr30k,
        ann_file="annotations/retrieval_val.jsonl",
        media_folder="images",
        indices=150,
        pipeline=pipeline,
    ),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        data_root=flickr30k,
        ann_file="annotations/retrieval_test.jsonl",
        media_folder="images",
        pipeline=pipeline,
    ),
)

train_cfg = dict(max_epochs=20)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(enable=False, base_batch_size=256)
