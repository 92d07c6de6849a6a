# Table 5 of the paper, row "image-text pre-training": MSRVTT-QA, validation.
# The paper's numbers: accuracy 35.73.
#   bash tools/dist_train.sh configs/ablations/table5_image-text-pretraining_4xb16-1x1-10e_msrvtt-qa.py 4
_base_ = "../_base_/ablations/msrvtt_qa.py"
load_from = _base_.pretrained  # by images and their captions; docs/where_to_start.md has other starts
