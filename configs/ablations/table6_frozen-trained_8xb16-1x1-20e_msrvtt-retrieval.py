# Table 6 of the paper, row "F_v frozen, F_l trained": MSRVTT retrieval, local validation.
# The paper's numbers: R1 9.0, R5 27.5, R10 39.4, MdR 18.
#   bash tools/dist_train.sh configs/ablations/table6_frozen-trained_8xb16-1x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
model = dict(frozen=["visual_encoder"])
