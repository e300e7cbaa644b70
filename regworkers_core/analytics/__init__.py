"""Business events on their way out of the workers, and what is read from them."""
