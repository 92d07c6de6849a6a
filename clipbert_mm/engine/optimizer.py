"""From a model to the groups of its optimizer."""

from collections.abc import Mapping
from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from clipbert_mm.errors import OptionError
from clipbert_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor:
    """Few groups of parameters: biases and norm scales without weight decay, modules with rates of their own.

    MMEngine's own constructor makes a group of each parameter, which a fused optimizer steps through one by one, and where a
    module has a rate of its own, decays its biases and norms. What is frozen is in no group.

    Args:
        optim_wrapper_cfg: Config of the optimizer wrapper with that of the ``optimizer``.
        paramwise_cfg: ``lr_mult``, a dict of factors of the rate by module, such as ``{"backbone": 0.1, "encoder": 0.5}``;
            of several that hold a parameter, the longest name counts.

    Raises:
        OptionError: If ``paramwise_cfg`` has something else, or the optimizer no ``lr``.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: Mapping[str, Any] | None = None) -> None:
        unknown = set(paramwise_cfg or {}) - {"lr_mult"}
        if unknown:
            raise OptionError(
                f"GroupedOptimWrapperConstructor knows lr_mult in paramwise_cfg, got {', '.join(sorted(unknown))}. Biases and "
                "norm scales have no weight decay anyway."
            )
        self.wrapper = dict(optim_wrapper_cfg)
        self.optimizer = dict(self.wrapper.pop("optimizer"))
        if "lr" not in self.optimizer:
            raise OptionError(f"GroupedOptimWrapperConstructor expects an optimizer with lr, got {self.optimizer}.")
        self.lr_mult = dict((paramwise_cfg or {}).get("lr_mult", {}))

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build optimizer and wrapper.

        Raises:
            OptionError: If the model has no module of a name in ``lr_mult``, or nothing to train.
        """
        model = getattr(model, "module", model)
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        for name in self.lr_mult:
            if not any(parameter.startswith(f"{name}.") for parameter in trained):
                modules = ", ".join(dict.fromkeys(parameter.partition(".")[0] for parameter in trained))
                raise OptionError(
                    f"lr_mult names '{name}', which is no module of the model with weights to train. Such are: {modules}."
                )
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in trained.items():
            own = max((module for module in self.lr_mult if name.startswith(f"{module}.")), key=len, default=None)
            # Scales and shifts of norms have one dimension; so have biases, but for tables of them in some backbones.
            decays = parameter.ndim > 1 and "bias" not in name.rpartition(".")[2]
            groups.setdefault((1.0 if own is None else self.lr_mult[own], decays), []).append(parameter)
        if not groups:
            raise OptionError("There is nothing to train: every parameter of the model is frozen.")
        # The log names the rate of the first group: the one whose factor is 1, if there is one.
        self.optimizer["params"] = [
            dict(params=parameters, lr=self.optimizer["lr"] * factor) | ({} if decays else dict(weight_decay=0.0))
            for (factor, decays), parameters in sorted(groups.items(), key=lambda group: group[0][0] != 1.0)
        ]
        wrapper = {"type": "AccumulatingOptimWrapper", **self.wrapper, "optimizer": OPTIMIZERS.build(self.optimizer)}
        return OPTIM_WRAPPERS.build(wrapper)


def scale_learning_rate(runner: Runner, wrapper: OptimWrapper, auto_scale_lr: Mapping[str, Any] | None) -> None:
    """Scale the learning rate by the items of a step over those that it is for (the linear rule), if ``enable`` says so.

    Unlike MMEngine's, it counts the batches that a step accumulates.

    Args:
        runner: The runner, whose training loop is built.
        wrapper: The optimizer wrapper; its rates are changed.
        auto_scale_lr: ``enable``, and ``base_batch_size``: the items of a step that the config's rate is for.

    Raises:
        OptionError: If ``base_batch_size`` is missing or no positive number.
    """
    if not (auto_scale_lr or {}).get("enable", False):
        return
    base = auto_scale_lr.get("base_batch_size")  # type: ignore[union-attr]
    if not isinstance(base, int) or base < 1:
        raise OptionError(
            "Scaling the learning rate needs the items of a step that the config's rate is for, got "
            f"auto_scale_lr={dict(auto_scale_lr or {})}. Set auto_scale_lr=dict(base_batch_size=...): processes x batch_size x "
            "accumulative_counts."
        )
    items = runner.items_per_step
    for group in wrapper.param_groups:
        group["lr"] *= items / base
    runner.logger.info(f"Learning rate times {items / base:g}: {items} items a step, the config's is for {base}.")
