"""The page that checks a receipt in the browser: its modules, and how they become one file."""
