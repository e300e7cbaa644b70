"""The client certificate of Kafka: what it is worth, when it ends, and how another one comes."""
