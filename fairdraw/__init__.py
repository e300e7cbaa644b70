"""Draws that everybody can check: their mathematics, receipts, the public log, and the page that checks a receipt."""

__version__ = "1.0.0rc1"
