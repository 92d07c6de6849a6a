# Image questions with soft scores, as VQA 2.0, on the Shapes world; starts from its pre-training.
#   python tools/train.py configs/shapes/clipbert_tiny_1xb32-6e_shapes-image-qa.py
_base_ = [
    "../_base_/models/clipbert_tiny.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
data_root = "{{$SHAPES_ROOT:data/shapes}}"
tokenizer = f"{data_root}/tokenizer"
captions = [f"{data_root}/pretrain.jsonl", f"{data_root}/train.jsonl"]
load_from = "work_dirs/clipbert_tiny_1xb32-4e_shapes-pretrain/epoch_4.pth"

model = dict(
    backbone=dict(norm_eval=True),
    head=dict(type="SoftAnswerHead", in_channels=128, num_answers=14, hidden_channels=256, dropout=0.0),
)

frames_and_text = [
    dict(type="ResizePad", size=64),
    dict(type="Tokenize", tokenizer=tokenizer, max_length=64, train_on=captions, vocab_size=200),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    drop_last=True,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="SoftAnswerDataset",
        data_root=data_root,
        ann_file="image_qa_train.jsonl",
        answer_file="answers.json",
        media_folder="images",
        pipeline=[
            dict(type="LoadImage"),
            *frames_and_text,
        ],
    ),
)
test_dataloader = dict(
    batch_size=32,
    num_workers=1,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="SoftAnswerDataset",
        data_root=data_root,
        ann_file="image_qa_test.jsonl",
        answer_file="answers.json",
        media_folder="images",
        test_mode=True,
        pipeline=[
            dict(type="LoadImage"),
            *frames_and_text,
        ],
    ),
)
# Validation: some of the held-out images.
val_dataloader = dict(test_dataloader, dataset=dict(test_dataloader["dataset"], indices=100))

train_cfg = dict(max_epochs=6)
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="VQAAccuracy")
test_cfg = dict(type="TestLoop")
test_evaluator = dict(type="VQAAccuracy")
optim_wrapper = dict(optimizer=dict(lr=5e-4))
auto_scale_lr = dict(enable=False, base_batch_size=32)
default_hooks = dict(
    checkpoint=dict(interval=6),
    checkpoint_fit=dict(reinit=["head"]),  # other answers than in pre-training
)
