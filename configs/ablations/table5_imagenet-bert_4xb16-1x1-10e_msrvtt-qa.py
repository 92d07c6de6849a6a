# Table 5 of the paper, row "CNN ImageNet, transformer BERT-base": MSRVTT-QA, validation.
# The paper's numbers: accuracy 35.01.
#   bash tools/dist_train.sh configs/ablations/table5_imagenet-bert_4xb16-1x1-10e_msrvtt-qa.py 4
_base_ = "../_base_/ablations/msrvtt_qa.py"
resnet = "{{$CLIPBERT_RESNET:https://download.pytorch.org/models/resnet50-0676ba61.pth}}"  # torchvision's
load_from = [resnet, _base_.bert]
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375], to_bgr=False),
    backbone=dict(style="pytorch"),
)
