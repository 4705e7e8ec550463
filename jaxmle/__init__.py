"""jaxmle: maximum likelihood for any log-likelihood written as a pure JAX function.

The public names stand in ``__init__.pyi``, each with the module that has it; a module is imported
when one of its names is first asked for.
"""

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """A public name, or a word about one that is not there."""
    try:
        return _load(name)
    except AttributeError:
        if name in __all__:
            raise
        from difflib import get_close_matches

        ours = {"load": "Fit.load('fit.npz')", "predict": "from_formula(…).predict(fit, new)"}
        if name in ours:
            raise AttributeError(f"jaxmle has no {name!r}: jaxmle.{ours[name]}") from None
        near = [] if name.startswith("_") else get_close_matches(name, __all__, n=1)
        hint = f": did you mean jaxmle.{near[0]}?" if near else ""
        raise AttributeError(f"jaxmle has no {name!r}{hint}") from None


__version__ = "0.1.0"
