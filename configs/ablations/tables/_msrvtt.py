# What the tables of the paper share: each row trains and tests its two configs in configs/ablations. MSRVTT is there already
# (docs/datasets.md) and the same for all seeds.
tasks = dict(
    retrieval=dict(config="configs/ablations/{row}_8xb16-*_msrvtt-retrieval.py", gpus=8),
    qa=dict(config="configs/ablations/{row}_4xb16-*_msrvtt-qa.py", gpus=4),
)
seeds = (0, 1, 2)
# A tenth of the epochs, and a third of the test pairs or questions.
quick = dict(seeds=(0,), overrides={"train_cfg.max_epochs": 1}, test={"test_dataloader.dataset.indices": 300})
