"""From files on disk to batches: readers, linter, tfds builder, augmentation, loader."""
