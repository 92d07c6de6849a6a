# Table 5 of the paper, row "CNN grid-feat, transformer BERT-base": MSRVTT retrieval, local validation.
# The paper's numbers: R1 7.4, R5 21.0, R10 30.7, MdR 26.
#   bash tools/dist_train.sh configs/ablations/table5_gridfeat-bert_8xb16-1x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
resnet = "{{$CLIPBERT_RESNET:https://dl.fbaipublicfiles.com/grid-feats-vqa/R-50/model_final.pth}}"
load_from = [resnet, _base_.bert]
