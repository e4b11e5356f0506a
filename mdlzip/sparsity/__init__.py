"""l0 methods, masks and schedules; they work on any `torch.nn.Module`."""
