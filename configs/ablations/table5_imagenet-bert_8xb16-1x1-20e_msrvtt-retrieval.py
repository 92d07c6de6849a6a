# Table 5 of the paper, row "CNN ImageNet, transformer BERT-base": MSRVTT retrieval, local validation.
# The paper's numbers: R1 7.2, R5 23.3, R10 35.6, MdR 21.
#   bash tools/dist_train.sh configs/ablations/table5_imagenet-bert_8xb16-1x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
resnet = "{{$CLIPBERT_RESNET:checkpoints/resnet50-0676ba61.pth}}"  # a ResNet-50 of torchvision or mmpretrain
load_from = [resnet, _base_.bert]
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375], to_bgr=False),
    backbone=dict(style="pytorch"),
)
