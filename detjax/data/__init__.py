"""From files on disk to batches: readers, linter, builder, augmentation, loader."""
