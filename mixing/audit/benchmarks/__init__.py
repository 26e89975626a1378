"""The benchmark side of the audit: fingerprint packs of images, labels and texts."""
