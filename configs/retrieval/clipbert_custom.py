# Text-to-video retrieval on your own videos with the paper's model; see docs/your_own_data.md.
#   CLIPBERT_DATA=path/to/data python tools/train.py configs/retrieval/clipbert_custom.py
#   CLIPBERT_DATA=path/to/data python tools/test.py configs/retrieval/clipbert_custom.py work_dirs/clipbert_custom/epoch_10.pth
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/text_to_video.py",
    "../_base_/datasets/text_to_video_val.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
import os  # noqa: E402, before _base_ MMEngine would take this for a config of its other kind

# A folder with videos/, train.jsonl, test.jsonl and, for validation, val.jsonl if you like; a line of these is
# {"video": "a.mp4", "caption": "what happens in it"}.
data_root = "{{$CLIPBERT_DATA:data/custom}}"
# A Hugging Face folder or name of a BERT-base, such as bert-base-uncased. Without one the encoder starts from scratch, with a
# vocabulary trained on the captions.
bert = "{{$CLIPBERT_BERT:none}}"
from_scratch = bert == "none"
tokenizer = f"{data_root}/tokenizer" if from_scratch else bert

# A checkpoint to start from: of this model, the paper's release, or a ResNet-50 of torchvision, mmpretrain, mmaction2 or
# detectron2. Without one the ResNet learns from scratch: nothing of it is frozen.
weights = "{{$CLIPBERT_WEIGHTS:none}}"
load_from = [source for source in (bert, weights) if source != "none"] or None
frozen = weights != "none"

model = dict(
    backbone=dict(
        frozen_stages=1 if frozen else -1, norm_cfg=dict(type="BN", requires_grad=not frozen), norm_eval=frozen
    ),
    head=dict(type="MatchingHead", in_channels=768, hidden_channels=1536),
)

tokens = [
    dict(
        type="Tokenize",
        tokenizer=tokenizer,
        max_length=40,
        train_on=[f"{data_root}/train.jsonl"] if from_scratch else [],
    ),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(
        data_root=data_root,
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=2, num_frames=2, clip_seconds=1.0, mode="random"),
            dict(type="DecodeClips"),
            dict(type="ResizePad", size=448),
            *tokens,
        ],
    ),
)
# Of at most 100 videos, by one clip: from 6,000 training captions on, it costs less than a tenth of an epoch.
val_dataloader = dict(
    batch_size=4,
    num_workers=2,
    dataset=dict(
        data_root=data_root,
        indices=100,
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=1, num_frames=2, clip_seconds=1.0, mode="middle"),
            dict(type="DecodeClips"),
            dict(type="ResizePad", size=448),
            *tokens,
        ],
    ),
)
if not os.path.isfile(f"{data_root}/val.jsonl"):
    val_dataloader = val_cfg = val_evaluator = None
test_dataloader = dict(
    batch_size=4,
    num_workers=2,
    dataset=dict(
        data_root=data_root,
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", num_clips=8, num_frames=2, clip_seconds=1.0, mode="uniform"),
            dict(type="DecodeClips"),
            dict(type="ResizePad", size=448),
            *tokens,
        ],
    ),
)

train_cfg = dict(max_epochs=10)
test_cfg = dict(clips_per_tile=64)
auto_scale_lr = dict(enable=False, base_batch_size=128)  # the paper's rate, 5e-5, is for 8 GPUs x 16 items
