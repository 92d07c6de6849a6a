# What the twins of the paper's tables share. Each seed has a world of its own and a training of what the rows start from. Both
# tasks are judged by accuracy: of questions, and of the choice of one of 10 captions for a video.
data = dict(command="python tools/dataset_converters/shapes.py {data} --hard --seed {seed}", variable="SHAPES_ROOT")
as_large = {
    "train_cfg.max_epochs": 8,  # small shapes take longer
    "train_dataloader.dataset.pipeline.1.scale": 96,
    "train_dataloader.dataset.pipeline.2.size": (96, 96),
    "test_dataloader.dataset.pipeline.1.scale": 96,
    "test_dataloader.dataset.pipeline.2.size": (96, 96),
}
on_text = {
    "train_dataloader.dataset.ann_file": "text.jsonl",
    "train_dataloader.dataset.negative_probability": 0.0,
    "model.frozen": ["visual_encoder"],
}
pretrain = "configs/shapes/tables/_pretrain.py"
starts = dict(
    # The twin of grid-feat: a CNN that names the colors and kinds of what an image shows.
    objects=dict(config="configs/shapes/resnet_tiny_1xb32-5e_shapes-objects.py", overrides=as_large, validate=False),
    pretrain=dict(config=pretrain, start="objects", validate=False),
    # The twin of BERT: the transformer learns masked captions with black pictures; the CNN stays as it is.
    text=dict(config=pretrain, start=None, overrides=on_text, validate=False),
    objects_text=dict(config=pretrain, start="objects", overrides=on_text, validate=False),
)
tasks = dict(
    retrieval=dict(config="configs/shapes/tables/_retrieval.py", start="pretrain", validate=False),
    qa=dict(config="configs/shapes/tables/_qa.py", start="pretrain", validate=False),
)
seeds = (0, 1, 2)
quick = dict(
    seeds=(0,),
    data=dict(
        command="python tools/dataset_converters/shapes.py {data} --hard --seed {seed} --images 1000 --test-videos 100"
    ),
    overrides={"train_cfg.max_epochs": 1},
    starts=dict(
        objects={"train_cfg.max_epochs": 3},
        pretrain={"train_cfg.max_epochs": 2},
        text={"train_cfg.max_epochs": 1},
        objects_text={"train_cfg.max_epochs": 1},
    ),
)
