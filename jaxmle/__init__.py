"""jaxmle: maximum likelihood for any log-likelihood written as a pure JAX function.

The public names stand in ``__init__.pyi``, each with the module that has it; a module is imported
when one of its names is first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
