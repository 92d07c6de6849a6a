"""The parameter groups of the optimizer, and its learning rate."""

from collections.abc import Mapping
from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from clipbert_mm.errors import OptionError
from clipbert_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor:
    """Make few parameter groups: biases and norm scales without weight decay, modules with their own learning rates.

    MMEngine's DefaultOptimWrapperConstructor makes one group per parameter, which a fused optimizer updates one by one, and
    applies weight decay to the biases and norms of a module with its own learning rate. Frozen parameters are in no group.

    Args:
        optim_wrapper_cfg: Config of the optimizer wrapper, with the config of the ``optimizer``.
        paramwise_cfg: ``lr_mult``, a dict of factors of the learning rate by module, such as ``{"backbone": 0.1, "encoder":
            0.5}``; if several hold a parameter, the longest name counts.

    Raises:
        OptionError: If ``paramwise_cfg`` has another key, or the optimizer no ``lr``.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: Mapping[str, Any] | None = None) -> None:
        unknown = set(paramwise_cfg or {}) - {"lr_mult"}
        if unknown:
            raise OptionError(
                f"GroupedOptimWrapperConstructor takes lr_mult in paramwise_cfg, got {', '.join(sorted(unknown))}. Biases and "
                "norm scales have no weight decay anyway; for other settings use DefaultOptimWrapperConstructor."
            )
        self.wrapper = dict(optim_wrapper_cfg)
        self.optimizer = dict(self.wrapper.pop("optimizer"))
        if "lr" not in self.optimizer:
            raise OptionError(f"GroupedOptimWrapperConstructor expects an optimizer with lr, got {self.optimizer}.")
        self.lr_mult = dict((paramwise_cfg or {}).get("lr_mult", {}))

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer and its wrapper.

        Raises:
            OptionError: If ``lr_mult`` names no module of the model, or every parameter is frozen.
        """
        model = getattr(model, "module", model)
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        for name in self.lr_mult:
            if not any(parameter.startswith(f"{name}.") for parameter in trained):
                modules = ", ".join(dict.fromkeys(parameter.partition(".")[0] for parameter in trained))
                raise OptionError(
                    f"lr_mult names '{name}', which is no module with trainable parameters. The model has: {modules}."
                )
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in trained.items():
            module = max((each for each in self.lr_mult if name.startswith(f"{each}.")), key=len, default=None)
            # Scales and shifts of norms have one dimension; so have biases, except for tables of them in some backbones.
            decays = parameter.ndim > 1 and "bias" not in name.rpartition(".")[2]
            groups.setdefault((1.0 if module is None else self.lr_mult[module], decays), []).append(parameter)
        if not groups:
            raise OptionError("There is nothing to train: every parameter of the model is frozen.")
        # The log shows the learning rate of the first group: a group with factor 1, if there is one.
        self.optimizer["params"] = [
            dict(params=parameters, lr=self.optimizer["lr"] * factor) | ({} if decays else dict(weight_decay=0.0))
            for (factor, decays), parameters in sorted(groups.items(), key=lambda group: group[0][0] != 1.0)
        ]
        wrapper = {"type": "AccumulatingOptimWrapper", **self.wrapper, "optimizer": OPTIMIZERS.build(self.optimizer)}
        return OPTIM_WRAPPERS.build(wrapper)


def scale_learning_rate(runner: Runner, wrapper: OptimWrapper, auto_scale_lr: Mapping[str, Any] | None) -> None:
    """Scale the learning rate linearly with the global batch, if ``enable`` is set.

    Unlike MMEngine's rule, it counts the batches that a step accumulates.

    Args:
        runner: The runner, whose training loop is built.
        wrapper: The optimizer wrapper; its learning rates are changed.
        auto_scale_lr: ``enable``, and ``base_batch_size``: the items per step that the config's learning rate is for.

    Raises:
        OptionError: If ``base_batch_size`` is missing or not positive.
    """
    if not (auto_scale_lr or {}).get("enable", False):
        return
    base = auto_scale_lr.get("base_batch_size")  # type: ignore[union-attr]
    if not isinstance(base, int) or base < 1:
        raise OptionError(
            "auto_scale_lr needs base_batch_size, the items per step that the config's learning rate is for, got "
            f"auto_scale_lr={dict(auto_scale_lr or {})}. Set auto_scale_lr=dict(base_batch_size=...): processes x batch_size x "
            "accumulative_counts."
        )
    items = runner.items_per_step
    for group in wrapper.param_groups:
        group["lr"] *= items / base
    runner.logger.info(
        f"Learning rate scaled by {items / base:g}: {items} items per step, the config's learning rate is for {base}."
    )
