"""Built-in models as estimators of scikit-learn, which is imported when one of them is asked for."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
