"""The whole model, imported: what it can do, whether a program used it or not."""

import importlib
import pkgutil

from tracer import TracedFunction, registry


def load_model() -> list[TracedFunction]:
    """Import every module of the model and return all its traced functions, and no others."""
    import hypervisor

    for module in pkgutil.walk_packages(hypervisor.__path__, "hypervisor."):
        importlib.import_module(module.name)
    return [function for function in registry() if function.module.startswith("hypervisor.")]
