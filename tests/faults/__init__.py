"""The fault kit on its two quickest jobs."""
