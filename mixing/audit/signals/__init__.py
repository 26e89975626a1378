"""Leakage signals, one file each: images, labels, texts, ids, lineage, embeddings."""
