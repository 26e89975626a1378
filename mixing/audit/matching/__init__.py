"""Image matching: fingerprints, PDQ, candidate search and geometric verification."""
