"""A run on disk: work directory, checkpoints, history, compatibility."""
