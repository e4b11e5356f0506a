"""The family `none`: no network at all, the experts are alone."""

from mdlzip.networks.none.spec import FAMILY, NoNetwork

__all__ = ["FAMILY", "NoNetwork"]
