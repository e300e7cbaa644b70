"""What the settings declare, what AWS has and what Terraform knows, side by side."""
