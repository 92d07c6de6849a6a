# Table 5 of the paper, row "image-text pre-training": MSRVTT retrieval, local validation.
# The paper's numbers: R1 10.2, R5 28.6, R10 40.5, MdR 17.
#   bash tools/dist_train.sh configs/ablations/table5_image-text-pretraining_8xb16-1x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
load_from = _base_.pretrained  # by images and their captions; docs/where_to_start.md has other starts
