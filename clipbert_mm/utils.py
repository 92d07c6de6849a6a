"""What MMEngine expects of each of its libraries under this name: ``register_all_modules``."""

from mmengine.registry import init_default_scope as _init_default_scope

from clipbert_mm import registry


def register_all_modules(init_default_scope: bool = True) -> None:
    """Register all classes of the package, as the function of this name of MMPretrain and MMAction2 does.

    The registries find classes by the scope ``clipbert_mm`` without it. It makes that scope the default, so that
    ``MODELS.build(config.model)`` needs no scope, and lets MMEngine read configs as ``clipbert_mm::NAME``.

    Args:
        init_default_scope: Whether to make ``clipbert_mm`` the default scope.
    """
    for group in list(vars(registry).values()):
        if isinstance(group, registry.Registry):
            group.import_from_location()
    if init_default_scope:
        _init_default_scope("clipbert_mm")
