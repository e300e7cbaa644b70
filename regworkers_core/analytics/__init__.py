"""Publishes business events to Kafka, archives them, and reports from them."""
