# Table 5 of the paper, row "CNN random, transformer random": MSRVTT-QA, validation.
# The paper's numbers: accuracy 28.05.
#   bash tools/dist_train.sh configs/ablations/table5_random-random_4xb16-1x1-10e_msrvtt-qa.py 4
_base_ = "../_base_/ablations/msrvtt_qa.py"
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
