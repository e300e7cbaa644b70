"""What a draw costs: against bare DuckDB hashing and sorting the same ids, in memory, and as it grows."""
