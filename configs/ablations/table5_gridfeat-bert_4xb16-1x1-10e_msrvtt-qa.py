# Table 5 of the paper, row "CNN grid-feat, transformer BERT-base": MSRVTT-QA, validation.
# The paper's numbers: accuracy 35.27.
#   bash tools/dist_train.sh configs/ablations/table5_gridfeat-bert_4xb16-1x1-10e_msrvtt-qa.py 4
_base_ = "../_base_/ablations/msrvtt_qa.py"
resnet = "{{$CLIPBERT_RESNET:https://dl.fbaipublicfiles.com/grid-feats-vqa/R-50/model_final.pth}}"
load_from = [resnet, _base_.bert]
