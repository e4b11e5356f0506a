"""The families that archives may name, and the specifications of any configuration."""

from __future__ import annotations

from typing import Any

from mdlzip.config import ModelConfig
from mdlzip.networks import none, transformer
from mdlzip.networks.none import NoNetwork
from mdlzip.networks.spec import Family, SiteSpec, TensorSpec

FAMILIES: tuple[Family, ...] = (transformer.FAMILY, none.FAMILY)
NetworkConfig = ModelConfig | NoNetwork


def family_of(config: Any) -> Family:
    """The family whose configuration `config` is; TypeError if it is none's."""
    for family in FAMILIES:
        if isinstance(config, family.config):
            return family
    raise TypeError(f"{type(config).__name__} is no family's configuration")


def family_with_byte(byte: int) -> Family | None:
    """The family that archives name by `byte`, if there is one."""
    return next((family for family in FAMILIES if family.byte == byte), None)


def tensor_specs(config: Any) -> dict[str, TensorSpec]:
    """Name -> specification of every tensor, in the order in which the archive stores them."""
    return {spec.name: spec for spec in family_of(config).tensors(config)}


def site_specs(config: Any) -> dict[str, SiteSpec]:
    """Name -> specification of every activation site, in stored order."""
    return {spec.name: spec for spec in family_of(config).sites(config)}


def tensor_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor, in stored order."""
    return {name: spec.shape for name, spec in tensor_specs(config).items()}


def activation_sites(config: Any) -> list[str]:
    """Names of all sites, in stored order."""
    return list(site_specs(config))


def n_cells(config: Any) -> int:
    """Number of weights of the model, zero or not."""
    return sum(spec.n_cells for spec in tensor_specs(config).values())
