"""Compares the resources that the settings declare with those on AWS and those in Terraform's state."""
