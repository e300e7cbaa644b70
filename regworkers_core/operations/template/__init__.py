"""Shared scaffolding from a template repository. Nothing here speaks to a server of the product."""
