"""Dead letters: look at them without losing any, judge them by the truth, send them again or drop them."""
