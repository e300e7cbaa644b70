"""The client certificate of Kafka in Dagster: looked at every day, with a check that warns."""
