"""Kafka through confluent-kafka: admin, producer, reader, certificates."""
