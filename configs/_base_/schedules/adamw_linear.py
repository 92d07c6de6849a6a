# The paper's optimisation (Section 3, Implementation Details): AdamW, warm-up over the first 10 % of steps, linear to 0. A leaf
# says the learning rate and the epochs.
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=5e-5, betas=(0.9, 0.98), weight_decay=1e-3, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [dict(type="WarmupLinearLR", warmup_share=0.1, convert_to_iter_based=True)]
