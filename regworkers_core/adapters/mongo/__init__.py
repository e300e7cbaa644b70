"""The collections of MongoDB, one class each."""
