"""Archive bytes <-> typed objects; `docs/format.md` is normative."""
