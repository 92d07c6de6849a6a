# Image-text pre-training (Section 3 of the paper): masked language modelling and image-text matching on COCO and Visual Genome
# captions, from grid-feat and BERT-base; 100 of 144 pixels a step.
#   bash tools/dist_train.sh configs/pretrain/clipbert_r50_8xb32-40e_coco-vg.py 8
_base_ = [
    "../_base_/models/clipbert_r50_bert-base.py",
    "../_base_/datasets/coco_vg_captions.py",
    "../_base_/schedules/adamw_linear.py",
    "../_base_/default_runtime.py",
]
resnet = "{{$CLIPBERT_RESNET:https://dl.fbaipublicfiles.com/grid-feats-vqa/R-50/model_final.pth}}"
bert = "{{$CLIPBERT_BERT:bert-base-uncased}}"
load_from = [resnet, bert]

model = dict(
    encoder=dict(pixel_sampling=100),
    head=dict(type="MatchingHead", in_channels=768, hidden_channels=None),
    mlm_head=dict(type="MaskedLanguageHead", in_channels=768, vocab_size=30522),
)

pipeline = [
    dict(type="LoadImage"),
    dict(type="ResizePad", size=768),
    dict(type="Tokenize", tokenizer=bert, max_length=20),
    dict(type="MaskTokens", tokenizer=bert, probability=0.15),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    dataset=dict(
        type="MixedDataset",
        datasets=[
            dict(
                type="PretrainingDataset",
                data_root={{_base_.pretrain}},
                ann_file=ann_file,
                media_folder=media_folder,
                captions_per_item=2,
                pipeline=pipeline,
            )
            for ann_file, media_folder in (
                ("annotations/pretrain_coco.jsonl", "coco"),
                ("annotations/pretrain_vg.jsonl", "vg"),
            )
        ],
    )
)
val_dataloader = dict(dataset=dict(pipeline=pipeline))
test_dataloader = dict(dataset=dict(pipeline=pipeline))

train_cfg = dict(max_epochs=40)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
auto_scale_lr = dict(enable=False, base_batch_size=256)
