# Table 6 of the paper, row "F_v frozen, F_l trained": MSRVTT-QA, validation.
# The paper's numbers: accuracy 35.50.
#   bash tools/dist_train.sh configs/ablations/table6_frozen-trained_4xb16-1x1-10e_msrvtt-qa.py 4
_base_ = "../_base_/ablations/msrvtt_qa.py"
model = dict(frozen=["visual_encoder"])
