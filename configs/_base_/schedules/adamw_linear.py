# The paper's optimisation (Section 3, Implementation Details): AdamW, no weight decay on biases and norm scales, warm-up over
# the first 10 % of steps, linear to 0. A leaf says the learning rate and the epochs. accumulative_counts=N averages the
# gradients of N batches; paramwise_cfg=dict(lr_mult=dict(backbone=0.1)) gives a module a rate of its own.
optim_wrapper = dict(
    type="AccumulatingOptimWrapper",
    constructor="GroupedOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=5e-5, betas=(0.9, 0.98), weight_decay=1e-3, fused=True),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [dict(type="WarmupLinearLR", warmup_share=0.1, convert_to_iter_based=True)]
train_cfg = dict(type="ResumableEpochTrainLoop")
