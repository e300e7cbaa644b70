"""Weekly, monthly and quarterly reviews of the system. A review is written even if some sources cannot be read."""
