"""Dead letters: browse them without losing any, read their verdict, redrive or drop them."""
