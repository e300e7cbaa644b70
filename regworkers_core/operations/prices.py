"""List prices of AWS, in dollars: for comparing and for orders of magnitude, not for invoices.

Without free tiers and discounts. What is stored, moved or idle, and MongoDB, are not in it.
"""

from __future__ import annotations

PRICES_AS_OF = "November 2026"
PRICES_REGION = "us-east-1"

# Each 64 KB of a request is one.
SQS_REQUEST = 0.40 / 1e6
# On demand; up to 1 KB.
DYNAMODB_WRITE_UNIT = 0.625 / 1e6
# On demand; consistent, up to 4 KB.
DYNAMODB_READ_UNIT = 0.125 / 1e6
STREAM_READ = 0.02 / 1e5
S3_REQUEST = 0.005 / 1e3
LAMBDA_INVOCATION = 0.20 / 1e6
LAMBDA_GB_SECOND = 0.0000166667
FARGATE_VCPU_SECOND = 0.04048 / 3600
FARGATE_GB_SECOND = 0.004445 / 3600

# Assumed of a drain's run: 1 vCPU and 2 GB.
DRAIN_VCPU, DRAIN_GB = 1.0, 2.0
DRAIN_SECOND = DRAIN_VCPU * FARGATE_VCPU_SECOND + DRAIN_GB * FARGATE_GB_SECOND
