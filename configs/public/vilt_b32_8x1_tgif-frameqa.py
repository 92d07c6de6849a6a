# Zero-shot TGIF-QA frameQA by the public ViLT that answers VQA's questions with its 3,129 answers: 8 uniform frames, each
# answered on its own, pooled by LogSumExp. Questions with other answers count as wrong. Neither its authors' figures nor ours
# are known for it.
#   hf download dandelin/vilt-b32-finetuned-vqa --local-dir checkpoints/vilt-vqa
#   CLIPBERT_VILT=checkpoints/vilt-vqa python tools/test.py configs/public/vilt_b32_8x1_tgif-frameqa.py checkpoints/vilt-vqa
_base_ = [
    "../_base_/models/vilt_b32.py",
    "../_base_/datasets/tgif_frameqa.py",
    "../_base_/default_runtime.py",
]
answers = "{{$CLIPBERT_VILT:checkpoints/vilt-vqa}}/config.json"
root = "{{$CLIPBERT_TGIF:data/tgif_qa}}"

model = dict(
    head=dict(
        type="SoftAnswerHead",
        in_channels=768,
        num_answers=3129,
        hidden_channels=1536,
        hidden_norm=True,
        dropout=0.0,
    )
)

train_dataloader = None
val_dataloader = None
val_cfg = None
val_evaluator = None
test_clips = dict(type="SampleClips", num_clips=8, num_frames=1, clip_seconds=1.0, mode="uniform")
test_dataloader = dict(
    batch_size=1,  # videos of other shapes do not make a batch
    dataset=dict(
        data_root="",
        ann_file=f"{root}/annotations/frameqa_test.jsonl",
        answer_file=answers,
        media_folder=f"{root}/gifs",
        pipeline=[dict(type="OpenVideo"), test_clips, dict(type="DecodeClips"), *_base_.resize_and_text],
    ),
)
