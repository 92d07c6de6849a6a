# The paper's model (Section 3, Figure 2): ResNet-50 with frozen batch norms, 12-layer BERT. Add a head per task.
vocab_size = 30522
# A model of image-text pre-training: the result of configs/pretrain/clipbert_r50_8xb32-40e_coco-vg.py, or another file.
pretrained = "{{$CLIPBERT_WEIGHTS:work_dirs/clipbert_r50_8xb32-40e_coco-vg/epoch_40.pth}}"
model = dict(
    type="ClipBert",
    # BGR, 0 to 255, minus the mean: the input of the Caffe-style ResNet-50 of grid-feat.
    data_preprocessor=dict(
        type="VideoTextPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[1.0, 1.0, 1.0],
        to_bgr=True,
        vocab_size=vocab_size,
    ),
    backbone=dict(
        type="mmpretrain.ResNet",
        depth=50,
        style="caffe",
        frozen_stages=1,
        norm_cfg=dict(type="BN", requires_grad=False),
        norm_eval=True,
    ),
    projection=dict(type="GridProjection", in_channels=2048, out_channels=768),
    temporal_fusion=dict(type="MeanFusion"),
    encoder=dict(
        type="JointEncoder",
        vocab_size=vocab_size,
        hidden_size=768,
        num_layers=12,
        num_heads=12,
        intermediate_size=3072,
        dropout=0.1,
    ),
    aggregator=dict(type="LogSumExpAggregator"),
)
