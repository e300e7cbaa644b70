"""Access codes: from the partner's file into positions, and what became of them."""
