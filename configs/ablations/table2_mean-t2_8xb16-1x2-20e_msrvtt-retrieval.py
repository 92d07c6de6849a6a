# Table 2 of the paper, row "mean pooling, T = 2": MSRVTT retrieval, local validation.
# The paper's numbers: R1 11.3, R5 31.7, R10 44.9, MdR 14.
#   bash tools/dist_train.sh configs/ablations/table2_mean-t2_8xb16-1x2-20e_msrvtt-retrieval.py 8
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/msrvtt_retrieval.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
weights = "{{$CLIPBERT_WEIGHTS:checkpoints/clipbert_image_text_pretrained.pt}}"  # the paper's image-text pre-training
load_from = weights

model = dict(
    head=dict(type="MatchingHead", in_channels=768, hidden_channels=1536),
)

frames_and_text = [
    dict(type="DecodeClips"),
    dict(type="ResizePad", size=448),
    dict(type="Tokenize", tokenizer="{{$CLIPBERT_BERT:bert-base-uncased}}", max_length=20),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=1, num_frames=2, clip_seconds=1.0, mode="random"),
            *frames_and_text,
        ]
    )
)
test_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=1, num_frames=2, clip_seconds=1.0, mode="middle"),
            *frames_and_text,
        ]
    )
)

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=20)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(enable=False, base_batch_size=128)
