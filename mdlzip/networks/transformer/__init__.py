"""The family `transformer`: byte transformers, the paper's and ours."""

from mdlzip.networks.transformer.spec import FAMILY

__all__ = ["FAMILY"]
