default_scope = "clipbert_mm"
runner_type = "clipbert_mm.ClipBertRunner"
custom_imports = dict(imports=["clipbert_mm"], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="MainProcessLoggerHook", interval=20),
    param_scheduler=dict(type="ParamSchedulerHook"),
    # Also every 15 minutes between epochs; by the step instead of the epoch: by_epoch=False, interval=1000. The best weights
    # are kept by the first metric of validation; by another: save_best="v2t/R@1".
    checkpoint=dict(type="FaultTolerantCheckpointHook", interval=1, minutes=15, max_keep_ckpts=2, save_best="auto"),
    finite_loss=dict(type="FiniteLossHook"),
    chance_loss=dict(type="ChanceLossHook"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    epoch_seed=dict(type="EpochSeedHook"),
    broken_media=dict(type="BrokenMediaHook", max_share=0.05),
    checkpoint_fit=dict(type="CheckpointCompatibilityHook"),
)
env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0))
log_processor = dict(window_size=20)
randomness = dict(seed=42)
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])
