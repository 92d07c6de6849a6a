# Image-text pre-training on your own pictures with the paper's model; see docs/your_own_data.md.
#   python tools/train.py configs/pretrain/clipbert_custom-pretrain.py
#   python tools/test.py configs/pretrain/clipbert_custom-pretrain.py work_dirs/clipbert_custom-pretrain
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/image_text.py",
    "../_base_/datasets/image_text_val.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
import os  # noqa: E402, before _base_ MMEngine would take this for a config of its other kind

from clipbert_mm.engine.config_values import text_model, vocabulary, whole_number  # noqa: E402

# What to set, here or in the environment (CLIPBERT_DATA=path/to/data python tools/train.py ...); all else follows from it.
# A folder with images/, pretrain.jsonl, pretrain_test.jsonl and, for validation, pretrain_val.jsonl if you like; a line is
# {"image": "a.jpg", "caption": "what it shows"}. Without pretrain.jsonl: frames of the videos of train.jsonl and so on.
data_root = "{{$CLIPBERT_DATA:data/custom}}"
# A Hugging Face folder or name of a text model like BERT, such as bert-base-uncased. Without one the encoder starts from
# scratch, with a vocabulary trained on the captions and questions of the folder.
bert = "{{$CLIPBERT_BERT:none}}"
# A checkpoint to start from: of this model, the paper's release, or a ResNet-50 of torchvision, mmpretrain, mmaction2 or
# detectron2. Without one the ResNet learns from scratch: nothing of it is frozen.
weights = "{{$CLIPBERT_WEIGHTS:none}}"
frame_size = whole_number("CLIPBERT_FRAME_SIZE", "{{$CLIPBERT_FRAME_SIZE:448}}")  # pixels of the longer side
batch_size = whole_number("CLIPBERT_BATCH_SIZE", "{{$CLIPBERT_BATCH_SIZE:8}}")  # images
max_epochs = whole_number("CLIPBERT_EPOCHS", "{{$CLIPBERT_EPOCHS:40}}")
max_length = 40  # tokens of a text

encoder = text_model(
    bert, weights, vocab_size=30522, hidden_size=768, num_layers=12, num_heads=12, intermediate_size=3072
)
width = encoder["hidden_size"]
load_from = [source for source in (bert, weights) if source != "none"] or None
frozen = weights != "none"
model = dict(
    data_preprocessor=dict(vocab_size=encoder["vocab_size"]),
    backbone=dict(
        frozen_stages=1 if frozen else -1, norm_cfg=dict(type="BN", requires_grad=not frozen), norm_eval=frozen
    ),
    projection=dict(out_channels=width),
    encoder=dict(_delete_=True, type="JointEncoder", dropout=0.1, pixel_sampling=100, **encoder),
    head=dict(type="MatchingHead", in_channels=width, hidden_channels=None),
    mlm_head=dict(type="MaskedLanguageHead", in_channels=width, vocab_size=encoder["vocab_size"]),
)
words = vocabulary(data_root, bert)
of_images = os.path.isfile(f"{data_root}/pretrain.jsonl")


def pictures(split, mode):
    name = split
    if of_images:
        name = "pretrain" if split == "train" else f"pretrain_{split}"
    frames = [
        dict(type="OpenVideo"),
        dict(type="SampleClips", num_clips=1, num_frames=1, clip_seconds=1.0, mode=mode),
        dict(type="DecodeClips"),
    ]
    pipeline = [
        *([dict(type="LoadImage")] if of_images else frames),
        dict(type="ResizePad", size=frame_size),
        dict(type="Tokenize", max_length=max_length, vocab_size=encoder["vocab_size"], **words),
        dict(type="MaskTokens", tokenizer=words["tokenizer"], probability=0.15),
        dict(type="PackInputs"),
    ]
    return dict(
        data_root=data_root,
        ann_file=f"{name}.jsonl",
        media_folder="images" if of_images else "videos",
        pipeline=pipeline,
    )


train_dataloader = dict(
    batch_size=batch_size, num_workers=2, persistent_workers=True, dataset=pictures("train", "random")
)
# Of at most 500 pictures.
val_dataloader = dict(batch_size=batch_size, num_workers=2, dataset=dict(pictures("val", "middle"), indices=500))
if not os.path.isfile(os.path.join(data_root, val_dataloader["dataset"]["ann_file"])):
    val_dataloader = val_cfg = val_evaluator = None
test_dataloader = dict(batch_size=batch_size, num_workers=2, dataset=pictures("test", "middle"))

train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(enable=False, base_batch_size=256)  # the paper's rate, 5e-5, is for 8 GPUs x 32 items
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))  # the last and the best
