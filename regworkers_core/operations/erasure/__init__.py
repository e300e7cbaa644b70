"""Erasure of a fan: `facts`, `erase`, `dead_letters`, and `again` for what came back."""
