# Table 5 of the paper, row "CNN random, transformer random": MSRVTT retrieval, local validation.
# The paper's numbers: R1 0.3, R5 0.4, R10 0.9, MdR 506.
#   bash tools/dist_train.sh configs/ablations/table5_random-random_8xb16-1x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
load_from = None
model = dict(
    # Nothing of a random ResNet is frozen; input and strides as in PyTorch.
    data_preprocessor=dict(std=[58.395, 57.12, 57.375], to_bgr=False),
    backbone=dict(
        style="pytorch",
        frozen_stages=-1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=False,
        zero_init_residual=False,
    ),
)
