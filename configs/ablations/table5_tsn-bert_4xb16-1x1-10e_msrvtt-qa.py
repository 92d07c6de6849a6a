# Table 5 of the paper, row "CNN TSN of Kinetics-700, transformer BERT-base": MSRVTT-QA, validation.
# The paper's numbers: accuracy 35.40.
#   bash tools/dist_train.sh configs/ablations/table5_tsn-bert_4xb16-1x1-10e_msrvtt-qa.py 4
_base_ = "../_base_/ablations/msrvtt_qa.py"
# mmaction2's TSN, as its releases before 1.0 list it; later ones have none of Kinetics-700.
resnet = "{{$CLIPBERT_RESNET:https://download.openmmlab.com/mmaction/recognition/tsn/tsn_r50_video_1x1x8_100e_kinetics700_rgb/tsn_r50_video_1x1x8_100e_kinetics700_rgb_20201015-e381a6c7.pth}}"
load_from = [resnet, _base_.bert]
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375], to_bgr=False),
    backbone=dict(style="pytorch"),
)
