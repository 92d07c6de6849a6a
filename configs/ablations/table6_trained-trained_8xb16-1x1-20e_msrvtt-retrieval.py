# Table 6 of the paper, row "F_v trained, F_l trained": MSRVTT retrieval, local validation.
# The paper's numbers: R1 10.2, R5 28.6, R10 40.5, MdR 17.
#   bash tools/dist_train.sh configs/ablations/table6_trained-trained_8xb16-1x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
# Both are trained unless model.frozen names them.
