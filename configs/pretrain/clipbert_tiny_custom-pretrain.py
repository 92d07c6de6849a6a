# Image-text pre-training on your own pictures with a model for laptops; see docs/your_own_data.md.
#   python tools/train.py configs/pretrain/clipbert_tiny_custom-pretrain.py
#   python tools/test.py configs/pretrain/clipbert_tiny_custom-pretrain.py work_dirs/clipbert_tiny_custom-pretrain
_base_ = [
    "../_base_/models/clipbert_tiny.py",
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
# A checkpoint of this model to start from, such as pre-training's. Without one, some dozens of videos teach it nothing.
weights = "{{$CLIPBERT_WEIGHTS:none}}"
frame_size = whole_number("CLIPBERT_FRAME_SIZE", "{{$CLIPBERT_FRAME_SIZE:64}}")  # pixels of the longer side
batch_size = whole_number("CLIPBERT_BATCH_SIZE", "{{$CLIPBERT_BATCH_SIZE:32}}")  # images
max_epochs = whole_number("CLIPBERT_EPOCHS", "{{$CLIPBERT_EPOCHS:20}}")
max_length = 64  # tokens of a text

encoder = text_model(
    bert,
    weights,
    vocab_size=2000,
    hidden_size=128,
    num_layers=3,
    num_heads=4,
    intermediate_size=512,
    max_text_length=64,
    initializer_range=0.08,
)
width = encoder["hidden_size"]
load_from = [source for source in (bert, weights) if source != "none"] or None
model = dict(
    data_preprocessor=dict(vocab_size=encoder["vocab_size"]),
    projection=dict(out_channels=width),
    encoder=dict(_delete_=True, type="JointEncoder", dropout=0.0, grid_size=8, **encoder),
    head=dict(type="MatchingHead", in_channels=width, hidden_channels=2 * width, dropout=0.0),
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
        dict(type="MaskTokens", tokenizer=words["tokenizer"], probability=0.3, predict_unmatched=False),
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
optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(enable=False, base_batch_size=32)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))  # the last and the best
