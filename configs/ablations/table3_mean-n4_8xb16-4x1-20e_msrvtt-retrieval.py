# Table 3 of the paper, row "mean pooling, N_train = 4": MSRVTT retrieval, local validation.
# The paper's numbers: R1 14.0, R5 38.6, R10 51.6, MdR 10.
#   bash tools/dist_train.sh configs/ablations/table3_mean-n4_8xb16-4x1-20e_msrvtt-retrieval.py 8
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/msrvtt_retrieval.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
weights = "{{$CLIPBERT_WEIGHTS:checkpoints/clipbert_image_text_pretrained.pt}}"  # the paper's image-text pre-training
load_from = weights

model = dict(
    aggregator=dict(type="MeanAggregator"),
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
            dict(type="SampleClips", num_clips=4, num_frames=1, clip_seconds=1.0, mode="random"),
            *frames_and_text,
        ]
    )
)
test_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=16, num_frames=1, clip_seconds=1.0, mode="uniform"),
            *frames_and_text,
        ]
    )
)

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=20)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(enable=False, base_batch_size=128)
