# Table 5 of the paper, row "CNN ImageNet, transformer BERT-base": MSRVTT retrieval, local validation.
# The paper's numbers: R1 7.2, R5 23.3, R10 35.6, MdR 21.
#   bash tools/dist_train.sh configs/ablations/table5_imagenet-bert_8xb16-1x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
resnet = "{{$CLIPBERT_RESNET:https://download.pytorch.org/models/resnet50-0676ba61.pth}}"  # torchvision's
load_from = [resnet, _base_.bert]
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375], to_bgr=False),
    backbone=dict(style="pytorch"),
)
