# Multiple-choice questions on your own videos with a model for laptops; see docs/your_own_data.md.
#   python tools/train.py configs/video_qa/clipbert_tiny_custom-choice.py
#   python tools/test.py configs/video_qa/clipbert_tiny_custom-choice.py work_dirs/clipbert_tiny_custom-choice
_base_ = [
    "../_base_/models/clipbert_tiny.py",
    "../_base_/datasets/multiple_choice.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
import os  # noqa: E402, before _base_ MMEngine would take this for a config of its other kind

from clipbert_mm.engine.config_values import text_model, vocabulary, whole_number  # noqa: E402

# What to set, here or in the environment (CLIPBERT_DATA=path/to/data python tools/train.py ...); all else follows from it.
# A folder with videos/, choice_train.jsonl, choice_test.jsonl and, for validation, choice_val.jsonl if you like; a line of
# these is {"video": "a.mp4", "question": "what does he do", "options": ["jump", "sit"], "answer": 0}, or without a question.
data_root = "{{$CLIPBERT_DATA:data/custom}}"
# A Hugging Face folder or name of a text model like BERT, such as bert-base-uncased. Without one the encoder starts from
# scratch, with a vocabulary trained on the captions and questions of the folder.
bert = "{{$CLIPBERT_BERT:none}}"
# A checkpoint of this model to start from, such as pre-training's. Without one, some dozens of videos teach it nothing.
weights = "{{$CLIPBERT_WEIGHTS:none}}"
frame_size = whole_number("CLIPBERT_FRAME_SIZE", "{{$CLIPBERT_FRAME_SIZE:64}}")  # pixels of the longer side
batch_size = whole_number("CLIPBERT_BATCH_SIZE", "{{$CLIPBERT_BATCH_SIZE:16}}")  # questions
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
    backbone=dict(norm_eval=weights != "none"),  # batch norms keep the statistics of pre-training
    projection=dict(out_channels=width),
    encoder=dict(_delete_=True, type="JointEncoder", dropout=0.0, grid_size=8, **encoder),
    head=dict(type="MultipleChoiceHead", in_channels=width, hidden_channels=2 * width, dropout=0.0),
)
words = vocabulary(data_root, bert)


def pipeline(num_clips, mode):
    return [
        dict(type="OpenVideo"),
        dict(type="SampleClips", num_clips=num_clips, num_frames=2, clip_seconds=1.0, mode=mode),
        dict(type="DecodeClips"),
        dict(type="ResizePad", size=frame_size),
        dict(type="Tokenize", max_length=max_length, vocab_size=encoder["vocab_size"], **words),
        dict(type="PackInputs"),
    ]


train_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(data_root=data_root, pipeline=pipeline(2, "random")),
)
# Of at most 100 videos, by one clip.
val_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    dataset=dict(data_root=data_root, indices=100, pipeline=pipeline(1, "middle")),
)
if not os.path.isfile(f"{data_root}/choice_val.jsonl"):
    val_dataloader = val_cfg = val_evaluator = None
test_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    dataset=dict(data_root=data_root, pipeline=pipeline(8, "uniform")),
)

train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(
    checkpoint=dict(max_keep_ckpts=1),  # the last and the best
    checkpoint_fit=dict(reinit=["head"]),  # other answers than what the weights were trained for
)
