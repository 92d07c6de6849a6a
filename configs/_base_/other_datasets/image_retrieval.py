# Retrieval of images by captions on data sets that the paper does not use: what each has unless it says otherwise. The recipe
# of image questions (Table 9) with the head of retrieval. A leaf adds the data.
_base_ = [
    "../models/clipbert_r50_bert-base.py",
    "../datasets/text_to_video.py",
    "../datasets/text_to_video_val.py",
    "../schedules/adamw_linear.py",
    "../default_runtime.py",
]
load_from = _base_.pretrained  # by images and their captions; docs/where_to_start.md has other starts
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
    dataset=dict(media_folder="images", pipeline=pipeline),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    dataset=dict(media_folder="images", pipeline=pipeline),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(media_folder="images", pipeline=pipeline),
)

train_cfg = dict(max_epochs=10)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(enable=False, base_batch_size=256)
