"""Questions asked of a fit."""

from jaxmle.inference.delta import Delta, delta

__all__ = ["Delta", "delta"]
