"""The health of the system: the snapshot, the doctor, and single services."""
