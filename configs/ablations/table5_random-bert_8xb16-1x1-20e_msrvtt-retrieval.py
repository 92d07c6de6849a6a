# Table 5 of the paper, row "CNN random, transformer BERT-base": MSRVTT retrieval, local validation.
# The paper's numbers: R1 0.0, R5 0.2, R10 0.7, MdR 505.
#   bash tools/dist_train.sh configs/ablations/table5_random-bert_8xb16-1x1-20e_msrvtt-retrieval.py 8
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/msrvtt_retrieval.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
bert = "{{$CLIPBERT_BERT:bert-base-uncased}}"
load_from = bert

model = dict(
    # Nothing of a random ResNet is frozen; input and strides as in PyTorch.
    data_preprocessor=dict(std=[58.395, 57.12, 57.375], to_bgr=False),
    backbone=dict(
        style="pytorch",
        frozen_stages=-1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=False,
        zero_init_residual=False,
    ),
    head=dict(type="MatchingHead", in_channels=768, hidden_channels=1536),
)

frames_and_text = [
    dict(type="DecodeClips"),
    dict(type="ResizePad", size=448),
    dict(type="Tokenize", tokenizer=bert, max_length=20),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=1, num_frames=1, clip_seconds=1.0, mode="random"),
            *frames_and_text,
        ]
    )
)
test_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=1, num_frames=1, clip_seconds=1.0, mode="middle"),
            *frames_and_text,
        ]
    )
)

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=20)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(enable=False, base_batch_size=128)
