# Table 6 of the paper, row "F_v frozen, F_l frozen": MSRVTT retrieval, local validation.
# The paper's numbers: R1 8.0, R5 27.2, R10 38.9, MdR 17.
#   bash tools/dist_train.sh configs/ablations/table6_frozen-frozen_8xb16-1x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
model = dict(frozen=["visual_encoder", "text_encoder"])
