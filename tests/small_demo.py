"""The demo with less of everything."""

import sys
from pathlib import Path
from types import ModuleType

from mmengine.config import Config

from clipbert_mm.datasets.shapes.world import ShapesWorld


def shrink(demo: ModuleType) -> None:
    """Let the demo train one epoch a stage, with one layer, on a small world."""
    stage_config = demo.stage_config

    def shrunken(*arguments) -> Config:
        config = stage_config(*arguments)
        config.train_dataloader.batch_size = config.auto_scale_lr.base_batch_size = 8
        config.train_cfg.max_epochs = 1
        config.default_hooks.checkpoint.interval = 1
        if "encoder" in config.model:
            config.model.encoder.num_layers = 1
        return config

    demo.stage_config = shrunken
    demo.ShapesWorld = lambda seed: ShapesWorld(seed=seed, images=16, test_images=4, train_videos=6, test_videos=3)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
    import demo

    shrink(demo)
    demo.main()
