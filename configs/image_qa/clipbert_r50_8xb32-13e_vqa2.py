# Table 9 of the paper, row "CLIPBERT 1x1". The paper's numbers: test-dev 69.08, test-std 69.43.
# For the test server: --cfg-options test_dataloader.dataset.ann_file=annotations/vqa_test-dev.jsonl
# test_evaluator.submission_file=vqa_test-dev.json
#   bash tools/dist_train.sh configs/image_qa/clipbert_r50_8xb32-13e_vqa2.py 8
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/vqa2.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
load_from = _base_.pretrained  # by images and their captions; docs/where_to_start.md has other starts

model = dict(head=dict(type="SoftAnswerHead", in_channels=768, num_answers=3129, hidden_channels=1536))

pipeline = [
    dict(type="LoadImage"),
    dict(type="ResizePad", size=768),
    dict(type="Tokenize", tokenizer="{{$CLIPBERT_BERT:bert-base-uncased}}", max_length=20),
    dict(type="PackInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
val_dataloader = dict(dataset=dict(pipeline=pipeline))
test_dataloader = dict(dataset=dict(pipeline=pipeline))

train_cfg = dict(max_epochs=13)
optim_wrapper = dict(optimizer=dict(lr=5e-5), clip_grad=dict(max_norm=2.0))  # the clipping of the paper's release
auto_scale_lr = dict(enable=False, base_batch_size=256)
