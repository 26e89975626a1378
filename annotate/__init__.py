"""Images found somewhere, decoded safely and pseudo-labelled by models into Samples with provenance."""
