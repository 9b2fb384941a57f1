"""The outside world: LXD, NVML and the host's own kernel, each behind a Protocol of `base`."""
