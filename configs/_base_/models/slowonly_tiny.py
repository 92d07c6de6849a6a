# mmaction2's SlowOnly in the size of clipbert_tiny.py's ResNet, for frames of 64 x 64 pixels: three stages that end in 8 x 8
# cells, of which the last convolves in time. configs/video_encoders has what trains it.
slowonly = dict(
    type="mmaction.ResNet3dSlowOnly",
    depth=18,
    lateral=False,
    base_channels=16,
    num_stages=3,
    conv1_kernel=(1, 3, 3),
    pool1_stride_s=1,
    spatial_strides=(1, 2, 2),
    temporal_strides=(1, 1, 1),
    dilations=(1, 1, 1),
    inflate=(0, 0, 1),
    out_indices=(2,),
    zero_init_residual=False,
)
